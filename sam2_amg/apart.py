"""A call in a process of its own: native code that crashes takes that process along, and not this one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


class ProcessDied(Exception):
    """The process ended before it answered."""


def call_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` answers, or raises, in a fresh process; all of it must be picklable, and importable from there.

    Raises ProcessDied, which says how, where the process ends before.
    """
    context = get_context("spawn")  # fresh: CUDA does not survive a fork
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        failed, value = receiver.recv()
    except EOFError as error:
        process.join()
        raise ProcessDied(_ending(process.exitcode or 0)) from error
    finally:
        process.terminate()  # whatever it may still be doing, nobody waits for it
        process.join()
        receiver.close()
    if failed:
        raise value
    return value


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer = False, function(*arguments)
    except Exception as error:  # it belongs to the caller
        answer = True, error
    sender.send(answer)


def _ending(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
