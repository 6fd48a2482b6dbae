"""Images that are segmented side by side, by threads that share encoder and decoder."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from helpers import CPU, DEVICE, assert_all_but_equal, drawn_image, photograph, wait_until

from sam2_amg.network.encoder import ImageFeatures
from sam2_amg.pipeline.base import Generator
from sam2_amg.pipeline.generator import MaskGenerator
from sam2_amg.pipeline.streams import PerThreadStream, StreamOrderedLock, capture_stream


def test_one_thread_at_a_time_holds_the_lock() -> None:
    lock, inside, most = StreamOrderedLock(DEVICE), 0, 0

    def visit(_: int) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
            inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(400)))
    assert (inside, most) == (0, 1)


def test_the_lock_is_released_after_a_failure() -> None:
    lock = StreamOrderedLock(DEVICE)
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    with lock:
        waiting = threading.Thread(target=lock.__enter__, daemon=True)
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
    waiting.join(30)
    assert not waiting.is_alive()


@pytest.mark.gpu
def test_work_under_the_lock_waits_for_the_work_before_it() -> None:
    """Each thread adds 1 to what lies where all have it, in a stream of its own, after much other work."""
    lock, stream = StreamOrderedLock(DEVICE), PerThreadStream(DEVICE)
    shared = torch.zeros(1 << 20, device=DEVICE)
    streams = set()

    def add(_: int) -> None:
        with stream(), lock:
            streams.add(torch.cuda.current_stream().cuda_stream)
            before = shared.clone()
            torch.cuda._sleep(2_000_000)
            shared.copy_(before + 1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(40)))
    torch.cuda.synchronize()
    assert (shared == 40).all()
    assert len(streams) > 1
    assert torch.cuda.default_stream().cuda_stream not in streams


@pytest.mark.gpu
def test_no_thread_has_a_stream_that_graphs_were_captured_in() -> None:
    captured = {capture_stream().cuda_stream for _ in range(2)}

    def own(_: int) -> int:
        stream = PerThreadStream(DEVICE).stream
        assert stream is not None
        return stream.cuda_stream

    assert captured.isdisjoint(map(own, range(70)))  # torch deals out 32 in turn


def test_a_cpu_has_no_streams() -> None:
    with PerThreadStream(CPU)():
        assert torch.ones(2).sum() == 2


def test_images_side_by_side_are_segmented_as_alone(compiled: Generator) -> None:
    """More threads than the server has, on images of several sizes; some encoded beforehand."""
    assert isinstance(compiled, MaskGenerator)
    assert compiled.workers == (2 if DEVICE.type == "cuda" else 1)
    if DEVICE.type == "cpu":
        config = replace(compiled.config, points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.0)
        compiled = MaskGenerator(compiled.stages, config, compiled.image_size, compiled.device)
    images = [
        photograph("dog"),
        drawn_image(17, 900),
        photograph("groceries"),
        drawn_image(40, 60),
        drawn_image(900, 17) if DEVICE.type == "cpu" else photograph("truck"),
    ]
    alone = [compiled.generate(image) for image in images]
    assert all(alone)
    begin = threading.Barrier(3)

    def segment(index: int) -> None:
        if index < 3:
            begin.wait(60)
        image, twin = images[index % 5], alone[index % 5]
        features = compiled.encode([image])[0] if index % 2 else None
        assert_all_but_equal(compiled.segment(image, features)(), twin)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(segment, range(8 if DEVICE.type == "cpu" else 60)))


def test_one_image_is_encoded_while_another_is_decoded(compiled: Generator) -> None:
    """By an encoder that overwrites what it gave before, as graphs do."""
    assert isinstance(compiled, MaskGenerator)
    stages, second_encoded, in_decoder = compiled.stages, threading.Event(), threading.Event()
    outputs: list[ImageFeatures] = []

    def encode(pixels: torch.Tensor) -> ImageFeatures:
        features = stages.encode(pixels)
        if not outputs:
            outputs.append(features.clone())
            return outputs[0]
        outputs[0].image_embedding.copy_(features.image_embedding)
        for static, tensor in zip(outputs[0].high_res_features, features.high_res_features, strict=True):
            static.copy_(tensor)
        second_encoded.set()
        return outputs[0]

    class Patient:
        """The decoder, in which the first image waits for the second one to be encoded."""

        at_once, attend, predict_masks = stages.decoder.at_once, stages.decoder.attend, stages.decoder.predict_masks

        def prepare(self, features: ImageFeatures) -> object:
            in_decoder.set()
            assert second_encoded.wait(60)
            return stages.decoder.prepare(features)

    config = replace(compiled.config, points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    patient = replace(stages, encode=encode, decoder=Patient())
    generator = MaskGenerator(patient, config, compiled.image_size, compiled.device)
    images = drawn_image(40, 60), drawn_image(17, 90)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(generator.generate, images[0])
        assert in_decoder.wait(60)
        answers = [each.result(120) for each in (first, pool.submit(generator.generate, images[1]))]
    alone = MaskGenerator(stages, config, compiled.image_size, compiled.device)
    assert answers == [alone.generate(image) for image in images]


def test_a_failure_in_the_network_leaves_it_to_others(compiled: Generator) -> None:
    image = drawn_image(40, 60)
    expected = compiled.generate(image)
    with pytest.raises(AttributeError):
        compiled.segment(image, "no features")
    answers: list[object] = []
    other = threading.Thread(target=lambda: answers.append(compiled.generate(image)), daemon=True)
    other.start()
    wait_until(lambda: answers != [])
    assert answers == [expected]
