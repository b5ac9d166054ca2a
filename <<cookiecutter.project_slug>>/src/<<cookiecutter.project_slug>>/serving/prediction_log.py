"""The prediction log: what was asked and answered, as JSON lines, to measure drift on.

Each line holds the time, the release, the features and the prediction:

    {"time": "2013-07-01T00:00:00.000000Z", "release": "…", "features": {…}, "prediction": …,
     "probabilities": {…}}

A request only puts its rows into a bounded queue in memory; one thread writes them. When the disk
is slow, full or gone, rows are dropped and counted, and requests go on as if nothing had happened.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from pydantic_core import to_json

logger = logging.getLogger(__name__)

QUEUE_ROWS = 20_000
FILE_BYTES = 64 * 1024 * 1024
FILES_KEPT = 16
RETRY_SECONDS = 5.0
WAKE_SECONDS = 0.2
ROWS_AT_ONCE = 100
PREFIX = "predictions-"

Entry = tuple[float, Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]


class PredictionLog:
    """Writes predictions to files `predictions-<time>-<process>.jsonl` in a folder.

    A file that has grown to `file_bytes` is closed and another one begun; of the files of this
    process the newest `files_kept` stay.

    Args:
        folder: Where the files go; made when it does not exist.
        release: What to call the release in every line.
        on_drop: Called with a reason ("queue_full", "write_failed") and the number of rows lost.
        queue_rows: How many rows may wait to be written.
        file_bytes: At which size a file is closed.
        files_kept: How many files of this process may exist.
        retry_seconds: How long to wait before writing is tried again after it failed.
    """

    def __init__(
        self,
        folder: Path,
        release: str,
        on_drop: Callable[[str, int], None],
        *,
        queue_rows: int = QUEUE_ROWS,
        file_bytes: int = FILE_BYTES,
        files_kept: int = FILES_KEPT,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._folder = folder
        self._release = release
        self._on_drop = on_drop
        self._queue_rows = queue_rows
        self._file_bytes = file_bytes
        self._files_kept = files_kept
        self._retry_seconds = retry_seconds
        self._queue: deque[Entry] = deque()
        self._waiting = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._file: FileIO | None = None
        self._written: deque[Path] = deque()
        self._blocked_until = 0.0
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def add(
        self, records: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]
    ) -> None:
        """Hand over the rows of one request; never waits, never raises."""
        with self._lock:
            fits = self._waiting + len(records) <= self._queue_rows
            if fits:
                self._waiting += len(records)
                self._queue.append((time.time(), records, answers))
        if not fits:
            self._on_drop("queue_full", len(records))

    def close(self, timeout: float = 5.0) -> None:
        """Write what is waiting, within `timeout` seconds, and stop."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closing:
            # Waking a few times a second instead of at every request keeps the thread out of
            # the requests' way, and writes many rows at once.
            self._wake.wait(WAKE_SECONDS)
            self._drain()
        self._drain()
        self._close_file()

    def _drain(self) -> None:
        while entries := self._take():
            rows = sum(len(records) for _, records, _ in entries)
            try:
                self._write(entries, rows)
            except Exception as error:  # whatever it is, the service must go on
                self._failed(error, rows)
            with self._lock:
                self._waiting -= rows
            # Requests run in another thread of this process: let them in between.
            time.sleep(0)

    def _take(self) -> list[Entry]:
        entries: list[Entry] = []
        rows = 0
        with self._lock:
            while self._queue and rows < ROWS_AT_ONCE:
                entries.append(self._queue.popleft())
                rows += len(entries[-1][1])
        return entries

    def _write(self, entries: list[Entry], rows: int) -> None:
        if time.monotonic() < self._blocked_until:
            self._on_drop("write_failed", rows)
            return
        content = b"".join(self._lines(entries))
        # Unbuffered, so that what was not written is known here and now.
        if self._open_file().write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _lines(self, entries: list[Entry]) -> Iterator[bytes]:
        for moment, records, answers in entries:
            stamp = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            for record, answer in zip(records, answers, strict=True):
                line = {"time": stamp, "release": self._release, "features": record, **answer}
                yield to_json(line) + b"\n"

    def _open_file(self) -> FileIO:
        if self._file is not None and self._file.tell() >= self._file_bytes:
            self._close_file()
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
            path = self._folder / f"{PREFIX}{stamp}-{os.getpid()}.jsonl"
            self._file = path.open("xb", buffering=0)
            self._written.append(path)
            while len(self._written) > self._files_kept:
                self._written.popleft().unlink(missing_ok=True)
        return self._file

    def _failed(self, error: Exception, rows: int) -> None:
        logger.warning(
            "The prediction log cannot be written to %s: %s; trying again in %g s",
            self._folder,
            error,
            self._retry_seconds,
        )
        self._blocked_until = time.monotonic() + self._retry_seconds
        self._on_drop("write_failed", rows)
        # A line may be torn: the next one goes to another file.
        self._close_file()

    def _close_file(self) -> None:
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as error:
            logger.warning("The prediction log's file could not be closed: %s", error)
