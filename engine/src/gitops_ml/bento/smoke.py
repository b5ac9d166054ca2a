"""Smoke test: does the running service answer as the trained model did?

    gitops-ml smoke --url http://127.0.0.1:3000
    gitops-ml smoke --serve latest

Waits until the service is ready and runs the expected model, asks for the golden predictions of
`reports/golden.json`, and checks that a bad request is refused. With `--serve` it starts the bento
of that tag itself, on a free port, and stops it in the end.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException

from gitops_ml.core import paths
from gitops_ml.core.answers import TOLERANCE
from gitops_ml.core.errors import GitopsError
from gitops_ml.core.json_text import load_json
from gitops_ml.core.project import load_project
from gitops_ml.core.run import PYTHON, started
from gitops_ml.model.predictor import read_manifest

POLL_SECONDS = 0.5
REQUEST_SECONDS = 10.0


class SmokeError(GitopsError):
    """The service does not answer as it should; the message says what differs."""


def fetch(url: str, body: bytes | None = None) -> tuple[int, Any]:
    """Send a request; POST when there is a body.

    Returns:
        The status, and the answer from JSON (as text when it is none).

    Raises:
        OSError: If there is no answer.
    """
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_SECONDS) as response:
            status, content = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, content = error.code, error.read()
    except http.client.HTTPException as error:
        raise OSError(f"the answer broke off: {error!r}") from error
    try:
        return status, load_json(content)
    except ValueError:
        return status, content.decode(errors="replace")


def wait_for(
    url: str,
    expected: str | None,
    timeout: float,
    release: str | None = None,
    digest: str | None = None,
) -> dict[str, Any]:
    """Wait until the service is ready and is, as far as that is said, what it should be.

    Args:
        url: Where the service is.
        expected: The sha256 of the model file, or the first characters of it.
        timeout: How many seconds to wait.
        release: The tag of the release.
        digest: Of the artifact that it was deployed as.

    Returns:
        What `/release` says.

    Raises:
        SmokeError: If the time is over before.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            ready, _ = fetch(f"{url}/readyz")
            status, answer = fetch(f"{url}/release")
            if ready != 200 or status != 200:
                state = f"/readyz answers {ready}, /release answers {status}"
            else:
                found, tag = answer["model"]["sha256"], answer["release"]
                if release is not None and tag != release:
                    state = f"it runs the release {tag}, not {release}"
                elif expected is not None and not found.startswith(expected):
                    state = f"it runs the model {found}, not {expected} ({tag})"
                elif digest is not None and answer.get("digest") != digest:
                    deployed = answer.get("digest") or "no digest"
                    state = f"it runs {tag} deployed as {deployed}, not as {digest}"
                else:
                    return dict(answer)
        except (OSError, AttributeError, KeyError, TypeError) as error:
            state = f"no answer: {error}"
        if time.monotonic() >= deadline:
            waited = f" after {timeout:.3g} s" if timeout else ""
            raise SmokeError(f"{url}: not ready{waited}: {state}")
        time.sleep(POLL_SECONDS)


def check_golden(url: str, golden: dict[str, Any]) -> int:
    """Compare the service's predictions with the golden ones, row by row and as a batch.

    Returns:
        How many predictions were compared.

    Raises:
        SmokeError: Naming every row that differs, with both answers.
    """
    records, expected = golden["records"], golden["predictions"]
    single = [_predict(url, record) for record in records]
    problems = _differences("row", single, expected, golden["tolerance"])
    batch = _predict(url, records)
    problems += _differences("batch row", batch, expected, golden["tolerance"])
    if problems:
        lines = "\n".join(problems)
        raise SmokeError(f"{url}: the predictions differ from {paths.GOLDEN}:\n{lines}")
    return len(expected)


def _predict(url: str, body: Any) -> Any:
    status, answer = ask(f"{url}/predict", json.dumps(body).encode())
    if status != 200:
        raise SmokeError(f"{url}/predict: answers {status} to a golden record: {answer}")
    return answer


def ask(url: str, body: bytes | None = None) -> tuple[int, Any]:
    """Like `fetch`, where there must be an answer.

    Raises:
        SmokeError: If there is none.
    """
    try:
        return fetch(url, body)
    except OSError as error:
        raise SmokeError(f"{url}: no answer: {error}") from error


def _differences(what: str, found: Any, expected: list[Any], tolerance: float) -> list[str]:
    if not isinstance(found, list):
        return [f"  {what}s: expected {len(expected)} predictions, found {json.dumps(found)}"]
    if len(found) != len(expected):
        return [f"  {len(found)} predictions for {len(expected)} rows"]
    return [
        f"  {what} {number}: expected {json.dumps(right)}, found {json.dumps(left)}"
        for number, (left, right) in enumerate(zip(found, expected, strict=True))
        if not same(_without_additions(left, right), right, tolerance)
    ]


def _without_additions(found: Any, expected: Any) -> Any:
    """An answer without what the project's own `service.py` adds to those of the model."""
    if not isinstance(found, dict) or not isinstance(expected, dict):
        return found
    return {key: value for key, value in found.items() if key in expected}


