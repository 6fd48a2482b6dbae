"""Training: its steps and batches, and the processes that train together."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import CPU, SHIPPED
from telling_ranks import tell_the_others
from torch.distributed.launcher.api import LaunchConfig, launch_agent

from sam2_amg.network.checkpoints import load_model
from sam2_amg.network.model_types import MODEL_TYPES
from training import train
from training.batch import Batch, Pictures
from training.batches import Batches
from training.pool import Pool
from training.ranks import Ranks
from training.run import TrainConfig, resume
from training.scenes.randomness import Draw
from training.schedule import SCHEDULE, learning_rate


def test_learning_rate_warms_up_and_falls():
    stage = replace(SCHEDULE[1], steps=6000, warm_up=300, cycles=3)
    steps = (0, 150, 300, 1000, 1999, 2000, 6000)
    rates = [learning_rate(stage, step, step / stage.steps) for step in steps]
    assert rates[0] < rates[1] < rates[2]
    assert rates[2] > rates[3] > rates[4] > 0
    assert rates[2] > rates[5] > rates[3]  # the next cycle begins a little lower
    assert rates[4] > rates[6] > 0


@pytest.mark.parametrize("resolution", [64, pytest.param(None, marks=pytest.mark.slow)])
def test_trains_two_steps_on_cpu_and_resumes(resolution, monkeypatch, tmp_path):
    schedule = SCHEDULE
    if resolution:
        schedule = tuple(replace(stage, resolution=resolution, textures=14) for stage in SCHEDULE)
        monkeypatch.setattr(train, "SCHEDULE", schedule)
    arguments = ["--directory", str(tmp_path), "--device", "cpu", "--eager", "--photograph_share", "0"]
    arguments += ["--batch", "1", "--prompts", "2", "--minutes", "5"]
    train.main([*arguments, "--steps", "1", "0", "0"])
    train.main([*arguments, "--steps", "1", "0", "1"])
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["stage"] for entry in log] == ["start", "scenes"]
    assert all(np.isfinite(entry["total"]) for entry in log)
    load_model(tmp_path / SHIPPED.name, MODEL_TYPES["demo"], CPU)
    # another run begins with what this one ends with
    weights, auxiliary = tmp_path / SHIPPED.name, tmp_path / "auxiliary.pt"
    config = TrainConfig(tmp_path / "another", CPU, schedule, 1.0, False, 1, weights, auxiliary=auxiliary)
    begun, ended = resume(config).auxiliary.state_dict(), torch.load(auxiliary, weights_only=True)
    assert all(torch.equal(begun[name], value) for name, value in ended.items())


def test_scenes_are_shown_several_times_with_other_prompts():
    stage = replace(SCHEDULE[0], batch=2, prompts=8, resolution=64, textures=14, reuse=2, compared=16, pool=3)
    batches = Batches(stage, 0, CPU, compiled=False, photographs=None, ranks=Ranks())
    first, second, *rest = (batches.draw(step) for step in range(7))
    colours = [{image.sum((1, 2)).round(decimals=2).sum().tolist() for image in batch.images} for batch in rest]
    assert not torch.equal(first.pixels, second.pixels)
    assert first.compared.shape == (2, 16)
    assert len(set.union(*colours)) > 2  # later ones come from more than one drawing


def test_things_stand_before_photographs_and_are_the_truth(patterned):
    stage = replace(
        SCHEDULE[1], batch=5, resolution=64, textures=14, photograph_share=0.2, rooms=0.2, before_photographs=0.7
    )
    batches = Batches(stage, 1, CPU, compiled=False, photographs=patterned, ranks=Ranks())
    levels = batches._draw_scenes(0).levels
    plain = Batches(replace(stage, before_photographs=0.0), 1, CPU, False, patterned, Ranks())._draw_scenes(0).levels
    known = levels[:, 3:] >= 0
    assert known[2:4].all()  # a flat scene and one in space
    assert not known[4].any()  # a photograph
    things = plain[:2, 5:] > stage.scenes.backgrounds
    assert 0 < things.float().mean() < 1
    assert known[:2].equal(things.expand(-1, 3, -1, -1))
    assert levels[:, 3:][known].equal(plain[:, 3:][known])
    pixels = torch.arange(64 * 64).expand(5, -1)
    batch = Batch(torch.zeros(5, 3, 64, 64), levels, pixels, pixels)
    assert batch.known().view(5, 64, 64).equal(levels[:, 3] >= 0)


def test_runs_of_different_seeds_and_processes_share_no_scene():
    stage, steps = replace(SCHEDULE[0], photograph_share=0.0), (0, 1, 49_999)
    seen = [
        Batches(stage, index, CPU, False, None, Ranks(rank, 2), seed)._seed(step)
        for index in range(3)
        for seed in range(10)
        for rank in range(2)
        for step in steps
    ]
    assert len(set(seen)) == len(seen)


def test_pool_keeps_the_newest_and_turns_labels_with_images():
    pool = Pool(4)
    image = torch.arange(64.0).view(8, 8) / 255
    for value in range(3):
        levels = (image * 255 + 100 * value).int().expand(2, 6, -1, -1)
        pool.add(Pictures(image.expand(2, 3, -1, -1), levels))
    picked = pool.pick(Draw(0, CPU), 4)
    assert sorted((picked.levels.amin((1, 2, 3)) // 100).tolist()) == [1, 1, 2, 2]
    grey = (picked.images[:, 0] * 255).round().int()
    assert torch.equal(grey, picked.levels[:, 0] % 100)
    assert any(not torch.equal(one, grey[0]) for one in grey)
    with pytest.raises(ValueError, match="the pool has 4 pictures, not 5"):
        pool.pick(Draw(0, CPU), 5)


@pytest.mark.slow
def test_processes_that_train_together_agree(tmp_path):
    launch_agent(LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0"), tell_the_others, [tmp_path])
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert seen == [[[0, 0, 0], [[0.5, 0.5], [1]], 5]] * 2
