"""Compiles every kernel for Hopper, without a GPU. Run by test_kernels.py in a process that does not interpret."""

from __future__ import annotations

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sam2_amg.kernels import attention, split_rows
from sam2_amg.kernels.image_attention import READ_LAUNCH, UPDATE_LAUNCH, read_kernel, update_kernel
from sam2_amg.kernels.image_side import FIRST_LAUNCH, SECOND_LAUNCH, first_kernel, second_kernel
from sam2_amg.kernels.measure import measure_kernel
from sam2_amg.kernels.rle import edges_kernel
from sam2_amg.kernels.upscale import LAUNCH, upscale_kernel

SHARED_MEMORY = 227 * 1024  # bytes that a program may have on Hopper
HOPPER = GPUTarget("cuda", 90, 32)


def compile_kernel(
    kernel: triton.JITFunction,
    types: dict[str, str],
    constants: dict[str, object],
    aligned: bool = True,
    **options: int,
) -> Any:
    """The binary of a kernel for arguments of these types; `aligned` where every pointer is, to 16 bytes."""
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    pointers = [i for i, kind in enumerate(signature.values()) if kind.startswith("*")]
    hints = {(i,): [["tt.divisibility", 16]] for i in pointers} if aligned else {}
    return triton.compile(ASTSource(kernel, signature, constants, hints), target=HOPPER, options=options)


def main() -> None:
    numbers = dict.fromkeys(("h", "w", "height", "width", "crop_height", "crop_width", "x0", "y0"), "i32")
    numbers |= dict.fromkeys(("scale_y", "scale_x", "high", "middle", "low", "threshold"), "fp32")
    for dtype in ("fp32", "fp16", "bf16"):
        types = {**numbers, "logits": f"*{dtype}", "found": "*i32"}
        compile_kernel(measure_kernel, types, {"ROWS": 128, "BLOCK": 128}, aligned=False)
        types = {**numbers, "logits": f"*{dtype}", "counts": "*i32", "ends": "*i64", "edges": "*i32"}
        for write in (False, True):
            compile_kernel(edges_kernel, types, {"WRITE": write, "BLOCK": 64}, aligned=False)
    compile_image_side()
    compile_split_products()


def compile_image_side() -> None:
    halves = ("keys", "queries", "told", "values", "positions", "asking", "folded")
    halves += ("positions_2", "told_2", "folded_2", "values_2")
    types = dict.fromkeys(halves, "*fp16") | dict.fromkeys(("context", "gain", "shift_2"), "*fp32")
    types |= {"eps": "fp32", "eps_2": "fp32"}
    shape = {"PIXELS": 4096, "TOKENS": 8, "PRECISION": "tf32"}
    for kernel, launch in ((first_kernel, FIRST_LAUNCH), (second_kernel, SECOND_LAUNCH)):
        options = {name: value for name, value in launch.items() if name != "BLOCK"}
        check(compile_kernel(kernel, types, {**shape, "BLOCK": launch["BLOCK"]}, **options))


def parts_of(launch: dict[str, Any]) -> dict[str, Any]:
    """What is compiled in, and how."""
    constants = {name: value for name, value in launch.items() if name.isupper()}
    return {"constants": constants, **{name: value for name, value in launch.items() if not name.isupper()}}


def check(binary: Any) -> None:
    assert binary.metadata.shared <= SHARED_MEMORY, f"{binary.metadata.name}: {binary.metadata.shared} bytes"


def compile_split_products() -> None:
    """What `--fast` launches, for the sizes of the large model."""
    floats = ("keys", "scores", "folded", "values", "gain", "bias", "updated", "context", "most", "total")
    floats += ("hyper", "children", "grandchildren", "logits", "q", "k", "v", "out")
    types = dict.fromkeys(floats, "*fp32") | dict.fromkeys(("eps", "scale"), "fp32")
    numbers = ("key_stride", "points", "heads", "queries", "width")
    numbers += tuple(f"{tensor}_{part}" for tensor in "qkv" for part in ("image", "row", "head"))
    types |= dict.fromkeys(numbers, "i32")
    halves = ("keys", "scores", "folded", "values", "updated", "q", "k", "v", "out")
    for split in (True, False):
        if not split:  # what `--fast --furious` launches
            types |= dict.fromkeys(halves, "*fp16")
        shape = {"PIXELS": 4096, "TOKENS": 8, "SPLIT": split}
        for ask in (False, True):
            check(compile_kernel(update_kernel, types, **parts_of({**shape, "ASK": ask, **UPDATE_LAUNCH})))
        check(compile_kernel(read_kernel, types, **parts_of({**shape, **READ_LAUNCH})))
        shape = {"WIDE": 128, "SPLIT": split}
        for keys, launch in ((16, attention.SMALL_LAUNCH), (4096, attention.LAUNCH)):
            check(compile_kernel(attention.attention_kernel, types, **parts_of({"KEYS": keys, **shape, **launch})))
    rows = {"x": "*fp32", "parts": "*fp16", "count": "i32", "width": "i32"}
    check(compile_kernel(split_rows.split_rows_kernel, rows, **parts_of(split_rows.LAUNCH)))
    types |= {"keys": "*fp16", "first": "*fp16", "second": "*fp16", "points": "*i64", "rows": "*i64"}
    check(compile_kernel(upscale_kernel, types, **parts_of({"SIDE": 64, **LAUNCH})))


if __name__ == "__main__":
    main()