def same(found: Any, expected: Any, tolerance: float) -> bool:
    """Whether two answers agree: numbers within the tolerance (relative above one), else equal."""
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(same(found[key], expected[key], tolerance) for key in expected)
        )
    if isinstance(expected, bool) or not isinstance(expected, (int, float)):
        return type(found) is type(expected) and bool(found == expected)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return False
    return math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance)


def check_refusal(url: str) -> None:
    """Make sure that a request without the features is refused with their names.

    Raises:
        SmokeError: If it is not.
    """
    status, answer = ask(f"{url}/predict", b"{}")
    if status != 422 or not isinstance(answer, dict) or not answer.get("problems"):
        raise SmokeError(f"{url}/predict: answers {status} to an empty record, not 422: {answer}")


def smoke(
    url: str,
    golden: dict[str, Any],
    expected: str | None,
    timeout: float,
    release: str | None = None,
    digest: str | None = None,
) -> str:
    """Run every check.

    Args:
        url: Where the service is.
        golden: The content of `reports/golden.json`.
        expected: The sha256 of the model file, or the first characters of it.
        timeout: How many seconds to wait until the service is ready.
        release: The tag of the release.
        digest: Of the artifact that it was deployed as.

    Returns:
        One line that says what was checked.

    Raises:
        SmokeError: At the first check that fails.
    """
    url = url.rstrip("/")
    running = wait_for(url, expected, timeout, release, digest)
    compared = check_golden(url, golden)
    check_refusal(url)
    return (
        f"{url} runs {running['release']}, gives all {compared} golden predictions, one by one "
        "and as a batch, and refuses a bad request"
    )


def bento_path(tag: str) -> str:
    """The folder of a bento in the store.

    Args:
        tag: Its version or whole tag; `latest` is the newest.

    Raises:
        SmokeError: If there is no such bento.
    """
    name = f"{load_project().package}:{tag.rpartition(':')[2]}"
    try:
        return str(bentoml.bentos.get(name).path)
    except BentoMLException as error:
        raise SmokeError(f"{name}: no such bento; run `make package`") from error


@contextmanager
def serving(target: str, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a service on a free port while the block runs.

    Args:
        target: The folder of a bento, or `module:Service`.
        variables: More environment variables.

    Yields:
        Its address.

    Raises:
        SmokeError: From the block, with what the service said added.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as log:
        # BentoML empties the metrics folder of its home at every start: use another home, or a
        # service that runs already on this machine would lose its metrics.
        own = {"BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "true"}
        command = [*PYTHON, "bentoml", "serve", target, "--host", "127.0.0.1", "--port", str(port)]
        try:
            with started(command, Path.cwd(), log, variables={**own, **(variables or {})}):
                yield f"http://127.0.0.1:{port}"
        except SmokeError as error:
            log.seek(0)
            said = log.read()[-3000:].decode(errors="replace")
            raise SmokeError(f"{error}\nThe service said:\n{said}") from error


def read_golden(path: Path) -> dict[str, Any]:
    """Read the golden predictions.

    Raises:
        SmokeError: If the file is missing or is none of them.
    """
    try:
        return parse_golden(path.read_bytes(), str(path))
    except OSError as error:
        raise SmokeError(f"{path}: cannot be read: {error}; run `make pipeline`") from error
    except SmokeError as error:
        raise SmokeError(f"{error}; run `make pipeline`") from error


def parse_golden(text: bytes, where: str) -> dict[str, Any]:
    """Read golden predictions.

    Args:
        text: The bytes of the file.
        where: What to call it in messages.

    Raises:
        SmokeError: If they are none, or would let pass what differs by more than `TOLERANCE`.
    """
    try:
        golden = load_json(text)
        complete = bool(golden["records"] and golden["predictions"])
        tolerance = golden["tolerance"]
    except (ValueError, KeyError, TypeError) as error:
        raise SmokeError(f"{where}: cannot be read: {error}") from error
    if not complete:
        raise SmokeError(f"{where}: holds no predictions")
    number = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
    if not number or not 0 < tolerance <= TOLERANCE:
        raise SmokeError(
            f"{where}: tolerance: {tolerance!r}, must be above 0 and at most {TOLERANCE:g}: with "
            "more of it, another model would pass"
        )
    return dict(golden)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="where the service runs, e.g. http://127.0.0.1:3000")
    where.add_argument("--serve", metavar="TAG", help="start this bento; `latest` for the newest")
    parser.add_argument(
        "--expect-model-hash", metavar="SHA256", help="default: the model in models/manifest.json"
    )
    parser.add_argument("--golden", type=Path, default=paths.GOLDEN)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait until ready")


def run(options: argparse.Namespace) -> int:
    """Test a service; 0 if it answers as it should."""
    golden = read_golden(options.golden)
    expected = options.expect_model_hash or _recorded_hash()
    if options.url:
        said = smoke(options.url, golden, expected, options.timeout)
    else:
        with serving(bento_path(options.serve)) as url:
            said = smoke(url, golden, expected, options.timeout)
    print(said)
    return 0


def _recorded_hash() -> str:
    manifest = read_manifest(paths.MODELS)
    return str(manifest["files"][manifest["served"]])
