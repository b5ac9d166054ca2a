"""Write down which files belong to the engine, with their hashes: `engine/manifest.json`.

    python tools/engine_manifest.py            # writes it
    python tools/engine_manifest.py --check    # exits with 1 when it is not current

A project keeps exactly these files when it is generated, and `make doctor` holds its own against
them. What git tracks in `engine/`, or is about to track, belongs to it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

ENGINE = Path(__file__).resolve().parents[1] / "engine"
MANIFEST = "manifest.json"


def files_of(engine: Path) -> list[str]:
    """The names of the engine's files, as git knows them."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "."],
        cwd=engine,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = sorted(name for name in listing.split("\0") if name)
    return [name for name in names if name != MANIFEST and (engine / name).is_file()]


def describe(engine: Path) -> str:
    """The text of the manifest: the version, and the sha256 of every file."""
    project = tomllib.loads((engine / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    hashes = {n: hashlib.sha256((engine / n).read_bytes()).hexdigest() for n in files_of(engine)}
    return json.dumps({"version": project["version"], "files": hashes}, indent=1) + "\n"


def main(arguments: list[str], engine: Path = ENGINE) -> int:
    """Write the manifest, or check it; 1 if it is not current."""
    path, text = engine / MANIFEST, describe(engine)
    if arguments == ["--check"]:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return 0
        print(f"engine/{MANIFEST} is not current: run `make format`", file=sys.stderr)
        return 1
    path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
