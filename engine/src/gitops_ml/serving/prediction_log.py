"""The prediction log: what was asked and answered, as JSON lines, to measure drift on.

One line per request, with the records as they were sent and the predictions as they were answered:

    {"time": "2013-07-01T00:00:00.000000Z", "release": "…", "records": […], "predictions": […]}

A client that sends a header `X-Request-Id` finds it there as `request`, to hand in by it later what
has happened: `gitops-ml monitor` reads both.

A request only puts bytes that exist already into a bounded queue in memory; one thread writes them.
When the disk is slow, full or gone, lines are dropped and their rows counted, and requests go on as
if nothing had happened.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from pydantic_core import to_json

logger = logging.getLogger(__name__)

QUEUE_BYTES = 32 * 1024 * 1024
FILE_BYTES = 64 * 1024 * 1024
FILES_KEPT = 16
RETRY_SECONDS = 5.0
WAKE_SECONDS = 0.2
# Small, since other threads of the process, the requests', get their turn between two writes.
WRITE_BYTES = 16 * 1024
REQUEST_LENGTH = 200
PREFIX = "predictions-"


class Entry(NamedTuple):
    """One answered request: the JSON of its records and of its predictions, each an array."""

    moment: float
    records: bytes
    predictions: bytes
    rows: int
    request: str | None = None

    @property
    def size(self) -> int:
        """How many bytes it keeps in memory."""
        return len(self.records) + len(self.predictions)


class PredictionLog:
    """Writes predictions to files `predictions-<time>-<process>.jsonl` in a folder.

    A file that has grown to `file_bytes` is closed and another one begun; of the files of this
    process the newest `files_kept` stay.

    Args:
        folder: Where the files go; made when it does not exist.
        release: What to call the release in every line.
        on_drop: Called with a reason ("queue_full", "write_failed") and the number of rows lost.
        queue_bytes: How much may wait to be written.
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
        queue_bytes: int = QUEUE_BYTES,
        file_bytes: int = FILE_BYTES,
        files_kept: int = FILES_KEPT,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._folder = folder
        self._release = to_json(release)
        self._on_drop = on_drop
        self._queue_bytes = queue_bytes
        self._file_bytes = file_bytes
        self._files_kept = files_kept
        self._retry_seconds = retry_seconds
        self._queue: deque[Entry] = deque()
        self._waiting = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._file: FileIO | None = None
        self._written: deque[Path] = deque()
        self._blocked_until = 0.0
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def add(
        self, records: bytes, predictions: bytes, rows: int, request: str | None = None
    ) -> None:
        """Hand over a request that was answered; never waits, never raises.

        Args:
            records: A JSON array of the records, or a single one as an object.
            predictions: The same for the predictions.
            rows: How many there are.
            request: What the client calls the request; a long name is cut.
        """
        name = None if request is None else request[:REQUEST_LENGTH]
        entry = Entry(time.time(), records, predictions, rows, name)
        with self._lock:
            fits = self._waiting + entry.size <= self._queue_bytes
            if fits:
                self._waiting += entry.size
                self._queue.append(entry)
        if not fits:
            self._on_drop("queue_full", rows)

    def close(self, timeout: float = 5.0) -> None:
        """Write what is waiting, within `timeout` seconds, and stop."""
        self._closing.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        # Waking a few times a second instead of at every request keeps this thread out of the
        # requests' way, and writes many lines at once.
        while not self._closing.wait(WAKE_SECONDS):
            self._drain()
        self._drain()
        self._close_file()

    def _drain(self) -> None:
        while entries := self._take():
            rows = sum(entry.rows for entry in entries)
            try:
                self._write(entries, rows)
            except Exception as error:  # whatever it is, the service must go on
                self._failed(error, rows)
            with self._lock:
                self._waiting -= sum(entry.size for entry in entries)

    def _take(self) -> list[Entry]:
        entries: list[Entry] = []
        size = 0
        with self._lock:
            while self._queue and size < WRITE_BYTES:
                entries.append(self._queue.popleft())
                size += entries[-1].size
        return entries

    def _write(self, entries: list[Entry], rows: int) -> None:
        if time.monotonic() < self._blocked_until:
            self._on_drop("write_failed", rows)
            return
        content = b"".join(map(self._line, entries))
        # Unbuffered, so that what was not written is known here and now.
        if self._open_file().write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _line(self, entry: Entry) -> bytes:
        stamp = datetime.fromtimestamp(entry.moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        request = b"" if entry.request is None else b'"request":%s,' % to_json(entry.request)
        return b'{"time":"%s","release":%s,%s"records":%s,"predictions":%s}\n' % (
            stamp.encode(),
            self._release,
            request,
            _array_on_one_line(entry.records),
            _array_on_one_line(entry.predictions),
        )

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


def _array_on_one_line(document: bytes) -> bytes:
    # In JSON a line break can only be space between tokens: inside of a text it is written \n.
    line = document.strip().replace(b"\n", b" ").replace(b"\r", b" ")
    return line if line.startswith(b"[") else b"[" + line + b"]"
