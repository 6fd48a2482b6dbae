"""Uniform registers that compiled kernels read before they write them: what a fault of the compiler looks like.

A kernel with such a fault gives wrong numbers, or stops with an illegal memory access, and only a GPU would show it.
Registers of single threads are not looked at.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence

from triton import knobs

_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?([\w.]+)\s*(.*?);")


def disassembled(binary: bytes) -> str:
    """The listing of a cubin."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [knobs.nvidia.nvdisasm.path, "-c", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def instructions(listing: str) -> list[tuple[str, list[str]]]:
    """Operation and operands of each instruction for Hopper or before, in their order."""
    found = [
        (operation, [operand.strip() for operand in operands.split(",")])
        for operation, operands in _INSTRUCTION.findall(listing)
    ]
    assert any(operation == "EXIT" for operation, _ in found), "the listing is of another form"
    return found


def read_before_written(code: Sequence[tuple[str, list[str]]]) -> list[str]:
    """The instructions that read a uniform register to which none before them, in the order of the code, has written.

    Products of a warpgroup have their descriptor of shared memory in the third and fourth of four such registers.
    """
    written: set[int] = set()
    found = []
    for operation, operands in code:
        both = operation.startswith("U") and ".64" in operation  # registers come in pairs
        result = re.fullmatch(r"UR(\d+)", operands[0])
        read = set()
        for operand in operands[1 if result else 0 :]:
            for descriptor, number in re.findall(r"(gdesc\[)?\bUR(\d+)\b", operand):
                first = int(number) + (2 if descriptor else 0)
                read |= {first, first + 1} if descriptor or both else {first}
        if not read <= written:
            found.append(f"{operation} {', '.join(operands)}")
        if result:
            written |= {int(result[1]), int(result[1]) + (both or ".WIDE" in operation)}
    return found
