"""Pixels as the model wants them: sam2's, on a CPU and on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import CPU, DEVICE, drawn_image
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor

from sam2_amg.pipeline.pinned_memory import begins_pinned, empty_pinned
from sam2_amg.pipeline.preprocess import Preprocess, PreprocessOnDevice, Upload


@pytest.mark.parametrize(
    "image", [drawn_image(40, 60), drawn_image(1, 1), drawn_image(700, 1100)], ids=["small", "pixel", "large"]
)
def test_preprocess_equals_sam2(demo_model: SAM2Base, image: NDArray) -> None:
    predictor = SAM2ImagePredictor(demo_model)
    assert torch.equal(Preprocess(512, CPU)(image)[0], predictor._transforms(image))


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (534, 800), (1200, 64), (2000, 1700)], ids=str)
def test_preprocessing_on_the_device_agrees(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = Preprocess(512, CPU)(image)
    found = PreprocessOnDevice(512, DEVICE)(image)
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_uploads_do_not_overwrite_each_other() -> None:
    """They share pinned memory, which grows; the copies to the device are not waited for."""
    upload = Upload(torch.device("cuda"))
    images = [drawn_image(*size, seed) for seed, size in enumerate([(40, 60), (900, 1300), (30, 20), (901, 1300)])]
    uploaded = [upload(image) for image in images]
    for image, pixels in zip(images, uploaded, strict=True):
        assert np.array_equal(pixels.cpu().numpy(), image)


@pytest.mark.gpu
def test_what_lies_in_pinned_memory_is_not_copied_on_the_host() -> None:
    upload = Upload(torch.device("cuda"))
    images = [drawn_image(900, 1300, seed) for seed in range(20)]
    torch.cuda.init()
    torch.cuda._sleep(1_000_000_000)  # half a second, in which copies are under way while their memory is let go
    uploaded = []
    for image in images:
        pinned = empty_pinned(image.nbytes).reshape(image.shape)
        assert begins_pinned(pinned)
        np.copyto(pinned, image)
        uploaded.append(upload(pinned))
    assert upload._staged.numel() == 0
    for image, pixels in zip(images, uploaded, strict=True):
        assert np.array_equal(pixels.cpu().numpy(), image)


@pytest.mark.gpu
def test_what_begins_later_is_copied_on_the_host() -> None:
    """torch does not know what is copied from there: its memory might be given away too early."""
    upload = Upload(torch.device("cuda"))
    torch.cuda.init()
    pinned = empty_pinned(900 * 3).reshape(30, 30, 3)
    pinned[:] = drawn_image(30, 30)
    for view in (pinned[1:], pinned[:, 1:]):
        assert not begins_pinned(view)
        assert np.array_equal(upload(view).cpu().numpy(), view)
    assert begins_pinned(pinned[:7])
    assert upload._staged.numel() == 29 * 30 * 3


@pytest.mark.gpu
def test_few_photographs_are_pinned_at_a_time() -> None:
    torch.cuda.init()
    held = [empty_pinned(1 << 20)[:100] for _ in range(6)]
    assert [begins_pinned(array) for array in held] == [True] * 4 + [False] * 2
    assert [torch.from_numpy(array).is_pinned() for array in held] == [True] * 4 + [False] * 2
    del held[0]
    assert begins_pinned(empty_pinned(10))
    assert not begins_pinned(empty_pinned((32 << 20) + 1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="for hosts without a GPU")
def test_without_cuda_nothing_is_pinned() -> None:
    array = empty_pinned(100)
    assert array.shape == (100,)
    assert array.dtype == np.uint8
    assert array.flags.owndata
    assert not begins_pinned(array)
