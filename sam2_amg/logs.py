"""The log: lines of text, or of JSON for programs that collect logs."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import orjson

FORMATS = ("text", "json")
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


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


def start_log() -> None:
    """Logs to standard error, as text."""
    logging.basicConfig(level=logging.INFO, format=TEXT)
    logging.getLogger("torch").setLevel(logging.WARNING)  # it reports its caches when the process ends


def use_format(name: str) -> None:
    """Changes the format of the log to one of FORMATS."""
    formatter = JsonFormatter() if name == "json" else logging.Formatter(TEXT)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)
