"""Compiles every kernel for Hopper, and with the safe launches for Ampere and Ada, without a GPU.

Run by test_kernels.py in a process that does not interpret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sam2_amg.kernels import attention, fp16x3, launch_configs
from sam2_amg.kernels.image_attention import read_kernel, update_first_kernel, update_second_kernel
from sam2_amg.kernels.launch_configs import HOPPER, SAFE, Launches
from sam2_amg.kernels.mask_stats import box_kernel, measure_kernel
from sam2_amg.kernels.rle import edges_kernel
from sam2_amg.kernels.upscale import upscale_kernel

SHARED_MEMORY = {90: 227 * 1024, 89: 99 * 1024, 80: 163 * 1024}  # bytes that a program may have, by architecture


def compile_kernel(
    kernel: triton.JITFunction,
    types: dict[str, str],
    constants: dict[str, object],
    aligned: bool = True,
    architecture: int = 90,
    **options: int,
) -> Any:
    """The binary of a kernel for arguments of these types; `aligned` where every pointer is, to 16 bytes."""
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    pointers = [i for i, kind in enumerate(signature.values()) if kind.startswith("*")]
    hints = {(i,): [["tt.divisibility", 16]] for i in pointers} if aligned else {}
    return triton.compile(
        ASTSource(kernel, signature, constants, hints), target=GPUTarget("cuda", architecture, 32), options=options
    )


def main() -> None:
    numbers = dict.fromkeys(("h", "w", "height", "width", "crop_height", "crop_width", "x0", "y0"), "i32")
    numbers |= dict.fromkeys(("scale_y", "scale_x", "high", "middle", "low", "threshold"), "fp32")
    for dtype in ("fp32", "fp16", "bf16"):
        types = {**numbers, "logits": f"*{dtype}", "found": "*i32"}
        compile_kernel(measure_kernel, types, {"ROWS": 256, "BLOCK": 64}, aligned=False, num_warps=1)
        types = {**numbers, "logits": f"*{dtype}", "counts": "*i32", "ends": "*i64", "edges": "*i32"}
        for write in (False, True):
            compile_kernel(edges_kernel, types, {"WRITE": write, "BLOCK": 64}, aligned=False, num_warps=1)
    types = {**numbers, "found": "*i32", "boxes": "*i64", "n": "i32"}
    compile_kernel(box_kernel, types, {"BLOCK": 128}, aligned=False)
    for launches, architecture, split in ((HOPPER, 90, True), (HOPPER, 90, False), (SAFE, 80, True), (SAFE, 89, False)):
        compile_products(launches, architecture, split)


def parts_of(launch: Mapping[str, Any]) -> dict[str, Any]:
    """What is compiled in, and how."""
    constants = {name: value for name, value in launch.items() if name.isupper()}
    return {"constants": constants, **{name: value for name, value in launch.items() if not name.isupper()}}


def check(binary: Any, architecture: int = 90) -> None:
    shared, name = binary.metadata.shared, binary.metadata.name
    assert shared <= SHARED_MEMORY[architecture], f"{name}: {shared} bytes for {architecture}"


def compile_products(launches: Launches, architecture: int, split: bool) -> None:
    """What `--fast` launches, or with furious where products are not `split`, for the sizes of the large model."""

    def compile_for(kernel: triton.JITFunction, types: dict[str, str], launch: Mapping[str, Any]) -> None:
        binary = compile_kernel(kernel, types, architecture=architecture, **parts_of(launch))
        check(binary, architecture)
        if launches is SAFE:
            assert binary.metadata.shared <= launch_configs.SHARED_MEMORY[split]

    operands = ("keys", "scores", "folded", "values", "updated", "q", "k", "v", "out")
    floats = (*operands, "gain", "bias", "shift", "context", "most", "total")
    floats += ("hyper", "children", "grandchildren", "logits")
    types = dict.fromkeys(floats, "*fp32") | {"eps": "fp32"}
    numbers = ("points", "heads", "queries", "width")
    numbers += tuple(f"{tensor}_{part}" for tensor in "qkv" for part in ("image", "row", "head"))
    types |= dict.fromkeys(numbers, "i32")
    if not split:
        types |= dict.fromkeys(operands, "*fp16")
    shape = {"PIXELS": 4096, "TOKENS": 8, "SPLIT": split}
    epsilon = {"EPS": 1e-5}
    names = ("update_first", "update_second", "read", "upscale")
    first, second, read, upscale = (getattr(launches, name if split else f"half_{name}") for name in names)
    vectors = dict.fromkeys(("queries", "positions", "heads"), types["keys"])
    compile_for(update_first_kernel, types | vectors, {**shape, **epsilon, **first})
    compile_for(update_second_kernel, types, {**shape, **epsilon, **second})
    compile_for(read_kernel, types | vectors, {**shape, **read})
    shape = {"SCALE": 72**-0.5, "WIDE": 128, "SPLIT": split}
    for keys, launch in ((16, launches.small_attention), (4096, launches.attention)):
        compile_for(attention.attention_kernel, types, {"KEYS": keys, **shape, **launch})
    rows = {"x": "*fp32", "parts": "*fp16", "count": "i32", "width": "i32"}
    compile_for(fp16x3.split_rows_kernel, rows, fp16x3.LAUNCH)
    types |= dict.fromkeys(("first", "first_low", "second", "second_low"), "*fp16")
    if not split:
        types |= dict.fromkeys(("children", "grandchildren"), "*fp16")
    types |= {"points": "*i64", "masks": "*i64", "count": "i32"}
    compile_for(upscale_kernel, types, {"SIDE": 64, "SPLIT": split, **upscale})


if __name__ == "__main__":
    main()
