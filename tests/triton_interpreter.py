"""Triton's interpreter without what it does in vain, which takes three quarters of its time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import triton.language as tl
from triton.runtime import interpreter


def speed_up_interpreter() -> None:
    """Changes the interpreter of Triton 3.6 for this process; what it computes stays the same.

    It puts its own functions into `triton.language` at the launch of a kernel, and not again at every call of a
    function within. And it does not look for overflows, whose assertions are on in debug mode alone.
    """
    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    patched: set[tuple[bool, bool]] = set()  # in this launch, for functions that see one of these modules, or both
    seen_by: dict[Any, tuple[bool, bool]] = {}

    def patch_once(function: Any) -> Any:
        if function not in seen_by:
            globals_ = function.__globals__.values()
            seen_by[function] = any(x is tl for x in globals_), any(x is tl.core for x in globals_)
        if seen_by[function] in patched:
            return None  # which only a launch would look at
        patched.add(seen_by[function])
        return patch(function)

    def launch_anew(self: Any, *arguments: Any, **options: Any) -> None:
        patched.clear()  # the launch before has restored the language
        launch(self, *arguments, **options)

    interpreter._patch_lang = patch_once
    interpreter.GridExecutor.__call__ = launch_anew
    options = interpreter.interpreter_builder.options
    interpreter.interpreter_builder.options = replace(options, sanitize_overflow=False)
