"""The REST client, against a real HTTP server."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.github.client import (
    GitHub,
    GitHubError,
    NotSetUpError,
    Remote,
    connect,
    find_remote,
    find_token,
    parse_remote,
)

TOKEN = "secret-token"


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def api(httpserver: HTTPServer, waits: list[float]) -> GitHub:
    return GitHub(httpserver.url_for(""), TOKEN, sleep=waits.append)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("GITHUB_REPOSITORY", "GITHUB_API_URL", "GITHUB_TOKEN", "GH_TOKEN", "GH_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)
    monkeypatch.setenv("GH_CONFIG_DIR", str(tmp_path / "gh"))


def answers(server: HTTPServer, *responses: Response) -> list[Request]:
    """Let the server answer with these, one after the other; the requests that it received."""
    queue: Iterator[Response] = iter(responses)
    received: list[Request] = []

    def answer(request: Request) -> Response:
        received.append(request)
        return next(queue)

    server.expect_request("/x").respond_with_handler(answer)
    return received


def ok(text: str = "{}", **headers: str) -> Response:
    return Response(text, 200, headers, content_type="application/json")


def refusal(status: int, message: str = "No", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(f'{{"message": "{message}"}}', status, named, content_type="application/json")


@pytest.mark.parametrize(
    ("url", "remote"),
    [
        ("git@github.com:team/late.git", Remote("github.com", "team/late")),
        ("https://github.com/team/late", Remote("github.com", "team/late")),
        ("https://user:password@example.com/team/late.git/", Remote("example.com", "team/late")),
        ("ssh://git@ssh.github.com:443/team/late.git", Remote("github.com", "team/late")),
        ("https://git.example.com/team/la.te", Remote("git.example.com", "team/la.te")),
        ("/srv/git/late.git", None),
        ("../late", None),
        ("https://git.example.com/group/team/late", None),
    ],
)
def test_reads_every_form_of_remote(url: str, remote: Remote | None) -> None:
    assert parse_remote(url) == remote


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("github.com", "https://api.github.com"),
        ("team.ghe.com", "https://api.team.ghe.com"),
        ("git.example.com", "https://git.example.com/api/v3"),
    ],
)
def test_knows_where_each_server_has_its_api(host: str, url: str) -> None:
    assert Remote(host, "team/late").api_url == url


def repository(root: Path, url: str | None) -> Path:
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    if url is not None:
        subprocess.run(["git", "-C", str(root), "remote", "add", "origin", url], check=True)
    return root


def test_takes_the_repository_from_the_remote(tmp_path: Path) -> None:
    root = repository(tmp_path, "git@github.com:team/late.git")
    assert find_remote(root) == Remote("github.com", "team/late")


def test_a_workflow_names_the_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/other")
    assert find_remote(repository(tmp_path, "git@github.com:team/late.git")).repository == (
        "team/other"
    )
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/other/../late")
    with pytest.raises(NotSetUpError, match="must be owner/name"):
        find_remote(tmp_path)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "no git remote `origin`"),
        ("/srv/git/late.git", "not on a GitHub server"),
        ("git@gitlab.com:team/late.git", "GH_HOST=gitlab.com"),
    ],
)
def test_says_what_is_wrong_with_the_remote(tmp_path: Path, url: str | None, message: str) -> None:
    with pytest.raises(NotSetUpError, match=message):
        find_remote(repository(tmp_path, url))


def test_never_repeats_a_password_in_the_remote(tmp_path: Path) -> None:
    with pytest.raises(NotSetUpError) as caught:
        find_remote(repository(tmp_path, "https://user:password@example.com/a/b/c"))
    assert "password" not in str(caught.value)


def test_an_enterprise_server_counts_once_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = repository(tmp_path, "git@git.example.com:team/late.git")
    monkeypatch.setenv("GH_HOST", "git.example.com")
    assert find_remote(root).host == "git.example.com"


def fake_gh(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder.mkdir()
    program = folder / "gh"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_takes_the_token_of_the_environment_before_that_of_gh(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_gh(
        tmp_path / "bin", monkeypatch, 'test "$*" = "auth token --hostname github.com" && echo t'
    )
    assert find_token("github.com") == "t"
    monkeypatch.setenv("GH_TOKEN", "from-gh-token")
    assert find_token("github.com") == "from-gh-token"
    monkeypatch.setenv("GITHUB_TOKEN", "from-github-token")
    assert find_token("github.com") == "from-github-token"


@pytest.mark.parametrize("script", ["exit 1", None], ids=["not logged in", "not installed"])
def test_says_how_to_get_a_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str | None
) -> None:
    if script is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        fake_gh(tmp_path / "bin", monkeypatch, script)
    with pytest.raises(NotSetUpError, match="set GITHUB_TOKEN, or install gh"):
        find_token("github.com")


def test_connects_to_the_server_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, httpserver: HTTPServer
) -> None:
    monkeypatch.setenv("GITHUB_API_URL", httpserver.url_for(""))
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    httpserver.expect_request(
        "/repos/team/late", headers={"Authorization": f"Bearer {TOKEN}"}
    ).respond_with_json({"id": 1})
    api, name = connect(repository(tmp_path, "git@github.com:team/late.git"))
    assert api.get(f"/repos/{name}") == {"id": 1}


def test_never_sends_the_token_unencrypted() -> None:
    with pytest.raises(NotSetUpError, match="must start with https://"):
        GitHub("http://git.example.com/api/v3", TOKEN)


def test_sends_what_changes_something_once(api: GitHub, httpserver: HTTPServer) -> None:
    received = answers(httpserver, ok('{"id": 7}'))
    assert api.send("POST", "/x", {"body": "hello"}) == {"id": 7}
    assert received[0].json == {"body": "hello"}
    assert received[0].headers["X-GitHub-Api-Version"] == "2022-11-28"


def test_an_empty_answer_is_none(api: GitHub, httpserver: HTTPServer) -> None:
    answers(httpserver, Response(status=204))
    assert api.send("PUT", "/x") is None


@pytest.mark.parametrize("key", [None, "labels"])
def test_reads_every_page(api: GitHub, httpserver: HTTPServer, key: str | None) -> None:
    following = httpserver.url_for("/x") + "?page=2"
    pages = ["[1, 2]", "[3]"] if key is None else ['{"labels": [1, 2]}', '{"labels": [3]}']
    received = answers(httpserver, ok(pages[0], Link=f'<{following}>; rel="next"'), ok(pages[1]))
    assert list(api.items("/x", key=key, state="all")) == [1, 2, 3]
    assert received[0].args.to_dict() == {"per_page": "100", "state": "all"}
    assert received[1].args.to_dict() == {"page": "2"}


def test_never_follows_to_another_server(api: GitHub, httpserver: HTTPServer) -> None:
    answers(httpserver, ok("[1]", Link='<http://127.0.0.1:9/x?page=2>; rel="next"'))
    with pytest.raises(GitHubError, match="another server"):
        list(api.items("/x"))


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_tries_again_when_the_server_stumbles(
    api: GitHub, httpserver: HTTPServer, waits: list[float], method: str
) -> None:
    answers(httpserver, refusal(502), refusal(500), ok('{"fine": true}'))
    assert api.send(method, "/x") == {"fine": True}
    assert waits == [1, 2]


def test_gives_up_after_five_attempts(
    api: GitHub, httpserver: HTTPServer, waits: list[float]
) -> None:
    received = answers(httpserver, *(refusal(503, "Unavailable") for _ in range(9)))
    with pytest.raises(GitHubError, match="HTTP 503: Unavailable") as caught:
        api.get("/x")
    assert caught.value.status == 503
    assert len(received) == 5
    assert waits == [1, 2, 4, 8]


def test_never_posts_twice_what_may_have_arrived(
    api: GitHub, httpserver: HTTPServer, waits: list[float]
) -> None:
    received = answers(httpserver, refusal(502), ok())
    with pytest.raises(GitHubError):
        api.send("POST", "/x", {})
    assert len(received) == 1
    assert waits == []


@pytest.mark.parametrize(
    ("response", "waited"),
    [
        (refusal(429, "Slow down", Retry_After="7"), 7),
        (refusal(403, "Slow down", Retry_After="3"), 3),
        (refusal(403, "You have exceeded a secondary rate limit"), 1),
    ],
)
def test_waits_as_long_as_it_is_asked_to(
    api: GitHub, httpserver: HTTPServer, waits: list[float], response: Response, waited: float
) -> None:
    answers(httpserver, response, ok('{"id": 1}'))
    assert api.send("POST", "/x", {}) == {"id": 1}
    assert waits == [waited]


def test_waits_until_the_limit_is_lifted(
    api: GitHub, httpserver: HTTPServer, waits: list[float]
) -> None:
    started = time.time()
    lifted = int(started) + 30
    limited = refusal(403, "No", X_RateLimit_Remaining="0", X_RateLimit_Reset=str(lifted))
    answers(httpserver, limited, ok())
    api.get("/x")
    (waited,) = waits
    assert max(0, lifted - time.time()) <= waited <= lifted - started


def test_does_not_wait_for_an_hour(api: GitHub, httpserver: HTTPServer, waits: list[float]) -> None:
    lifted = str(int(time.time()) + 3600)
    limited = refusal(403, "No", X_RateLimit_Remaining="0", X_RateLimit_Reset=lifted)
    answers(httpserver, limited)
    with pytest.raises(GitHubError, match=r"too many requests; try again in 3\d\d\d s"):
        api.get("/x")
    assert waits == []


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (refusal(401, "Bad credentials"), "token is wrong or has expired.*Bad credentials"),
        (
            refusal(403, "Must have admin rights", X_Accepted_GitHub_Permissions="contents=write"),
            "may not do this; it needs the permission contents=write .*Must have admin rights",
        ),
        (refusal(404, "Not Found"), "not there, or the token's owner may not see it"),
        (
            Response(
                '{"message": "Validation Failed", "errors": [{"message": "name is taken"}, "x"]}',
                422,
                content_type="application/json",
            ),
            "HTTP 422: Validation Failed; name is taken; x",
        ),
        (Response("<html>", 400), "HTTP 400: <html>"),
    ],
)
def test_says_what_a_refusal_means(
    api: GitHub, httpserver: HTTPServer, waits: list[float], response: Response, message: str
) -> None:
    answers(httpserver, response)
    with pytest.raises(GitHubError, match=message) as caught:
        api.get("/x")
    assert caught.value.status == response.status_code
    assert waits == []


def test_nothing_there_can_be_an_answer(api: GitHub, httpserver: HTTPServer) -> None:
    answers(httpserver, refusal(404), refusal(401))
    assert api.get_or_none("/x") is None
    with pytest.raises(GitHubError):
        api.get_or_none("/x")


def test_never_shows_the_token(api: GitHub, httpserver: HTTPServer) -> None:
    answers(httpserver, refusal(400, f"you sent {TOKEN}"))
    with pytest.raises(GitHubError) as caught:
        api.get("/x")
    assert TOKEN not in f"{caught.value}{api!r}{api.__dict__['_client']!r}"
    assert "***" in str(caught.value)


def test_follows_a_repository_that_was_renamed(api: GitHub, httpserver: HTTPServer) -> None:
    answers(httpserver, Response(status=301, headers={"Location": "/repositories/1"}))
    httpserver.expect_request("/repositories/1").respond_with_json({"full_name": "team/new"})
    assert api.get("/x") == {"full_name": "team/new"}


def test_says_that_the_server_is_not_githubs(api: GitHub, httpserver: HTTPServer) -> None:
    answers(httpserver, Response("<html>welcome</html>", 200))
    with pytest.raises(GitHubError, match=r"not JSON; is .* the address of GitHub's API"):
        api.get("/x")


def test_says_that_the_server_cannot_be_reached(waits: list[float]) -> None:
    with pytest.raises(GitHubError, match=r"http://127\.0\.0\.1:9 cannot be reached") as caught:
        GitHub("http://127.0.0.1:9", TOKEN, attempts=2, sleep=waits.append).get("/x")
    assert caught.value.status is None
    assert waits == [1]
