"""Sources that are a file on a web server, by HTTP or HTTPS."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from gitops_ml.core.retry import patiently
from gitops_ml.lake.address import name_of, public, told
from gitops_ml.lake.errors import LakeError
from gitops_ml.lake.upstream import DATA_SUFFIXES, Fetched, Item, check_page, suffix_by_content

TOKEN = "LAND_HTTP_TOKEN"
ATTEMPTS = 3
# Of connecting, and of each part of the answer.
SECONDS = 60.0
_PASSING = (429, 500, 502, 503, 504)


def web_items(address: str) -> list[Item]:
    """The one file at an address."""
    parts = urlsplit(public(address))
    place = unquote(parts.path.rsplit("/", 1)[-1]) or parts.hostname or ""

    def fetch(folder: Path, known: str | None) -> Fetched | None:
        return _download(address, folder, known)

    return [Item(name_of(place, parts.query), public(address), fetch)]


def _download(address: str, folder: Path, known: str | None) -> Fetched | None:
    """Bring the file here, whole: tables are read by parts, which not every server can give.

    Raises:
        LakeError: If the server is not there, refuses, or ends in the middle.
        UnfitError: If it answers with a page.
    """
    shown = public(address)
    file = folder / "download"

    def attempt() -> httpx.Response:
        with (
            httpx.Client(follow_redirects=True, timeout=SECONDS) as client,
            client.stream("GET", address, headers=_headers(known)) as answer,
            file.open("wb") as stream,
        ):
            if answer.status_code in _PASSING:
                answer.raise_for_status()
            if answer.is_success:
                for part in answer.iter_bytes():
                    stream.write(part)
            return answer

    try:
        answer = patiently(attempt, _passes, ATTEMPTS)
    except httpx.RemoteProtocolError as error:
        raise LakeError(
            f"{shown}: the answer was cut off, {ATTEMPTS} times: {told(error, address)}; "
            "nothing of it landed: land again, or look at the server"
        ) from error
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        raise LakeError(f"{shown}: the server answers {code}, {ATTEMPTS} times") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        what = told(error, address) or type(error).__name__
        raise LakeError(
            f"{shown}: cannot be reached: {what}; check the address and the network"
        ) from error
    if answer.status_code == httpx.codes.NOT_MODIFIED and known is not None:
        return None
    if answer.status_code in (401, 403):
        raise LakeError(
            f"{shown}: access is refused ({answer.status_code}): set {TOKEN} to a token that may "
            "read it"
        )
    if not answer.is_success:
        raise LakeError(f"{shown}: the server answers {answer.status_code}; check the address")
    check_page(file, shown)
    suffix = Path(urlsplit(address).path).suffix.lower()
    path = file.with_suffix(suffix if suffix in DATA_SUFFIXES else suffix_by_content(file))
    file.rename(path)
    return Fetched(path, answer.headers.get("ETag") or answer.headers.get("Last-Modified"))


def _headers(known: str | None) -> dict[str, str]:
    headers = {}
    if token := os.environ.get(TOKEN):
        headers["Authorization"] = f"Bearer {token}"
    if known is not None:
        by_tag = known.startswith(('"', "W/"))
        headers["If-None-Match" if by_tag else "If-Modified-Since"] = known
    return headers


def _passes(error: BaseException) -> bool:
    return isinstance(error, httpx.TransportError | httpx.HTTPStatusError)
