"""GitHub's REST API: one small client for laptops and workflows.

Which repository: GITHUB_REPOSITORY, else the git remote `origin`. Which server: GITHUB_API_URL,
else the remote's host. Which token: GITHUB_TOKEN or GH_TOKEN, else the one `gh` is logged in with.

    api, repository = connect()
    api.get(f"/repos/{repository}")
    api.send("POST", f"/repos/{repository}/issues/1/comments", {"body": "Hello"})
    for label in api.items(f"/repos/{repository}/labels"):
        ...

https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from gitops_ml.core.errors import GitopsError
from gitops_ml.core.retry import T, doubling, patiently
from gitops_ml.core.run import ask

API_VERSION = "2022-11-28"
TIMEOUT_SECONDS = 30.0
ATTEMPTS = 5
# A server that asks for more patience than this is given up on; the message says until when.
LONGEST_WAIT_SECONDS = 60.0
PAGE_SIZE = 100
# How often a look is taken where an answer got lost, and how much longer is waited each time.
LOOKS = 3
LOOK_WAIT_SECONDS = 2.0
DETAIL_LENGTH = 500

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# Sending these twice has the same effect as once.
_REPEATABLE = frozenset({"GET", "PUT", "PATCH", "DELETE"})
# git@github.com:owner/name.git, ssh://git@github.com:22/owner/name, https://github.com/owner/name
_REMOTE = re.compile(
    r"(?:(?:https?|ssh|git)://(?:[^@/]+@)?(?P<host>[^/:]+)(?::\d+)?/|(?:[^@/]+@)?(?P<scp>[^/:]+):)"
    r"(?P<repository>[A-Za-z0-9._-]+/[A-Za-z0-9._-]+?)(?:\.git)?/?"
)
_REPOSITORY = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
# Roles map to permissions: maintain to write, triage to read.
# https://docs.github.com/en/rest/collaborators/collaborators#get-repository-permissions-for-a-user
_WRITERS = frozenset({"write", "admin"})


class GitHubError(GitopsError):
    """GitHub cannot be reached or refuses; the message says what and what to do.

    Attributes:
        status: The HTTP status of the answer; None if there was none.
        again: The seconds until the request may be sent again; None if it must not be.
    """

    def __init__(self, message: str, status: int | None = None, again: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.again = again

    @property
    def lost(self) -> bool:
        """Whether what must not be done twice may have been done, and only the answer got lost."""
        return self.again is None and (self.status is None or self.status >= 500)


class NotSetUpError(GitHubError):
    """There is no GitHub repository or no token to work with."""


@dataclass(frozen=True)
class Remote:
    """A repository on a GitHub server.

    Attributes:
        host: For example github.com.
        repository: owner/name.
    """

    host: str
    repository: str

    @property
    def api_url(self) -> str:
        """The address of the server's REST API."""
        if self.host == "github.com":
            return "https://api.github.com"
        if self.host.endswith(".ghe.com"):
            return f"https://api.{self.host}"
        return f"https://{self.host}/api/v3"


def parse_remote(url: str) -> Remote | None:
    """Read the address of a git remote; None if it names no repository on a server."""
    match = _REMOTE.fullmatch(url.strip())
    if match is None:
        return None
    host = (match["host"] or match["scp"]).lower()
    # GitHub's SSH over the HTTPS port has a host name of its own.
    return Remote("github.com" if host == "ssh.github.com" else host, match["repository"])


def find_remote(root: Path = Path()) -> Remote:
    """The GitHub repository of the working tree in `root`.

    Raises:
        NotSetUpError: If there is none.
    """
    named = os.environ.get("GITHUB_REPOSITORY")
    if named:
        if not _REPOSITORY.fullmatch(named):
            raise NotSetUpError(f"GITHUB_REPOSITORY is {named!r}; it must be owner/name")
        server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
        return Remote(urlsplit(server).hostname or "github.com", named)
    url = ask(root, "git", "remote", "get-url", "origin")
    if not url:
        raise NotSetUpError(
            "there is no git remote `origin`: create the repository on GitHub, then "
            "`git remote add origin git@github.com:OWNER/NAME.git`"
        )
    remote = parse_remote(url)
    if remote is None:
        # The address may hold a password, so it is not repeated.
        raise NotSetUpError(
            "the git remote `origin` is not on a GitHub server: expected an address like "
            "git@github.com:OWNER/NAME.git or https://github.com/OWNER/NAME"
        )
    if not _is_github(remote.host):
        raise NotSetUpError(
            f"the git remote `origin` is on {remote.host}, not on GitHub; if that is a GitHub "
            f"Enterprise Server, set GH_HOST={remote.host}"
        )
    return remote


def _is_github(host: str) -> bool:
    known = host == "github.com" or host.endswith(".ghe.com")
    return known or host == os.environ.get("GH_HOST") or bool(os.environ.get("GITHUB_API_URL"))


