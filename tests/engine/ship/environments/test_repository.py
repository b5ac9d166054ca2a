"""Git as deployments use it: against real repositories, and a real server that asks for a login."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from fake_origin import World, git
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.core.git import GitError
from gitops_ml.core.run import NotInstalledError
from gitops_ml.ship.environments import repository as module
from gitops_ml.ship.environments.repository import (
    OvertakenError,
    RefusedError,
    Repository,
    UnreachableError,
    credentials,
)

TOKEN = "secret-token"
LOGIN = f"Basic {base64.b64encode(f'x-access-token:{TOKEN}'.encode()).decode()}"


class Server:
    """A git server over HTTP that refuses everybody; it keeps the headers it was sent."""

    def __init__(self, server: HTTPServer, status: int) -> None:
        self.url = server.url_for("").rstrip("/")
        self.status = status
        self.headers: list[list[str]] = []
        for path in ("/team/late.git/info/refs", "/other/late.git/info/refs"):
            server.expect_request(path).respond_with_handler(self._refuse)

    def _refuse(self, request: Request) -> Response:
        self.headers.append(request.headers.getlist("Authorization"))
        return Response("No.", self.status)


@pytest.fixture
def server(world: World, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server(httpserver, 403)
    git(world.root, "remote", "set-url", "origin", f"{found.url}/team/late.git")
    monkeypatch.setenv("GITHUB_SERVER_URL", found.url)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    return found


def test_logs_in_to_github_with_the_workflows_token(world: World, server: Server) -> None:
    with pytest.raises(RefusedError, match="contents: write") as caught:
        Repository(world.root).push("HEAD", "env/staging")
    assert server.headers == [[LOGIN]]
    assert TOKEN not in str(caught.value)


def test_replaces_the_login_that_a_checkout_kept(world: World, server: Server) -> None:
    """GitHub refuses two."""
    key = f"http.{server.url}/.extraheader"
    git(world.root, "config", key, "AUTHORIZATION: basic b2xk")
    with pytest.raises(RefusedError):
        Repository(world.root).fetch_branch("env/staging")
    assert server.headers == [[LOGIN]]


def test_keeps_the_settings_that_the_environment_gives_git(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    given = credentials(f"{server.url}/team/late.git")
    assert given["GIT_CONFIG_COUNT"] == "3"
    assert "GIT_CONFIG_KEY_0" not in given


def test_writes_the_token_nowhere(world: World, server: Server) -> None:
    with pytest.raises(RefusedError):
        Repository(world.root).fetch_branch("env/staging")
    kept = [path for path in world.root.rglob("*") if path.is_file()]
    assert len(kept) > 10
    assert [p for p in kept if TOKEN.encode() in p.read_bytes()] == []
    assert [p for p in kept if LOGIN.encode() in p.read_bytes()] == []


@pytest.mark.parametrize(
    ("server_url", "url"),
    [
        ("https://github.com", "https://gitlab.com/team/late.git"),
        ("https://github.com", "http://github.com/team/late.git"),
        ("https://github.com", "git@github.com:team/late.git"),
        ("https://github.com", "https://github.com.example.com/team/late.git"),
        ("https://github.com", "/srv/git/late.git"),
        ("http://git.example.com", "http://git.example.com/team/late.git"),
    ],
)
def test_gives_the_token_to_no_other_server_and_never_unencrypted(
    clean_settings: None, monkeypatch: pytest.MonkeyPatch, server_url: str, url: str
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    monkeypatch.setenv("GITHUB_SERVER_URL", server_url)
    assert credentials("https://github.com/team/late.git") or server_url != "https://github.com"
    assert credentials(url) == {}


def test_without_a_token_git_logs_in_as_it_is_set_up(
    clean_settings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", " ")
    assert credentials("https://github.com/team/late.git") == {}


def test_never_waits_for_somebody_to_type_a_password(world: World, server: Server) -> None:
    server.status = 401
    with pytest.raises(RefusedError, match=r"(?s)not permitted.*terminal prompts disabled"):
        Repository(world.root).push("HEAD", "env/staging")


def test_never_repeats_the_password_of_an_address(world: World) -> None:
    git(world.root, "remote", "set-url", "origin", "http://ada:hush@127.0.0.1:9/late.git")
    with pytest.raises(UnreachableError) as caught:
        Repository(world.root).push("HEAD", "env/staging")
    assert "hush" not in str(caught.value)


def test_a_remote_that_hangs_counts_as_unreachable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRANSFER_SECONDS", 0.2)
    git(world.root, "config", "remote.origin.uploadpack", "sleep 5; git-upload-pack")
    with pytest.raises(UnreachableError, match="does not answer"):
        Repository(world.root).fetch_branch("env/staging")


def test_names_a_missing_remote_and_a_missing_git(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(GitError, match="no git remote `elsewhere`"):
        Repository(world.root, "elsewhere").fetch_branch("env/staging")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(NotInstalledError, match="git: not installed"):
        Repository(world.root).find("HEAD")


def test_a_push_never_moves_a_branch_back(world: World) -> None:
    second = world.commit("two")
    repository = Repository(world.root)
    repository.push(second, "env/staging")
    with pytest.raises(OvertakenError):
        repository.push(world.first, "env/staging")
    assert world.head("staging") == second


def test_the_workflows_account_commits_where_nobody_is_set_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(world.root)
    assert repository.identity() == {}
    for key in ("user.name", "user.email"):
        git(world.root, "config", "--unset", key)
    with pytest.raises(GitError, match=r"git config user\.email"):
        repository.identity()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    identity = repository.identity()
    assert identity["GIT_COMMITTER_NAME"] == identity["GIT_AUTHOR_NAME"] == "github-actions[bot]"
    assert "@users.noreply.github.com" in identity["GIT_COMMITTER_EMAIL"]


def test_fetches_a_commit_that_only_the_remote_has(world: World) -> None:
    other = world.clone("other")
    theirs = world.commit("two", other)
    repository = Repository(world.root)
    assert repository.find(f"{theirs}^{{commit}}") is None
    assert repository.fetch_commit(theirs)
    assert repository.is_ancestor(world.first, theirs)
    assert not repository.is_ancestor(theirs, world.first)
    assert not repository.fetch_commit("e" * 40)


def test_an_unreachable_remote_is_not_one_without_the_commit(world: World) -> None:
    git(world.root, "remote", "set-url", "origin", str(world.folder / "gone.git"))
    with pytest.raises(UnreachableError):
        Repository(world.root).fetch_commit("e" * 40)


SSH = """#!/bin/sh
# What ssh would run on the server, run here; what it was told is kept.
printf '%s\\n' "$@" > "$SEEN/arguments"
while [ $# -gt 2 ]; do
  case "$1" in
    -i) stat -c %a "$2" > "$SEEN/mode"; cat "$2" > "$SEEN/key" ;;
    -oUserKnownHostsFile=*) cat "${1#*=}" > "$SEEN/hosts" ;;
  esac
  shift
