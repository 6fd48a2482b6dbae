"""Compiles every kernel for Hopper, and with the safe configs for Ampere and Ada, without a GPU. Kernels that run
outside CUDA graphs must not be compiled anew for another value of an argument.

Run by test_compile_kernels.py in a process that does not interpret, for some of them or, with --all, for all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend
from triton.runtime.jit import create_function_from_signature
from uniform_registers import disassembled, instructions, read_before_written

from sam2_amg.kernels import fp16x3 as rows_kernel
from sam2_amg.kernels import launch_configs
from sam2_amg.kernels.attention import attention_kernel, tile_widths
from sam2_amg.kernels.fp16_linear import LAUNCH as FP16_LINEAR_LAUNCH
from sam2_amg.kernels.fp16_linear import fp16_linear_gelu_kernel
from sam2_amg.kernels.image_attention import read_kernel, update_first_kernel, update_second_kernel
from sam2_amg.kernels.launch_configs import HOPPER, SAFE, LaunchConfigs
from sam2_amg.kernels.layer_norm import LAUNCH as LAYER_NORM_LAUNCH
from sam2_amg.kernels.layer_norm import layer_norm_kernel
from sam2_amg.kernels.linear import launch_for, linear_kernel
from sam2_amg.kernels.mask_stats import box_kernel, mask_stats_kernel
from sam2_amg.kernels.position_scores import position_scores_kernel
from sam2_amg.kernels.residual_norm import LAUNCH as RESIDUAL_NORM_LAUNCH
from sam2_amg.kernels.residual_norm import residual_norm_kernel
from sam2_amg.kernels.rle import boundaries_kernel
from sam2_amg.kernels.upscale import upscale_kernel

FLOATS = ("scale_y", "scale_x", "high", "middle", "low", "threshold", "eps")
# of kernels outside CUDA graphs: pointers at the beginning of a tensor of torch's, which is aligned, and any others
POINTERS = ("keys", "hyper", "children", "grandchildren", "first", "first_low", "second", "second_low", "gain", "bias")
FREE_POINTERS = ("logits", "found", "boxes", "counts", "ends", "boundaries", "points", "masks")
OWN_POINTERS = {upscale_kernel: ("logits",), layer_norm_kernel: ("x", "added", "out")}  # aligned, too
STRIDES = tuple(f"{name}_{part}" for name in "qkv" for part in ("image", "row"))
SHARED_MEMORY = {90: 227 * 1024, 89: 99 * 1024, 80: 163 * 1024}  # bytes that a program may have, by architecture


def compile_kernel(
    kernel: triton.JITFunction,
    types: dict[str, str],
    constants: dict[str, object],
    aligned: bool = True,
    architecture: int = 90,
    **options: int,
) -> Any:
    """The binary of a kernel for arguments of these types. Pointers are multiples of 16 bytes where all are `aligned`,
    and strides of 16 numbers, as those of the models are."""
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    multiples = [i for i, (name, kind) in enumerate(signature.items()) if kind.startswith("*") or name in STRIDES]
    hints = {(i,): [["tt.divisibility", 16]] for i in multiples} if aligned else {}
    binary = triton.compile(
        ASTSource(kernel, signature, constants, hints), target=GPUTarget("cuda", architecture, 32), options=options
    )
    if "wgmma" in binary.asm["ptx"]:  # the fault was one of addresses that products of a warpgroup have
        faults = read_before_written(instructions(disassembled(binary.asm["cubin"])))
        assert not faults, f"{kernel.__name__} for {constants}: {faults}"
    return binary


def check_specialization(kernel: triton.JITFunction) -> None:
    """Triton compiles a variant for each specialization of the arguments: none may depend on a number or an address."""
    bind = create_function_from_signature(kernel.signature, kernel.params, make_backend(GPUTarget("cuda", 90, 32)))
    memory = torch.zeros(64, dtype=torch.uint8)
    aligned = (*POINTERS, *OWN_POINTERS.get(kernel, ()))
    found = set()
    for i, number in enumerate((0, 1, 2, 16, 17, 1 << 20)):
        values = dict.fromkeys(kernel.arg_names, number)
        values |= {name: memory[16 + i :] for name in FREE_POINTERS if name in values}
        values |= {name: memory for name in aligned if name in values}
        values |= {name: float(number) for name in FLOATS if name in values}
        values |= {name: 1 for name in kernel.arg_names if name.isupper()}
        found.add(str(bind(**values)[1]))
    assert len(found) == 1, f"{kernel.__name__}: {found}"


def main(everything: bool) -> None:
    """Without `everything`, of the safe configs only the kernel that takes the most shared memory, and nothing that no
    mode uses."""
    for kernel in (mask_stats_kernel, box_kernel, boundaries_kernel, upscale_kernel, layer_norm_kernel):
        check_specialization(kernel)
    numbers = dict.fromkeys(("h", "w", "height", "width", "crop_height", "crop_width", "x0", "y0", "rows"), "i32")
    numbers |= dict.fromkeys(FLOATS[:-1], "fp32")
    for dtype in ("fp32", "fp16", "bf16") if everything else ("fp32",):
        types = {**numbers, "logits": f"*{dtype}", "found": "*i32"}
        compile_kernel(mask_stats_kernel, types, {"ROWS": 256, "BLOCK": 64}, aligned=False, num_warps=1)
        types = {**numbers, "logits": f"*{dtype}", "counts": "*i32", "ends": "*i64", "boundaries": "*i32"}
        for write in (False, True):
            compile_kernel(boundaries_kernel, types, {"WRITE": write, "BLOCK": 64}, aligned=False, num_warps=1)
    types = {**numbers, "found": "*i32", "boxes": "*i64", "n": "i32"}
    compile_kernel(box_kernel, types, {"BLOCK": 128}, aligned=False)
    types = dict.fromkeys(("x", "added", "gain", "bias", "out"), "*fp32") | {"eps": "fp32", "count": "i32"}
    for channels, upscaling in ((64, True), (256, False)):  # of ao: children, and image tokens
        launch = parts_of(LAYER_NORM_LAUNCH)
        launch["constants"] |= {"CHANNELS": channels, "ADDED": upscaling, "GELU": upscaling}
        compile_kernel(layer_norm_kernel, types, **launch)
    for fp16x3, architecture in ((True, 80), (False, 89)):
        compile_products(HOPPER, 90, fp16x3, everything)
        compile_products(SAFE, architecture, fp16x3, everything)


def parts_of(launch: Mapping[str, Any]) -> dict[str, Any]:
    """What is compiled in, and how."""
    constants = {name: value for name, value in launch.items() if name.isupper()}
    return {"constants": constants, **{name: value for name, value in launch.items() if not name.isupper()}}


def check(binary: Any, architecture: int = 90) -> None:
    shared, name = binary.metadata.shared, binary.metadata.name
    assert shared <= SHARED_MEMORY[architecture], f"{name}: {shared} bytes for {architecture}"


def compile_products(configs: LaunchConfigs, architecture: int, fp16x3: bool, everything: bool) -> None:
    """What fast launches, or furious where products are not `fp16x3`, for the sizes of the large model."""
    largest = update_second_kernel if fp16x3 else upscale_kernel

    def compile_for(kernel: triton.JITFunction, types: dict[str, str], launch: Mapping[str, Any]) -> None:
        if configs is SAFE and kernel is not largest and not everything:
            return
        binary = compile_kernel(kernel, types, architecture=architecture, **parts_of(launch))
        check(binary, architecture)
        if configs is SAFE:
            assert binary.metadata.shared <= launch_configs.SHARED_MEMORY[fp16x3]

    operands = ("keys", "folded", "values", "updated", "q", "k", "v", "out")
    floats = (*operands, "centre", "gain", "bias", "after", "shift", "steps", "context", "most", "total")
    floats += ("hyper", "children", "grandchildren", "logits")
    types = dict.fromkeys(floats, "*fp32") | {"eps": "fp32"}
    types |= dict.fromkeys(("points", "heads", "queries", "width", *STRIDES), "i32")
    if not fp16x3:
        types |= dict.fromkeys(operands, "*fp16")
    shape = {"PIXELS": 4096, "TOKENS": 8, "FP16X3": fp16x3}
    epsilon = {"EPS": 1e-5}
    scores = {"scores": "*fp32" if fp16x3 else "*i16"}
    positions = {"positions": "*fp32", "heads": "*fp32", **scores}
    sizes = {"PIXELS": 4096, "TOKENS": 8, "INTEGERS": not fp16x3}
    compile_for(position_scores_kernel, types | positions, {**sizes, **configs.position_scores})
    names = ("update_first", "update_second", "read", "upscale")
    first, second, read, upscale = (getattr(configs, name if fp16x3 else f"fp16_{name}") for name in names)
    own = {"heads": types["keys"], **dict.fromkeys(("queries", "positions", "updated"), "*fp16")}
    compile_for(update_first_kernel, types | own, {**shape, **epsilon, **first})
    in_memory = {"keys": "*fp16"}  # image tokens of points
    compile_for(update_second_kernel, types | scores | in_memory, {**shape, **epsilon, **second})
    compile_for(read_kernel, types | own | in_memory, {**shape, **read})
    in_float32 = types | dict.fromkeys(("q", "k", "v", "out"), "*fp32")  # tokens of the decoder's first layer
    decoder = {**heads_of(16), "K_HEAD": 16 * 4096, "V_HEAD": 16 * 4096, "FP16X3": True, "KEYS": 4096}
    compile_for(attention_kernel, in_float32, {**decoder, **configs.attention})
    compile_attention(partial(compile_for, attention_kernel), configs, types, fp16x3, everything)
    rows = {"x": "*fp32", "bias": "*fp32", "parts": "*fp16", "count": "i32", "width": "i32"}
    compile_for(rows_kernel.fp16x3_rows_kernel, rows, {"SCALE": 0.5, "GELU": True, **rows_kernel.LAUNCH})
    if fp16x3:
        compile_for(rows_kernel.fp16_parts_kernel, rows, rows_kernel.LAUNCH)
    else:
        types_of_linear = {"x": "*fp16", "weight": "*fp16", "bias": "*fp32", "out": "*fp16", "rows": "i32"}
        for inputs, outputs in ((576, 2304), (144, 576))[: 2 if everything else 1]:
            sizes = {"INPUTS": inputs, "OUTPUTS": outputs, **FP16_LINEAR_LAUNCH}
            compile_for(fp16_linear_gelu_kernel, types_of_linear, sizes)
    compile_linear(compile_for, everything)
    compile_residual_norm(partial(compile_for, residual_norm_kernel), fp16x3, everything)
    types |= dict.fromkeys(("first", "first_low", "second", "second_low"), "*fp16")
    if not fp16x3:
        types |= dict.fromkeys(("children", "grandchildren"), "*fp16")
    types |= {"points": "*i64", "masks": "*i64", "count": "i32"}
    compile_for(upscale_kernel, types | in_memory, {"SIDE": 64, "FP16X3": fp16x3, **upscale})


def compile_attention(
    compile_for: Callable[..., None], configs: LaunchConfigs, types: dict[str, str], fp16x3: bool, everything: bool
) -> None:
    """The encoder's attention."""
    for width in (72, 96, 56)[: 3 if everything else 1]:  # of large, of tiny and small, of base plus
        shape = {**heads_of(width), "FP16X3": fp16x3}
        window = 64 if width == 72 else 49  # tokens of the last stage's windows
        for keys, launch in ((16, configs.small_attention), (window, configs.attention), (4096, configs.attention)):
            if fp16x3 or keys < 4096 or everything:  # furious leaves larger windows to torch
                compile_for(types, {"KEYS": keys, **shape, **launch})
        if not fp16x3:  # stages 1 and 2
            compile_for(types | {"out": "*fp32"}, {"KEYS": 64, **shape, **configs.attention})


