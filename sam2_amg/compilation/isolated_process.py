"""Calls a function in a subprocess, so that a crash of native code does not end this process."""

from __future__ import annotations

import pickle
import signal
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

_PATIENCE = 30.0  # seconds for a process to end after it has returned its result


class ProcessDied(Exception):
    """The process ended without a result. The message says how."""


def run_in_subprocess(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs `function` in a new process; returns its result or raises its exception.

    Function, arguments and result must be picklable. Raises ProcessDied if the process ends first.
    """
    context = get_context("spawn")  # CUDA does not work in a forked process
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        failed, value = pickle.loads(receiver.recv_bytes())
        process.join(_PATIENCE)  # lets its exit handlers delete temporary files
    except (EOFError, OSError) as error:
        process.join()
        raise ProcessDied(exit_cause(process.exitcode or 0)) from error
    finally:
        process.terminate()  # if it still runs
        process.join()
        receiver.close()
    if failed:
        raise value
    return value


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer = False, function(*arguments)
    except Exception as error:  # the caller raises it
        error.add_note(f"In a subprocess:\n{traceback.format_exc()}")
        answer = True, error
    try:
        data = pickle.dumps(answer)
        pickle.loads(data)  # some exceptions can be pickled but not unpickled
    except Exception:
        data = pickle.dumps((True, RuntimeError(f"{answer[1]!r} cannot be pickled")))
    sender.send_bytes(data)


def exit_cause(code: int) -> str:
    """How a process ended, from its exit code: -11 -> "ended by SIGSEGV"."""
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
