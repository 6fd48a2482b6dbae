"""The demo model in training: built at any resolution, called with many points an image, written as it ships."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam2_amg.network.checkpoints import build_model, fill_position_embeddings, image_size_of, load_model
from sam2_amg.network.decoder import embed_points
from sam2_amg.network.encoder import ImageFeatures
from sam2_amg.network.model_types import MODEL_TYPES

MASKS = 3  # a point's masks; the decoder's fourth, for unambiguous prompts, is not trained
# Masks ship as the signs of logits that are this many times as steep as log odds, so that they pass the stability test.
SHIPPED_TEMPERATURE = 20.0
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# what only video needs, mask prompts, and the mask for unambiguous prompts
_UNUSED = (
    "memory_",
    "obj_ptr",
    "mask_downsample",
    "maskmem",
    "no_mem_pos",
    "no_obj",
    "sam_prompt_encoder.mask_downscaling",
)


def build(resolution: int) -> SAM2Base:
    """The demo architecture for square inputs of `resolution` pixels, freshly initialised, on the CPU.

    Windows of the image encoder, but the first, to which weights belong, shrink with the input.
    """
    kind = MODEL_TYPES["demo"]
    first, *windows = build_model(kind).image_encoder.trunk.window_spec
    windows = [max(size * resolution // image_size_of(kind), 2) for size in windows]  # queries are pooled 2 x 2
    overrides = [f"model.image_size={resolution}", f"++model.image_encoder.trunk.window_spec={[first, *windows]}"]
    model = build_model(kind, [override.replace(" ", "") for override in overrides])
    fill_position_embeddings(model)
    return model


def scale_logits(state: dict[str, Tensor], factor: float) -> None:
    """Multiplies the mask logits of a model by `factor`, in place; their signs, the masks, stay."""
    for name, value in state.items():
        if "output_hypernetworks_mlps" in name and ".layers.2." in name:
            value.mul_(factor)


def decode(model: SAM2Base, features: ImageFeatures, points: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B * P, 3, S/4, S/4] and predicted IoUs [B * P, 3], float32, of one foreground point each, [B, P, 2].

    What sam2's decoder does, but the last product, whose gradients overflow in bfloat16, is float32.
    """
    batch, prompts = points.shape[:2]
    decoder, count = model.sam_mask_decoder, batch * prompts
    sparse, dense = embed_points(model, points.reshape(count, 2))
    own = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own.expand(count, -1, -1), sparse], 1)  # [B * P, 8, 256]
    embedding = features.image_embedding.repeat_interleave(prompts, 0) + dense  # [B * P, 256, S/16, S/16]
    side = embedding.shape[-1]
    place = model.sam_prompt_encoder.get_dense_pe().expand(count, -1, -1, -1)
    hidden, pixels = decoder.transformer(embedding, place, tokens)
    pixels = pixels.transpose(1, 2).unflatten(2, (side, side))
    widen_8, norm, act_8, widen_4, act_4 = decoder.output_upscaling
    fine_4, fine_8 = (x.repeat_interleave(prompts, 0) for x in features.high_res_features)
    upscaled = act_4(widen_4(act_8(norm(widen_8(pixels) + fine_8))) + fine_4)  # [B * P, 32, S/4, S/4]
    heads = [decoder.output_hypernetworks_mlps[1 + i](hidden[:, 3 + i]) for i in range(MASKS)]
    with torch.autocast(points.device.type, enabled=False):
        logits = torch.stack(heads, 1).float() @ upscaled.float().flatten(2)
    iou = decoder.iou_prediction_head(hidden[:, 1])[:, 1:].float()
    return logits.unflatten(2, upscaled.shape[-2:]), iou


def normalise(images: Tensor) -> Tensor:
    """Images [B, 3, S, S] between 0 and 1, as the encoder wants them."""
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    return (images - mean) / std


def load_trained(path: Path, temperature: float, wanted: float, device: torch.device) -> SAM2Base:
    """The model of a file in the form that ships, its logits brought from one temperature to another."""
    model = load_model(path, MODEL_TYPES["demo"], device)
    scale_logits(model.state_dict(), wanted / temperature)
    return model


def export(state: Mapping[str, Tensor], temperature: float, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes the file that ships: every key of the model, half precision; zeros for what only video needs.

    Logits, trained at `temperature`, are brought to that of all files that ship. Another `dtype` is for what does not
    ship, but is read again.
    """
    shipped = {n: torch.zeros_like(v) if n.startswith(_UNUSED) else v.detach().clone() for n, v in state.items()}
    scale_logits(shipped, SHIPPED_TEMPERATURE / temperature)
    rounded = {n: value.to("cpu", dtype if value.is_floating_point() else None) for n, value in shipped.items()}
    temporary = path.with_suffix(".part")
    torch.save({"model": rounded}, temporary)
    temporary.rename(path)
