"""Copy an artifact's files as actions/upload-artifact lays them out.

https://github.com/actions/upload-artifact#upload-using-multiple-paths-and-exclusions
"""

import os
import shutil
import sys
from pathlib import Path

patterns = os.environ["PATTERNS"].split()
# What the patterns have in common is left out of the names in the artifact.
fixed = [pattern.partition("*")[0] for pattern in patterns]
roots = [Path(part) if Path(part).is_dir() else Path(part).parent for part in fixed]
root = os.path.commonpath([path.absolute() for path in roots])
found = [path for pattern in patterns for path in Path().glob(pattern)]
if not found and os.environ["MISSING"] == "error":
    sys.exit(f"no files were found: {' '.join(patterns)}")

target = Path(os.environ["STANDIN_ARTIFACTS"], os.environ["NAME"])
target.mkdir(parents=True, exist_ok=True)
for path in found:
    copy = target / path.absolute().relative_to(root)
    copy.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, copy, dirs_exist_ok=True)
    else:
        shutil.copy2(path, copy)
