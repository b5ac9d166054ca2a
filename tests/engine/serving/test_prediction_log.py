from __future__ import annotations

import json
import os
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gitops_ml.serving import prediction_log
from gitops_ml.serving.prediction_log import PredictionLog

RECORD = b'{"weight": 1.5}'
ANSWER = b'{"prediction":true}'


class Drops:
    """Counts what the log reports as lost."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()

    def __call__(self, reason: str, rows: int) -> None:
        self.rows[reason] += rows


@pytest.fixture
def drops() -> Drops:
    return Drops()


@pytest.fixture
def make_log(tmp_path: Path, drops: Drops) -> Iterator[Callable[..., PredictionLog]]:
    logs: list[PredictionLog] = []

    def log(folder: Path = tmp_path / "log", **options: Any) -> PredictionLog:
        logs.append(PredictionLog(folder, "shop:1", drops, **options))
        return logs[-1]

    yield log
    for log_ in logs:
        log_.close()


def lines(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("predictions-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_request_becomes_a_line(
    make_log: Callable[..., PredictionLog], tmp_path: Path, drops: Drops
) -> None:
    log = make_log()
    log.add(b'\n{"weight":\r\n 1.5}\n', ANSWER, 1)
    log.add(b"[" + RECORD + b",\n" + RECORD + b"]", b"[" + ANSWER + b"," + ANSWER + b"]", 2)
    log.close()

    single, batch = lines(tmp_path / "log")
    assert single["records"] == [{"weight": 1.5}]
    assert single["predictions"] == [{"prediction": True}]
    assert single["release"] == "shop:1"
    assert single["time"].endswith("Z")
    assert batch["records"] == [{"weight": 1.5}] * 2
    assert batch["predictions"] == [{"prediction": True}] * 2
    assert not drops.rows


def test_lines_are_written_while_the_service_runs(
    make_log: Callable[..., PredictionLog], tmp_path: Path
) -> None:
    log = make_log()
    log.add(RECORD, ANSWER, 1)

    wait_until(lambda: len(lines(tmp_path / "log")) == 1)


def test_files_are_closed_at_a_size_and_the_newest_stay(
    make_log: Callable[..., PredictionLog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "WRITE_BYTES", 1)  # every line is a write of its own
    log = make_log(file_bytes=250, files_kept=3)
    for number in range(20):
        log.add(b'{"n": %d}' % number, ANSWER, 1)
    log.close()

    files = sorted((tmp_path / "log").glob("*.jsonl"))
    assert len(files) == 3
    assert all(250 <= file.stat().st_size < 400 for file in files[:-1])
    numbers = [line["records"][0]["n"] for line in lines(tmp_path / "log")]
    assert numbers == list(range(numbers[0], 20))


def test_a_full_queue_drops_and_counts_without_waiting(
    make_log: Callable[..., PredictionLog],
    tmp_path: Path,
    drops: Drops,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = threading.Event()
    original = PredictionLog._open_file

    def slow_disk(log: PredictionLog) -> Any:
        stuck.wait()
        return original(log)

    monkeypatch.setattr(PredictionLog, "_open_file", slow_disk)
    log = make_log(queue_bytes=10 * len(RECORD + ANSWER))
    started = time.monotonic()
    for _ in range(15):
        log.add(RECORD, ANSWER, 1)
    log.add(RECORD, ANSWER, 7)

    assert time.monotonic() - started < 30
    assert drops.rows == {"queue_full": 5 + 7}
    stuck.set()
    log.close()
    assert len(lines(tmp_path / "log")) == 10


def test_a_folder_that_cannot_be_made_is_tried_again(
    make_log: Callable[..., PredictionLog], tmp_path: Path, drops: Drops
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    log = make_log(in_the_way / "log", retry_seconds=0.1)
    log.add(RECORD, ANSWER, 3)
    wait_until(lambda: drops.rows["write_failed"] == 3)

    in_the_way.unlink()

    def written() -> bool:
        log.add(RECORD, ANSWER, 1)
        return bool(lines(in_the_way / "log"))

    wait_until(written)


def test_a_full_disk_loses_lines_but_tears_none_that_follows(
    make_log: Callable[..., PredictionLog], tmp_path: Path, drops: Drops
) -> None:
    log = make_log(retry_seconds=0.1)
    log.add(RECORD, ANSWER, 1)
    wait_until(lambda: len(lines(tmp_path / "log")) == 1)
    (first,) = (tmp_path / "log").glob("*.jsonl")

    # A limit on the size of files fails a write as a full disk does: in the middle, then wholly.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (first.stat().st_size + 20, hard))
        log.add(RECORD, ANSWER, 2)
        wait_until(lambda: drops.rows["write_failed"] == 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    time.sleep(0.2)
    log.add(b'{"after": 1}', ANSWER, 1)
    log.close()

    others = [file for file in (tmp_path / "log").glob("*.jsonl") if file != first]
    after = [json.loads(line) for file in others for line in file.read_text().splitlines()]
    assert [line["records"] for line in after] == [[{"after": 1}]]


def test_a_folder_that_vanishes_does_not_stop_the_log(
    make_log: Callable[..., PredictionLog], tmp_path: Path
) -> None:
    log = make_log(file_bytes=1)
    log.add(RECORD, ANSWER, 1)
    wait_until(lambda: len(lines(tmp_path / "log")) == 1)
    for file in (tmp_path / "log").iterdir():
        file.unlink()
    (tmp_path / "log").rmdir()

    log.add(RECORD, ANSWER, 1)

    wait_until(lambda: len(lines(tmp_path / "log")) == 1)


def test_a_failing_metric_does_not_reach_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []
    log = PredictionLog(tmp_path / "log", "shop:1", lambda reason, _: failures.append(reason))
    original = PredictionLog._line
    calls = iter([True])

    def fails_once(self: PredictionLog, entry: Any) -> bytes:
        if next(calls, False):
            raise MemoryError
        return original(self, entry)

    monkeypatch.setattr(PredictionLog, "_line", fails_once)
    monkeypatch.setattr(prediction_log, "RETRY_SECONDS", 0.0)
    log._retry_seconds = 0.0
    log.add(RECORD, ANSWER, 1)
    wait_until(lambda: failures == ["write_failed"])
    log.add(RECORD, ANSWER, 1)
    log.close()

    assert len(lines(tmp_path / "log")) == 1


def test_processes_do_not_share_a_file(
    make_log: Callable[..., PredictionLog], tmp_path: Path
) -> None:
    log = make_log()
    log.add(RECORD, ANSWER, 1)
    log.close()

    (file,) = (tmp_path / "log").iterdir()
    assert str(os.getpid()) in file.name


def test_closing_does_not_wait_for_a_disk_that_hangs(
    make_log: Callable[..., PredictionLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()
    monkeypatch.setattr(PredictionLog, "_write", lambda *_: hang.wait())
    log = make_log()
    log.add(RECORD, ANSWER, 1)
    started = time.monotonic()
    log.close(timeout=0.3)

    assert time.monotonic() - started < 30
    hang.set()
