"""The two kinds of failure that a person is told about. Everything else is a bug, and is logged with its traceback."""

from __future__ import annotations


class StartupError(Exception):
    """The server cannot start as asked. The message is one line: the file or flag, what is wrong, and the way out."""


class RequestError(Exception):
    """A request that cannot be answered. Becomes `{"error": {"code": ..., "message": ...}}`.

    `status` is the HTTP status, `code` a stable word for programs, `message` a sentence for people, and
    `retry_after` (seconds), where given, the Retry-After header.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
