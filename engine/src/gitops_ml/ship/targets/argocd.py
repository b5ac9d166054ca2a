"""Point the Argo CD applications at this repository.

    gitops-ml argocd            # writes its address into deploy/argocd
    gitops-ml argocd --check    # only says what is wrong

They come with an address that stands for yours; one that you wrote yourself stays.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from gitops_ml.github.client import NotSetUpError, find_remote
from gitops_ml.ship.settings import DeploymentError

APPLICATIONS = Path("deploy/argocd")
PLACEHOLDER = "https://github.com/OWNER/REPOSITORY.git"
_ADDRESS = re.compile(r"^(\s+repoURL: )(\S+)$", re.MULTILINE)


def read_addresses(root: Path) -> dict[Path, str]:
    """The repository that each application follows, by its file.

    Raises:
        DeploymentError: If there is no application, or one does not say.
    """
    addresses = {}
    for path in sorted((root / APPLICATIONS).glob("*.yaml")):
        found = _ADDRESS.search(path.read_text(encoding="utf-8", errors="replace"))
        if found is None:
            raise DeploymentError(f"{path.relative_to(root)}: has no line `repoURL: ADDRESS`")
        addresses[path] = found[2]
    if not addresses:
        raise DeploymentError(f"{APPLICATIONS}: holds no application")
    return addresses


def check(root: Path) -> str:
    """Make sure that every application follows a repository.

    Returns:
        What they follow, for people.

    Raises:
        DeploymentError: If one still has the address that stands for yours, or follows another
            repository than its project allows.
    """
    addresses = read_addresses(root)
    lacking = [path for path, url in addresses.items() if url == PLACEHOLDER]
    if lacking:
        names = ", ".join(str(path.relative_to(root)) for path in lacking)
        raise DeploymentError(
            f"{names}: repoURL is still {PLACEHOLDER}; run `make argocd`, or write "
            "the address of your repository there"
        )
    for path, url in addresses.items():
        for allowed in _allowed(root, path):
            if url not in allowed:
                raise DeploymentError(
                    f"{path.relative_to(root)}: repoURL is {url}, but its AppProject allows only "
                    f"{', '.join(allowed) or 'nothing'}; write the same address under sourceRepos"
                )
    return "\n".join(f"{path.relative_to(root)} follows {url}" for path, url in addresses.items())


def _allowed(root: Path, path: Path) -> Iterator[list[str]]:
    """Which repositories each project of a file allows its applications to follow."""
    try:
        for item in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if isinstance(item, dict) and item.get("kind") == "AppProject":
                yield [str(url) for url in item["spec"]["sourceRepos"]]
    except (yaml.YAMLError, LookupError, TypeError) as error:
        raise DeploymentError(
            f"{path.relative_to(root)}: an AppProject must say which repositories it allows, under "
            f"spec.sourceRepos: {error!r}"
        ) from error


def point(root: Path) -> str:
    """Write the repository's address into the applications that have none.

    Returns:
        What they follow now, for people.

    Raises:
        DeploymentError: If there is no address to write.
    """
    addresses = read_addresses(root)
    if PLACEHOLDER in addresses.values():
        try:
            remote = find_remote(root)
        except NotSetUpError as error:
            raise DeploymentError(f"{APPLICATIONS}: {error}") from error
        url = f"https://{remote.host}/{remote.repository}.git"
        for path in (path for path, old in addresses.items() if old == PLACEHOLDER):
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(PLACEHOLDER, url), encoding="utf-8")
    return check(root)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--check", action="store_true", help="only say what is wrong")


def run(options: argparse.Namespace) -> int:
    """Point or check; 0 if every application follows a repository."""
    print(check(Path()) if options.check else point(Path()))
    return 0
