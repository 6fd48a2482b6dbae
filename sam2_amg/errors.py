"""The two kinds of errors reported to users. Any other exception is a bug and is logged with its traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class StartupError(Exception):
    """A command cannot run as asked. The message is one line: the file or flag, what is wrong, and the way out."""


class ParameterError(StartupError):
    """A parameter has a value that it cannot have. On a command line the message names its flag.

    `name` is the parameter; `problem` continues a sentence that begins with its name ("must be from 0 to 1, not 7").
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"--{name} {problem}")
        self.name = name
        self.problem = problem


class RequestError(Exception):
    """The server refuses a request. The response body is `{"error": {"code": ..., "message": ...}}`.

    `status` is the HTTP status. `code` is stable, for programs; `message` is for people. `retry_after` (seconds), if
    given, becomes the Retry-After header.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[RequestError], tuple[int, str, str, int | None]]:
        """What pickle makes it anew from, in another process."""
        return type(self), (self.status, self.code, self.message, self.retry_after)


@contextmanager
def os_errors(problem: str, way_out: str) -> Iterator[None]:
    """Turns OSError of a block into StartupError: what cannot be done, why, and the way out."""
    try:
        yield
    except OSError as error:
        raise StartupError(f"{problem} ({error.strerror}); {way_out}") from error


def first_line(error: BaseException) -> str:
    """What an error says first; its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def shutting_down() -> RequestError:
    """503: what a request gets while the server stops."""
    return RequestError(503, "shutting_down", "The server is shutting down.", retry_after=5)
