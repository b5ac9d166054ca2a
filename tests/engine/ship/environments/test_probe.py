"""The probe of a live service that is a real, if small, HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from commands import subcommand
from fake_origin import GOLDEN, World, artifact_of, fake_render, make_release
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gitops_ml.bento import smoke
from gitops_ml.ship.environments.branches import EnvironmentBranch
from gitops_ml.ship.environments.probe import STEADY, TRIES
from gitops_ml.ship.environments.promote import promote
from gitops_ml.ship.targets.containers import KIND

main = subcommand("probe")


class Live:
    """A service.

    Attributes:
        releases: What runs, answer after answer; the last one for ever. `/release` says what it
            is and what it was deployed as.
        predictions: What it predicts for the golden records.
        ready: The status of `/readyz`.
        stumbles: How many predictions fail first.
        asked: How often each path was asked for.
    """

    def __init__(self, server: HTTPServer, release: dict[str, Any]) -> None:
        self.url = server.url_for("").rstrip("/")
        self.releases: list[dict[str, Any]] = [release]
        self.predictions: list[Any] = GOLDEN["predictions"]
        self.ready = 200
        self.refused = 422
        self.stumbles = 0
        self.asked = {"/readyz": 0, "/release": 0, "/predict": 0}
        for path, answer in (
            ("/readyz", lambda _: Response("", self.ready)),
            ("/release", self._release),
            ("/predict", self._predict),
        ):
            server.expect_request(path).respond_with_handler(self._counted(path, answer))

    def _counted(
        self, path: str, answer: Callable[[Request], Response]
    ) -> Callable[[Request], Response]:
        def counted(request: Request) -> Response:
            self.asked[path] += 1
            return answer(request)

        return counted

    def _release(self, _: Request) -> Response:
        release = self.releases.pop(0) if len(self.releases) > 1 else self.releases[0]
        if isinstance(release, dict) and KIND in release:
            release = {**release, "digest": release[KIND]["digest"]}
        return _json(release)

    def _predict(self, request: Request) -> Response:
        if self.stumbles:
            self.stumbles -= 1
            return _json("No.", 503)
        record = json.loads(request.data)
        if record == {}:
            return _json({"problems": ["x is missing"]}, self.refused)
        if isinstance(record, list):
            return _json(self.predictions)
        return _json(self.predictions[record["x"] - 1])


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, content_type="application/json")


@pytest.fixture
def release(world: World) -> dict[str, Any]:
    """What staging is to run."""
    found = make_release(world.first, 1)
    world.prepare(found)
    promote(world.root, "staging", fake_render)
    return found


@pytest.fixture
def live(
    world: World,
    release: dict[str, Any],
    httpserver: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Live]:
    service = Live(httpserver, release)
    monkeypatch.setattr(smoke, "POLL_SECONDS", 0.001)
    monkeypatch.setenv("STAGING_URL", f"{service.url}/")
    monkeypatch.setenv("GITHUB_OUTPUT", str(world.folder / "outputs"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(world.folder / "summary.md"))
    monkeypatch.chdir(world.root)
    yield service
    httpserver.check_handler_errors()


def look(timeout: float = 20, *more: str) -> int:
    return main(["--environment", "staging", "--timeout", str(timeout), *more])


def another_build(release: dict[str, Any]) -> dict[str, Any]:
    """The same release again, delivered once more: only its digest is another."""
    return {**release, KIND: {**release[KIND], "digest": f"sha256:{9:064x}"}}


def outputs(world: World) -> str:
    path = world.folder / "outputs"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def evidence(world: World) -> dict[str, Any]:
    return dict(json.loads((world.root / "build" / "probe.json").read_text(encoding="utf-8")))


def test_a_service_that_runs_the_release_is_proved(
    world: World, live: Live, release: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert look() == 0
    assert release["release"] in capsys.readouterr().out
    assert outputs(world) == "proved=true\n"
    assert evidence(world) == {
        "environment": "staging",
        "url": live.url,
        "release": release["release"],
        "model": release["model"]["sha256"],
        KIND: artifact_of(release),
        "revision": world.head("staging"),
        "run": None,
        "proved": True,
        "problem": None,
    }


def test_what_others_released_since_is_what_must_answer(
    world: World, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = world.clone("earlier")
    newer = make_release(world.first, 2)
    world.prepare(newer)
    promote(world.root, "staging", fake_render)
    monkeypatch.chdir(clone)
    live.releases = [newer]
    assert look() == 0


def test_what_was_released_is_not_proved_by_what_others_released_since(
    world: World, live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    meant = world.head("staging")
    assert look(20, "--revision", meant) == 0
    newer = make_release(world.first, 2)
    world.prepare(newer)
    promote(world.root, "staging", fake_render)
    live.releases = [newer]
    live.asked["/release"] = 0
    assert look(20, "--revision", meant) == 1
    assert f"env/staging has moved from {meant} to {world.head('staging')}" in (
        capsys.readouterr().err
    )
    assert outputs(world) == "proved=true\n"
    assert live.asked["/release"] == 0
    assert not (world.root / "build" / "probe.json").exists()


def test_waits_until_the_release_has_arrived(
    world: World, live: Live, release: dict[str, Any]
) -> None:
    live.releases = [make_release("0" * 40, 7)] * 5 + [release]
    assert look() == 0
    assert outputs(world) == "proved=true\n"


def test_waits_until_the_old_release_answers_no_more(
    world: World, live: Live, release: dict[str, Any]
) -> None:
    """Both answer in turn while one replaces the other, and the old one predicts otherwise."""
    old = make_release("0" * 40, 7)
    live.releases = [old, release, release, old, *[release] * (STEADY - 1), old, release]
    mixed = len(live.releases) - 1
    assert look() == 0
    assert live.asked["/release"] > mixed + STEADY
    # One by one, as a batch, and a bad request: asked once, by the new release alone.
    assert live.asked["/predict"] == 4


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (("0" * 40, 1), "runs the release shop:00000000-00000001, not shop:"),
        (None, f"runs the model {7:064x}, not {1:064x}"),
    ],
    ids=["other release", "same release with another model"],
)
def test_a_release_that_never_arrives_is_not_proved(
    world: World,
    live: Live,
    release: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    other: tuple[str, int] | None,
    said: str,
) -> None:
    found = make_release(*other) if other else {**release, "model": {"sha256": f"{7:064x}"}}
    live.releases = [found]
    assert look(timeout=0.2) == 1
    assert said in capsys.readouterr().err
    assert outputs(world) == "proved=false\n"
    assert evidence(world)["proved"] is False
    assert said in evidence(world)["problem"]
    assert live.asked["/predict"] == 0


def test_another_build_of_the_release_is_proved_when_it_answers(
    world: World, live: Live, release: dict[str, Any]
) -> None:
    """Both have one tag and one model, and give the same predictions."""
    assert look() == 0
    again = another_build(release)
    world.prepare(again)
    promote(world.root, "staging", fake_render)

    assert look(timeout=0.2) == 1
    problem = evidence(world)["problem"]
    for one in (release, again):
        assert one[KIND]["digest"] in problem
    live.releases = [again, release, *[again] * STEADY]
    assert look() == 0
    assert evidence(world)[KIND] == artifact_of(again)
    assert outputs(world) == "proved=true\nproved=false\nproved=true\n"


def test_a_service_that_does_not_say_what_it_was_deployed_as_is_not_proved(
    world: World, live: Live, release: dict[str, Any]
) -> None:
    live.releases = [{key: value for key, value in release.items() if key != KIND}]
    assert look(timeout=0.2) == 1
    assert "deployed as no digest, not as sha256:" in evidence(world)["problem"]


def test_wrong_predictions_are_not_proved(
    world: World, live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    live.predictions = [{"prediction": 10.0}, {"prediction": 21.0}]
    assert look() == 1
    assert "does not run shop:" in capsys.readouterr().err
    assert outputs(world) == "proved=false\n"
    assert "row 1" in evidence(world)["problem"]
    assert live.asked["/predict"] == 3 * TRIES


@pytest.mark.parametrize(("stumbles", "code"), [(TRIES - 1, 0), (TRIES, 1)])
def test_a_stumble_or_two_are_forgiven(world: World, live: Live, stumbles: int, code: int) -> None:
    live.stumbles = stumbles
    assert look() == code
    assert outputs(world) == f"proved={str(code == 0).lower()}\n"


def test_a_service_that_takes_anything_is_not_proved(world: World, live: Live) -> None:
    live.refused = 200
    assert look() == 1
    assert "answers 200 to an empty record" in evidence(world)["problem"]


def test_a_service_that_is_never_ready_is_not_proved(world: World, live: Live) -> None:
    live.ready = 503
    assert look(timeout=0.1) == 1
    assert "/readyz answers 503" in evidence(world)["problem"]


def test_a_service_that_is_down_is_not_proved(
    world: World, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGING_URL", "http://127.0.0.1:9")
    assert look(timeout=0.1) == 1
    assert "no answer" in evidence(world)["problem"]


@pytest.mark.parametrize("said", [[], "hello", {"release": 1}, {"release": "x", "model": {}}])
def test_a_server_that_is_another_is_not_proved(world: World, live: Live, said: Any) -> None:
    live.releases = [said]
    assert look(timeout=0.1) == 1
    assert "not ready" in evidence(world)["problem"]


def test_without_an_address_nothing_is_proved_and_that_is_said(
    world: World, live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert look() == 0
    monkeypatch.setenv("STAGING_URL", "")
    assert look() == 0
    assert outputs(world) == "proved=true\nproved=false\n"
    assert not (world.root / "build" / "probe.json").exists()
    summary = (world.folder / "summary.md").read_text(encoding="utf-8")
    for text in (capsys.readouterr().out, summary):
        assert "Skipped" in text
        assert "STAGING_URL" in text


def test_each_environment_is_probed_by_its_own_branch(
    world: World, live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRODUCTION_URL", live.url)
    assert main(["--environment", "production"]) == 1
    assert "env/production is empty" in capsys.readouterr().err
    assert "proved=true" not in outputs(world)


@pytest.mark.parametrize("golden", [None, b"{", b'{"records": [], "predictions": []}'])
def test_a_branch_without_golden_predictions_is_named(
    world: World, live: Live, capsys: pytest.CaptureFixture[str], golden: bytes | None
) -> None:
    branch = EnvironmentBranch(world.root, "staging")
    files = {"release.json": branch.read("release.json") or b""}
    files |= {} if golden is None else {"golden.json": golden}
    head = branch.publish(files, "without", lambda _: None)
    assert look() == 1
    assert f"env/staging at {head[:12]}: golden.json: " in capsys.readouterr().err


def test_old_evidence_is_not_taken_for_new(world: World, live: Live) -> None:
    assert look() == 0
    EnvironmentBranch(world.root, "staging").publish({"release.json": b"{"}, "x", lambda _: None)
    assert look() == 1
    assert not (world.root / "build" / "probe.json").exists()
