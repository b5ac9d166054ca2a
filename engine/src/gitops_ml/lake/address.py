"""Addresses of sources, as they may be written down: without credentials."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

# Parameters of an address that stand for a right to read it rather than for what is read.
_SECRET = re.compile(
    r"token|secret|passw|pwd|signature|^sig$|credential|^x-amz-|^x-goog-|^awsaccesskeyid$|api.?key|"
    r"^key$|^auth|^expires$|^s[epvrt]$|^user$",
    re.IGNORECASE,
)
_UNSAFE = re.compile(r"[^A-Za-z0-9._=-]+")
_USERINFO = re.compile(r"(://)[^/@\s]*@")
_TOLD = 16


def split(text: str) -> SplitResult:
    """The parts of an address."""
    return urlsplit(text)


def public(text: str) -> str:
    """An address without user, password, fragment and secret parameters."""
    parts = urlsplit(text)
    query = [pair for pair in parse_qsl(parts.query, True) if not _SECRET.search(pair[0])]
    host = parts.netloc.rpartition("@")[2]
    shown = parts._replace(netloc=host, query=urlencode(query), fragment="").geturl()
    # An address without a host loses its slashes.
    return shown if host else shown.replace(":/", ":///", 1)


def secrets_of(text: str) -> list[str]:
    """The words of an address that must not be told."""
    parts = urlsplit(text)
    found = [value for name, value in parse_qsl(parts.query) if _SECRET.search(name)]
    userinfo, at, _ = parts.netloc.rpartition("@")
    if at:
        user, _, password = userinfo.partition(":")
        found += [password, unquote(password)] if password else [user]
    return [word for word in found if word]


def told(message: object, *addresses: str) -> str:
    """A message of a library on one line, without the credentials of addresses."""
    text = " ".join(str(message).split())
    for address in addresses:
        text = text.replace(address, public(address))
        for word in secrets_of(address):
            text = text.replace(word, "***")
    return _USERINFO.sub(r"\1", text)


def name_of(place: str, query: str = "") -> str:
    """What the partitions of something upstream are called after.

    Args:
        place: A path or the name of a table.
        query: What else tells it from its like.
    """
    path = Path(place)
    known = path.suffix.lower() in (".parquet", ".csv")
    stem = (path.with_suffix("") if known else path).as_posix()
    name = _UNSAFE.sub("-", stem).strip("-.") or "data"
    return f"{name}-{digest(query)}" if query else name


def digest(text: str) -> str:
    """Eight characters that tell a text from others."""
    return hashlib.sha256(text.encode()).hexdigest()[: _TOLD // 2]