done
[ "$1" = git@github.com ] || exit 1
exec git-receive-pack "$ORIGIN"
"""


@pytest.fixture
def keyed(
    world: World, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """A workflow whose deliveries have a key of their own; where what ssh was told is kept."""
    seen = tmp_path / "seen"
    seen.mkdir()
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH, encoding="utf-8")
    program.chmod(0o755)
    git(world.root, "remote", "set-url", "origin", "https://github.com/team/late.git")
    httpserver.expect_request("/meta").respond_with_json({"ssh_keys": ["ssh-ed25519 AAAA"]})
    for name, value in {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "SEEN": str(seen),
        "ORIGIN": str(world.origin),
        "GITHUB_API_URL": httpserver.url_for("").rstrip("/"),
        "GITHUB_REPOSITORY": "team/late",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_TOKEN": TOKEN,
        "DELIVERY_KEY": "-----BEGIN KEY-----\nsecret\n-----END KEY-----",
    }.items():
        monkeypatch.setenv(name, value)
    return seen


def test_pushes_with_the_deliveries_key_and_keeps_it_nowhere(world: World, keyed: Path) -> None:
    Repository(world.root).push(world.first, "env/staging")

    assert world.head("staging") == world.first
    assert (keyed / "key").read_text() == "-----BEGIN KEY-----\nsecret\n-----END KEY-----\n"
    assert (keyed / "mode").read_text() == "600\n"
    assert (keyed / "hosts").read_text() == "github.com ssh-ed25519 AAAA\n"
    told = (keyed / "arguments").read_text().splitlines()
    assert {"-oIdentitiesOnly=yes", "-oStrictHostKeyChecking=yes", "-oBatchMode=yes"} <= set(told)
    assert not Path(told[told.index("-i") + 1]).exists()
    assert TOKEN not in " ".join(told)


def test_the_deliveries_key_goes_to_github_only(
    world: World, keyed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(world.root, "remote", "set-url", "origin", "https://git.example.com/team/late.git")
    with pytest.raises(RefusedError, match="DELIVERY_KEY is a key to https"):
        Repository(world.root).push(world.first, "env/staging")
    assert list(keyed.iterdir()) == []


def test_an_unknown_server_gets_no_key(world: World, keyed: Path, httpserver: HTTPServer) -> None:
    httpserver.clear()
    httpserver.expect_request("/meta").respond_with_json({"ssh_keys": None})
    with pytest.raises(RefusedError, match="does not say by which keys its server is known"):
        Repository(world.root).push(world.first, "env/staging")
    assert list(keyed.iterdir()) == []


def test_a_key_that_may_not_write_is_named(world: World, keyed: Path) -> None:
    (keyed.parent / "bin" / "ssh").write_text(
        "#!/bin/sh\necho 'git@github.com: Permission denied (publickey).' >&2; exit 255\n"
    )
    with pytest.raises(RefusedError, match="a deploy key that may write") as caught:
        Repository(world.root).push(world.first, "env/staging")
    assert "secret\n" not in str(caught.value)
