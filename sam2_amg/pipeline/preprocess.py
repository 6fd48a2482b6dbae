"""Preprocessing: RGB -> the model's input."""

from __future__ import annotations

import threading

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sam2.utils.transforms import SAM2Transforms
from torch import Tensor

from sam2_amg.pipeline.pinned_memory import begins_pinned


class Preprocess:
    """RGB uint8 [H, W, 3] -> normalised float32 [1, 3, S, S] on the model's device, exactly as sam2's predictor does.

    sam2 resizes on the CPU with antialiasing; without antialiasing, masks shift visibly. Channels are resized one after
    the other, to the same bits, because a photograph as float32 takes 12 bytes a pixel, and its resize as many again.
    """

    def __init__(self, image_size: int, device: torch.device) -> None:
        self.transforms = SAM2Transforms(resolution=image_size, mask_threshold=0.0)
        self.resize, self.normalise = self.transforms.transforms
        self.device = device

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """The model's input for one image."""
        channels = [self.resize(self.transforms.to_tensor(image[:, :, i : i + 1])) for i in range(3)]  # [1, S, S] each
        return self.normalise(torch.cat(channels))[None].to(self.device)


class Upload:
    """Copies a photograph to a device; on a GPU asynchronously, from pinned memory. One that lies elsewhere is copied
    there first."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._lock = threading.Lock()
        self._staged = torch.empty(0, dtype=torch.uint8)
        self._copied: torch.cuda.Event | None = None

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """uint8 [H, W, 3] on the device."""
        if self.device.type != "cuda":
            return torch.from_numpy(np.ascontiguousarray(image)).to(self.device)
        if begins_pinned(image):
            return torch.from_numpy(image).to(self.device, non_blocking=True)
        with self._lock:
            if self._copied is not None:
                self._copied.synchronize()  # the previous image must have left the staging buffer
            if self._staged.numel() < image.size:
                self._staged = torch.empty(image.size, dtype=torch.uint8, pin_memory=True)
            staged = self._staged[: image.size].view(image.shape)
            np.copyto(staged.numpy(), image)  # on one thread: starting torch's threads takes longer than the copy
            uploaded = staged.to(self.device, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        return uploaded


class PreprocessOnDevice:
    """`Preprocess` computed on the device, which receives only uint8 pixels. Agrees with `Preprocess` to 1e-5.

    It resizes in float32 with PyTorch's antialiasing, as on the CPU. The resize is linear, so scaling can follow it.
    """

    def __init__(self, image_size: int, device: torch.device) -> None:
        transforms = SAM2Transforms(resolution=image_size, mask_threshold=0.0)
        self.size = (image_size, image_size)
        self.upload = Upload(device)
        mean, deviation = (torch.tensor(x, device=device).view(3, 1, 1) for x in (transforms.mean, transforms.std))
        self.scale, self.shift = 1 / (255 * deviation), -mean / deviation

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """The model's input for one image."""
        pixels = self.upload(image).permute(2, 0, 1)[None]  # [1, 3, H, W]
        pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)  # as interpolate would make them
        resized = F.interpolate(pixels, self.size, mode="bilinear", align_corners=False, antialias=True)
        return torch.addcmul(self.shift, resized, self.scale)