def find_token(host: str) -> str:
    """The token for a server.

    Raises:
        NotSetUpError: If there is none.
    """
    for name in ("GITHUB_TOKEN", "GH_TOKEN"):
        token = os.environ.get(name, "").strip()
        if token:
            return token
    logged_in = ask(Path(), "gh", "auth", "token", "--hostname", host)
    if logged_in:
        return logged_in
    raise NotSetUpError(
        f"there is no token for {host}: set GITHUB_TOKEN, or install gh (https://cli.github.com) "
        f"and run `gh auth login --hostname {host}`"
    )


def look_again(
    look_and_do: Callable[[], T],
    sleep: Callable[[float], None] = time.sleep,
    wait_seconds: float | None = None,
) -> T:
    """Do what must not be done twice; where the answer got lost, look whether it was done.

    Args:
        look_and_do: Looks whether it is done, and does it if not.
        sleep: Waits for a number of seconds.
        wait_seconds: How much longer is waited each time.

    Raises:
        GitHubError: If GitHub refuses, or cannot be reached again and again.
    """
    seconds = LOOK_WAIT_SECONDS if wait_seconds is None else wait_seconds
    return patiently(
        look_and_do,
        lambda error: isinstance(error, GitHubError) and error.lost,
        LOOKS,
        lambda attempt, _: seconds * attempt,
        sleep,
    )


def connect(root: Path = Path(), attempts: int = ATTEMPTS) -> tuple[GitHub, str]:
    """A client for the repository of the working tree in `root`, and the repository's owner/name.

    Args:
        root: The working tree.
        attempts: How often a request is sent at most.

    Raises:
        NotSetUpError: If there is no GitHub repository or no token.
    """
    remote = find_remote(root)
    url = os.environ.get("GITHUB_API_URL") or remote.api_url
    return GitHub(url, find_token(remote.host), attempts), remote.repository


