"""Finds a C++ compiler by trying each one, because some write libraries that crash the process that loads them."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from torch._inductor import config as inductor_config

from sam2_amg.compilation.isolated_process import exit_cause
from sam2_amg.errors import StartupError

logger = logging.getLogger(__name__)
_NAMES = ("g++", "c++")
_TIMEOUT = 30.0  # seconds, for compiling or running the trial
# What compiled subgraphs need from the C++ library: streams, strings, and catching exceptions.
_SOURCE = """
#include <sstream>
#include <stdexcept>
extern "C" int trial() {
  std::ostringstream text;
  text << 1.5;
  try { throw std::runtime_error(text.str()); }
  catch (const std::exception& error) { return error.what() == std::string("1.5") ? 42 : 0; }
}
"""
# Loads the trial in a process without another C++ library. A library with a statically linked C++ library crashes
# next to torch, which uses the shared one.
_LOAD = """
import ctypes, sys
if ctypes.CDLL(sys.argv[1]).trial() != 42:
    sys.exit("its libraries do not catch exceptions")
if not any(name in open("/proc/self/maps").read() for name in ("libstdc++", "libc++")):
    sys.exit("it links its own C++ library statically")
"""


def compilers() -> Iterator[str]:
    """Yields compilers to try: CXX, then each g++ and each c++ on the PATH, without duplicates."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    named = [os.environ["CXX"]] if os.environ.get("CXX") else []
    paths = [path for name in _NAMES for folder in folders if (path := shutil.which(name, path=folder))]
    seen = set()
    for compiler in [*named, *paths]:
        file = os.path.realpath(shutil.which(compiler) or compiler)
        if file not in seen:
            seen.add(file)
            yield compiler


@cache
def fault_of(compiler: str) -> str | None:
    """What is wrong with a compiler, in a few words; None if its library loads and runs."""
    with TemporaryDirectory() as folder:
        source, library = Path(folder) / "trial.cpp", Path(folder) / "trial.so"
        source.write_text(_SOURCE)
        try:
            _run([compiler, "-std=c++17", "-shared", "-fPIC", str(source), "-o", str(library)])
            _run([sys.executable, "-I", "-S", "-c", _LOAD, str(library)])
        except OSError as error:
            return error.strerror or str(error)
        except subprocess.TimeoutExpired:
            return f"no answer within {_TIMEOUT:g} s"
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or [exit_cause(error.returncode)]
            return lines[-1][:200]
    return None


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, errors="replace", check=True, timeout=_TIMEOUT)


def use_working_compiler(report: Callable[[str], None] = logger.info) -> None:
    """Sets the first compiler that works as torch's C++ compiler, and passes its name to `report`.

    Raises StartupError if none works.
    """
    faults: list[str] = []
    for compiler in compilers():
        fault = fault_of(compiler)
        if fault is None:
            inductor_config.cpp.cxx = (None, compiler)
            os.environ["CXX"] = compiler  # for subprocesses that compile
            report("; ".join([*faults, f"compiling C++ with {compiler}"]))
            return
        faults.append(f"{compiler} does not work ({fault})")
    found = "; ".join(faults) or "g++ is missing"
    raise StartupError(f"--fast needs a C++ compiler, but {found}; install g++, or set CXX to one that works")