def heads_of(width: int) -> dict[str, object]:
    """The constants of attention with heads of so many channels, which lie side by side."""
    wide, rest = tile_widths(width)
    strides = dict.fromkeys(("WIDTH", "Q_HEAD", "K_HEAD", "V_HEAD"), width)
    return {"SCALE": width**-0.5, "WIDE": wide, "REST": rest, **strides}


def compile_linear(compile_for: Callable[..., None], everything: bool) -> None:
    """The layers of short rows, which both modes have."""
    types = dict.fromkeys(("x", "bias"), "*fp32") | dict.fromkeys(("high", "low"), "*fp16") | {"rows": "i32"}
    forms = ("gelu", True, "*fp16"), ("relu", True, "*fp16"), ("gelu", False, "*fp16"), ("", False, "*fp32")
    sizes = (144, 576), (256, 2048), (128, 256), (144, 32), (576, 2304)  # encoder, prompt tokens, neck
    for inputs, outputs in sizes if everything else sizes[:1]:
        for activation, parts, out in forms if everything else forms[:1]:
            launch = {"SCALE": 2.0**-8, "INPUTS": inputs, "OUTPUTS": outputs, "PARTS": parts, **launch_for(outputs)}
            launch |= {"GELU": activation == "gelu", "RELU": activation == "relu"}
            compile_for(linear_kernel, types | {"out": out}, launch)


def compile_residual_norm(compile_for: Callable[..., None], fp16x3: bool, everything: bool) -> None:
    """The encoder's additions and norms: into windows, and out of them."""
    types = dict.fromkeys(("x", "added", "bias", "gain", "shift", "total"), "*fp32") | {"rows": "i32"}
    types["normed"] = "*fp32" if fp16x3 else "*fp16"
    sizes = (
        (576, 1024, 64, 0, 16),
        (576, 1024, 64, 16, 0),
        (144, 256, 256, 8, 0),
        (448, 512, 64, 0, 14),
        (1152, 2048, 32, 8, 8),
    )
    for channels, wide, side, source, target in sizes if everything else sizes[:1]:
        shape = {"SIDE": side, "CHANNELS": channels, "WIDE": wide, "FROM": source, "TO": target, "BIAS": side < 256}
        compile_for(types, {**shape, "SCALE": 2.0**-8, "EPS": 1e-6, **RESIDUAL_NORM_LAUNCH})


if __name__ == "__main__":
    main(everything="--all" in sys.argv[1:])
