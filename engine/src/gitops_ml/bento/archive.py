"""An exported bento, read without unpacking it: whoever made it may have meant harm."""

from __future__ import annotations

import hashlib
import lzma
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from gitops_ml.bento.store import FETCHED, BentoError
from gitops_ml.core import paths
from gitops_ml.core.json_text import load_json
from gitops_ml.core.project import load_project
from gitops_ml.core.yaml_text import load_yaml

ENTRIES = 20_000
TEXT_BYTES = 20_000_000
PART_BYTES = 1_000_000

# Where BentoML keeps a bento's own files inside the archive.
_SOURCE = PurePosixPath("src")
_DESCRIPTION = "bento.yaml"


@dataclass(frozen=True)
class BentoArchive:
    """What an exported bento holds.

    Attributes:
        name: What to call it in messages.
        texts: The content of its JSON and YAML files.
        hashes: The sha256 of every other file.
    """

    name: str
    texts: Mapping[str, bytes]
    hashes: Mapping[str, str]

    @property
    def tag(self) -> str:
        """Its name and version.

        Raises:
            BentoError: If it does not tell them.
        """
        information = self._document(_DESCRIPTION)
        try:
            return f"{information['name']}:{information['version']}"
        except KeyError as error:
            raise BentoError(f"{self.name}: {_DESCRIPTION} lacks {error}") from error

    @property
    def release(self) -> Mapping[str, Any]:
        """Its `release.json`.

        Raises:
            BentoError: If there is none, or it names no source and no model.
        """
        release = self._document(str(_SOURCE / paths.RELEASE))
        if not all(isinstance(release.get(key), dict) for key in ("source", "model")):
            raise BentoError(f"{self.name}: its {paths.RELEASE} is malformed")
        return release

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The model's manifest.

        Raises:
            BentoError: If there is none, or it names no model file.
        """
        manifest = self._document(str(_SOURCE / paths.MANIFEST))
        if "served" not in manifest:
            raise BentoError(f"{self.name}: its manifest names no 'served' file")
        return manifest

    @property
    def model(self) -> str:
        """The sha256 of the model file that it holds.

        Raises:
            BentoError: If it holds none.
        """
        served = str(_SOURCE / paths.MODELS / str(self.manifest["served"]))
        if served not in self.hashes:
            raise BentoError(f"{self.name}: lacks {served!r}")
        return self.hashes[served]

    def _document(self, file: str) -> dict[str, Any]:
        if file not in self.texts:
            raise BentoError(f"{self.name}: lacks {file!r}")
        try:
            read = load_yaml if file == _DESCRIPTION else load_json
            document = read(self.texts[file])
        except (yaml.YAMLError, ValueError) as error:
            raise BentoError(f"{self.name}: {file} cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise BentoError(f"{self.name}: {file} cannot be read: it is no mapping")
        return document


def read_archive(path: Path, name: str | None = None) -> BentoArchive:
    """Read an exported bento.

    Args:
        path: The file.
        name: What to call it in messages; its path if None.

    Raises:
        BentoError: If it is no archive, is damaged, or was made to do harm when unpacked.
    """
    name = name or str(path)
    texts: dict[str, bytes] = {}
    hashes: dict[str, str] = {}
    try:
        with tarfile.open(path) as archive:
            for count, member in enumerate(archive):
                file = PurePosixPath(member.name)
                inside = not file.is_absolute() and ".." not in file.parts
                if not inside or not (member.isfile() or member.isdir()) or count >= ENTRIES:
                    raise BentoError(f"{name}: must not hold {member.name!r}")
                stream = archive.extractfile(member)
                if stream is None:
                    continue
                # What is larger is not read into memory, and so is no text.
                if file.suffix in {".json", ".yaml"} and member.size <= TEXT_BYTES:
                    texts[str(file)] = stream.read()
                    continue
                digest = hashlib.sha256()
                while part := stream.read(PART_BYTES):
                    digest.update(part)
                hashes[str(file)] = digest.hexdigest()
    except FileNotFoundError as error:
        raise BentoError(f"{name}: no such file") from error
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise BentoError(f"{name}: is no bento, or is damaged: {error}") from error
    return BentoArchive(name, texts, hashes)


def fetched_tag(root: Path) -> str | None:
    """The tag of the bento that `make fetch-bento` has put there; None if there is none.

    Raises:
        BentoError: If that is no bento.
    """
    name = FETCHED / load_project(root).bento_file
    if not (root / name).exists():
        return None
    try:
        return read_archive(root / name, str(name)).tag
    except BentoError as error:
        raise BentoError(f"{error}; run `make fetch-bento`, or remove it") from error
