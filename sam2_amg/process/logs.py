"""The log: lines of text, or of JSON for programs that collect logs."""

from __future__ import annotations

import atexit
import contextlib
import logging
import queue
import sys
import time
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener

import orjson

FORMATS = ("text", "json")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_MOST_WAITING = 10_000  # lines; more are dropped
_PATIENCE = 1.0  # seconds for the last lines to be written


class JsonFormatter(logging.Formatter):
    """A line of JSON an event: time (ISO 8601, UTC), level, logger, message, a traceback if there is one, and what the
    attribute `fields` of a record holds."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class _Waiting(QueueHandler):
    """Hands records to another thread: a reader of standard error that has stopped reading stops nobody here."""

    def __init__(self) -> None:
        self.records: queue.Queue[logging.LogRecord] = queue.Queue(_MOST_WAITING)
        super().__init__(self.records)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """The record as it is: it does not leave the process."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queues a record, or drops it if too many wait."""
        with contextlib.suppress(queue.Full):
            self.records.put_nowait(record)

    def flush(self) -> None:
        """Waits a moment for what is queued to be written."""
        end = time.monotonic() + _PATIENCE
        while not self.records.empty() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.01)


_lines = logging.StreamHandler(sys.stderr)


def start_log() -> None:
    """Logs to standard error, as text."""
    waiting = _Waiting()
    use_format("text")
    logging.basicConfig(level=logging.INFO, handlers=[waiting])
    logging.getLogger("torch").setLevel(logging.WARNING)  # at INFO, torch logs its caches when the process ends
    QueueListener(waiting.records, _lines).start()
    atexit.register(flush_log)


def use_format(name: str) -> None:
    """Changes the format of the log to one of FORMATS."""
    _lines.setFormatter(JsonFormatter() if name == "json" else logging.Formatter(_TEXT))


def flush_log() -> None:
    """Waits a moment for the last lines to be written."""
    for handler in logging.getLogger().handlers:
        handler.flush()
