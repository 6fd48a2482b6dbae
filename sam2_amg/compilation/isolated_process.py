"""A call in a process of its own: native code that crashes takes that process along, and not this one."""

from __future__ import annotations

import pickle
import signal
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

_PATIENCE = 30.0  # seconds, for a process that has answered to end


class ProcessDied(Exception):
    """The process ended before it answered."""


def run_in_subprocess(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` answers, or raises, in a fresh process; all of it must be picklable, and importable from there.

    Raises ProcessDied, which says how, where the process ends before.
    """
    context = get_context("spawn")  # fresh: CUDA does not survive a fork
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        failed, value = pickle.loads(receiver.recv_bytes())
        process.join(_PATIENCE)  # what it made may be cleared away at its end
    except (EOFError, OSError) as error:
        process.join()
        raise ProcessDied(exit_cause(process.exitcode or 0)) from error
    finally:
        process.terminate()  # nobody waits for it any longer
        process.join()
        receiver.close()
    if failed:
        raise value
    return value


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer = False, function(*arguments)
    except Exception as error:  # it belongs to the caller
        error.add_note(f"In a process of its own:\n{traceback.format_exc()}")
        answer = True, error
    try:
        data = pickle.dumps(answer)
        pickle.loads(data)  # some errors are pickled, and then not read
    except Exception:
        data = pickle.dumps((True, RuntimeError(f"{answer[1]!r} cannot leave its process")))
    sender.send_bytes(data)


def exit_cause(code: int) -> str:
    """How a process ended, by its exit code: -11 -> ended by SIGSEGV."""
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