class GitHub:
    """A client of the REST API that waits and tries again where that is safe.

    Args:
        url: Address of the API, e.g. https://api.github.com. Only https, or http on this machine.
        token: Sent with every request, never shown.
        attempts: How often a request is sent at most.
        sleep: Waits for a number of seconds.

    Raises:
        NotSetUpError: If the address would send the token unencrypted.
    """

    def __init__(
        self,
        url: str,
        token: str,
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            raise NotSetUpError(f"GITHUB_API_URL is {url!r}; it must start with https://")
        self.url = url.rstrip("/")
        self._token = token
        self._attempts = attempts
        self._sleep = sleep
        self._client = httpx.Client(
            timeout=TIMEOUT_SECONDS,
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {token}",
                "X-GitHub-Api-Version": API_VERSION,
            },
        )

    def get(self, path: str, **parameters: str | int) -> Any:
        """The decoded answer to a GET request, e.g. `get("/repos/owner/name")`; None if empty.

        Raises:
            GitHubError: If GitHub cannot be reached or refuses.
        """
        return self._decode(self._request("GET", self.url + path, parameters=parameters))

    def get_or_none(self, path: str, **parameters: str | int) -> Any:
        """Like `get`, but None where there is nothing (status 404)."""
        try:
            return self.get(path, **parameters)
        except GitHubError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise

    def items(self, path: str, key: str | None = None, **parameters: str | int) -> Iterator[Any]:
        """Every item of a list, page after page.

        Args:
            path: Of the list, e.g. /repos/owner/name/labels.
            key: Where the answer holds the list, if it is not the list itself, e.g. `artifacts`.
            parameters: Of the query.

        Raises:
            GitHubError: If GitHub cannot be reached or refuses.
        """
        url: str | None = self.url + path
        query: Mapping[str, str | int] = {"per_page": PAGE_SIZE, **parameters}
        while url is not None:
            response = self._request("GET", url, parameters=query)
            page = self._decode(response)
            yield from page if key is None else page[key]
            url = response.links.get("next", {}).get("url")
            query = {}
            if url is not None and not url.startswith(f"{self.url}/"):
                raise GitHubError(f"GET {path}: the next page is on another server: {url}")

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer to a request that changes something; None if it is empty.

        A POST whose answer got lost may have been carried out, so it is not sent again; the caller
        looks first.

        Raises:
            GitHubError: If GitHub cannot be reached or refuses.
        """
        return self._decode(self._request(method, self.url + path, body=body))

    def download(self, path: str, most: int) -> bytes:
        """A file that the answer to a GET request leads to, e.g. an artifact's zip archive.

        GitHub answers with a short-lived address on another server; the token is not sent there.

        Args:
            path: Of the request.
            most: The number of bytes to stop at.

        Raises:
            GitHubError: If GitHub cannot be reached or refuses, or the file is larger.
        """

        def once() -> bytes:
            try:
                with self._client.stream("GET", self.url + path, follow_redirects=True) as response:
                    if response.is_success:
                        return _at_most(response, most)
                    response.read()
                    raise self._refusal("GET", f"GET {path}", response)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise GitHubError(
                    f"GET {path}: cannot be downloaded: {error}", again=0.0
                ) from error

        return self._patiently(once)

    def _request(
        self,
        method: str,
        url: str,
        parameters: Mapping[str, str | int] | None = None,
        body: Any = None,
    ) -> httpx.Response:
        what = f"{method} {urlsplit(url).path}"

        def once() -> httpx.Response:
            try:
                response = self._client.request(
                    method,
                    url,
                    params=parameters or None,
                    json=body,
                    # A repository that was renamed or moved answers from its new place.
                    follow_redirects=method == "GET",
                )
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                again = 0.0 if method in _REPEATABLE else None
                raise GitHubError(
                    f"{what}: {self.url} cannot be reached: {error}", again=again
                ) from error
            if response.is_success:
                return response
            raise self._refusal(method, what, response)

        return self._patiently(once)

    def _refusal(self, method: str, what: str, response: httpx.Response) -> GitHubError:
        return GitHubError(
            f"{what}: {self._hide(_explain(response))}",
            response.status_code,
            _again(method, response),
        )

    def _patiently(self, once: Callable[[], T]) -> T:
        return patiently(
            once,
            lambda error: isinstance(error, GitHubError) and error.again is not None,
            self._attempts,
            lambda attempt, error: max(doubling(attempt), getattr(error, "again", None) or 0.0),
            self._sleep,
        )

    def _hide(self, text: str) -> str:
        return text.replace(self._token, "***")

    def _decode(self, response: httpx.Response) -> Any:
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            path = response.request.url.path
            raise GitHubError(
                f"{response.request.method} {path}: the answer is not JSON; is {self.url} the "
                "address of GitHub's API?",
                response.status_code,
            ) from error


def may_write(api: GitHub, repository: str, login: str) -> bool:
    """Whether somebody may write to a repository now, by whatever way.

    Raises:
        GitHubError: If GitHub cannot be reached or refuses.
    """
    access = api.get_or_none(f"/repos/{repository}/collaborators/{login}/permission")
    return access is not None and access.get("permission") in _WRITERS


def _at_most(response: httpx.Response, most: int) -> bytes:
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if len(content) > most:
            raise GitHubError(f"GET {response.url.path}: is larger than {most:,} bytes")
    return bytes(content)


def _limited(response: httpx.Response) -> bool:
    """Whether a request was turned away because there were too many of them."""
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return True
    if response.status_code != httpx.codes.FORBIDDEN:
        return False
    exhausted = response.headers.get("x-ratelimit-remaining") == "0"
    return exhausted or "retry-after" in response.headers or "rate limit" in response.text.lower()


def _asked_to_wait(response: httpx.Response) -> float | None:
    """The seconds that a server asks to wait, if it does."""
    try:
        if "retry-after" in response.headers:
            return max(0.0, float(response.headers["retry-after"]))
        if response.headers.get("x-ratelimit-remaining") == "0":
            return max(0.0, float(response.headers["x-ratelimit-reset"]) - time.time())
    except (KeyError, ValueError):
        return None
    return None


def _again(method: str, response: httpx.Response) -> float | None:
    """The seconds until a refused request may be sent again; None if it must not be."""
    if _limited(response):
        # The request was not carried out, whatever it was.
        wait = _asked_to_wait(response) or 0.0
        return wait if wait <= LONGEST_WAIT_SECONDS else None
    return 0.0 if response.is_server_error and method in _REPEATABLE else None


def _explain(response: httpx.Response) -> str:
    """What a refusal means and what to do about it."""
    said = f"HTTP {response.status_code}: {_said(response)}"
    if _limited(response):
        wait = _asked_to_wait(response)
        when = "in a while" if wait is None else f"in {wait:.0f} s"
        return f"too many requests; try again {when} ({said})"
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return f"the token is wrong or has expired: log in with `gh auth login` again ({said})"
    if response.status_code == httpx.codes.FORBIDDEN:
        needed = response.headers.get("x-accepted-github-permissions")
        permission = f"; it needs the permission {needed}" if needed else ""
        return f"the token's owner may not do this{permission} ({said})"
    if response.status_code == httpx.codes.NOT_FOUND:
        return f"not there, or the token's owner may not see it ({said})"
    return said


def _said(response: httpx.Response) -> str:
    """GitHub's own words."""
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or "message" not in answer:
        return response.text[:DETAIL_LENGTH]
    details = [str(answer["message"])]
    for error in answer.get("errors") or []:
        message = error.get("message") if isinstance(error, dict) else None
        details.append(str(message or error))
    return "; ".join(details)[:DETAIL_LENGTH]
