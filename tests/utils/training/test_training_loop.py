"""The training loop with the learners of stage 1: exact resumption, bad losses, a full disk, several processes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.training.motion_learner import MotionLearner
from models.training.motion_training_config import MotionTrainingConfig
from tests.helpers.motion_world import SMALL, train, weights_of, write_config, write_world
from tests.helpers.training_data import read_log
from utils.core.config import load_config
from utils.core.errors import BadInput, StageFailure
from utils.training.learner import float32_accelerator
from utils.training.training_loop import Budget, peak_memory, writing

ROOT = Path(__file__).resolve().parents[3]
PITCH = {"audio_type": "mfcc", "use_pitch": True, "use_mouth_amp_embed": True, "cond_channels": 16, "sizes": SMALL}
PLAIN = PITCH | {"use_pitch": False, "use_mouth_amp_embed": False}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_world(tmp_path)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("network", [PLAIN, PITCH], ids=["plain", "pitch"])
def test_twenty_steps_are_ten_and_ten(world: Path, network: dict[str, object]) -> None:
    """Bit for bit: weights, moving average, optimizer and logged losses."""
    often = {"network": network, "max_steps": 20, "checkpoint_interval": 10, "validation_interval": 10}
    average = {"optimizer": {"warmup_steps": 2, "average_decay": 0.9}}
    train(write_config(world, "whole", **often, **average))
    parts = write_config(world, "parts", **often, **average)
    train(parts, "max_steps=10")
    train(parts)
    whole, resumed = (torch.load(world / name / "last.pt", weights_only=True) for name in ("whole", "parts"))
    assert whole["step"] == resumed["step"] == 20
    assert same(whole["network"], resumed["network"])
    assert same(whole["average"], resumed["average"])
    for moments, others in zip(
        whole["optimizer"]["state"].values(), resumed["optimizer"]["state"].values(), strict=True
    ):
        assert same(moments, others)
    assert same(weights_of(world, "whole", "best.pt"), weights_of(world, "parts", "best.pt"))
    losses = [
        [line["total"] for line in read_log(world / name) if line["kind"] == "train"] for name in ("whole", "parts")
    ]
    assert len(losses[0]) == 10
    assert losses[0] == losses[1]


def test_twenty_steps_of_the_sync_expert_are_ten_and_ten(world: Path) -> None:
    train(write_config(world, "whole"), "--task", "sync", "sync.max_steps=20")
    parts = write_config(world, "parts")
    train(parts, "--task", "sync", "sync.max_steps=10")
    train(parts, "--task", "sync", "sync.max_steps=20")
    assert same(weights_of(world, "whole_sync"), weights_of(world, "parts_sync"))


def test_the_log_holds_speed_memory_and_validation(world: Path) -> None:
    train(write_config(world))
    lines = read_log(world / "out")
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 2), ("train", 4), ("validation", 4)]
    assert lines[0]["samples_per_s"] > 0
    assert lines[0]["memory_gib"] > 0
    assert {"total", "kl", "landmarks", "lr"} <= lines[0].keys()
    assert {"score", "lip_error/unheard", "lip_error_mean_motion/all", "lip_error_other_sound/all"} <= lines[2].keys()


@pytest.mark.parametrize("override", ["network.sizes.hidden=8", "network.use_pitch=true"])
def test_another_network_in_the_output_folder_is_refused(world: Path, override: str) -> None:
    config = write_config(world)
    train(config, "max_steps=2")
    with pytest.raises(BadInput, match=r"training of another network.*last\.pt.*other network"):
        train(config, override)


def test_a_loss_that_is_not_finite_stops_the_training(world: Path) -> None:
    """One clip has a coefficient that no float32 square holds: the first batch with it is named, the state before it
    is kept, and without the clip the training resumes from it."""
    data = {"validation_clips": ["unheard"], "window_frames": 32, "batch_size": 4}
    config = write_config(world, augmentation={}, data=data, max_steps=40)
    coefficients = np.load(world / "data" / "c" / "coeffs.npy")
    train(config, "max_steps=2")
    before = weights_of(world)
    spoilt = coefficients.copy()
    spoilt[60, 81] = 1e30
    np.save(world / "data" / "c" / "coeffs.npy", spoilt)
    with pytest.raises(StageFailure, match=r"not finite at step \d+, batch \d+ \(.*last\.pt holds the state before it"):
        train(config)
    record = json.loads((world / "out" / "bad_batch.json").read_text())
    assert any(name.startswith("c/") for name in record["items"])
    state = torch.load(world / "out" / "last.pt", weights_only=True)
    assert state["step"] == record["step"] == record["batch"]
    assert all(bool(value.isfinite().all()) for value in state["network"].values())
    if record["step"] == 2:
        assert same(state["network"], before)
    np.save(world / "data" / "c" / "coeffs.npy", coefficients)
    train(config)
    assert torch.load(world / "out" / "last.pt", weights_only=True)["step"] == 40


def test_weights_that_are_not_finite_are_not_saved(world: Path) -> None:
    config = write_config(world, augmentation={}, max_steps=40, optimizer={"learning_rate": 1e20, "warmup_steps": 0})
    with pytest.raises(StageFailure, match=r"last\.pt is as it was, because the weights are not finite|holds"):
        train(config, "checkpoint_interval=100")
    path = world / "out" / "last.pt"
    assert not path.exists() or all(bool(value.isfinite().all()) for value in weights_of(world).values())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(world: Path, monkeypatch) -> None:
    """The checkpoint is written to /dev/full; the one before it stays."""
    config = write_config(world)
    train(config, "max_steps=2")
    before = (world / "out" / "last.pt").read_bytes()
    monkeypatch.setattr("utils.weights.checkpoints.atomic_path", lambda _: _Full())
    expected = r"cannot write .*best\.pt: .*the one before it is intact; check the free space"
    with pytest.raises(StageFailure, match=expected):
        train(config, "max_steps=3", "data.validation_clips=[]")
    assert (world / "out" / "last.pt").read_bytes() == before


class _Full:
    def __enter__(self) -> Path:
        return Path("/dev/full")

    def __exit__(self, *_: object) -> None:
        return None


def launch(config: Path, n_processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    launcher = ["accelerate.commands.launch", "--config_file", "config/accelerate_config.yaml"]
    if n_processes > 1:  # accelerate starts several processes on GPUs only
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        launcher = ["torch.distributed.run", "--nproc_per_node", str(n_processes), "--master_port", port]
    script = ["train_audio2motion.py", "--config", str(config), "--gpu_id", "-1", *arguments]
    command = [sys.executable, "-m", *launcher, *script]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("losses", [{}, {"prior_expression": 0.5, "prior_landmarks": 0.5}], ids=["reference", "prior"])
def test_two_processes_average_their_gradients(world: Path, losses: dict[str, float]) -> None:
    """Adam's first moment after a step of two processes is a tenth of the mean gradient of batches 0 and 1."""
    config = write_config(world, augmentation={}, loss=losses)
    result = launch(config, 2, "max_steps=1")
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("step 1 (100 %)  total") == 1
    apart = [one_step(config, number) for number in (0, 1)]
    mean = [(first + second) / 2 for first, second in zip(*apart, strict=True)]
    norm = torch.stack([gradient.norm() for gradient in mean]).norm()
    state = torch.load(world / "out" / "last.pt", weights_only=True)["optimizer"]["state"]
    assert len(state) == len(mean)
    for moments, gradient in zip(state.values(), mean, strict=True):
        expected = 0.1 * gradient / max(1.0, norm)
        torch.testing.assert_close(moments["exp_avg"], expected, rtol=1e-3, atol=1e-6 * float(norm))


def one_step(config: Path, number: int) -> list[torch.Tensor]:
    learner = MotionLearner(load_config(MotionTrainingConfig, config), float32_accelerator(-1))
    learner.losses(learner.batch(number), number)["total"].backward()
    return [parameter.grad for parameter in learner.network.parameters() if parameter.grad is not None]


def test_one_process_under_accelerate_equals_none(world: Path) -> None:
    config = write_config(world)
    result = launch(config, 1, "max_steps=2")
    assert result.returncode == 0, result.stderr[-2000:]
    launched = weights_of(world)
    shutil.rmtree(world / "out")
    train(config, "max_steps=2")
    for key, value in weights_of(world).items():
        torch.testing.assert_close(launched[key], value)


def test_budget_of_steps_and_minutes():
    assert Budget(10).spent(5, seconds=1e9) == 0.5
    assert Budget(10, max_minutes=2).spent(1, seconds=60) == 0.5
    assert Budget(10, max_minutes=2).spent(9, seconds=60) == 0.9
    assert Budget(10, max_minutes=2).spent(11, seconds=600) == 1.0


def test_peak_memory_counts_bytes():
    before = peak_memory(torch.device("cpu"))
    held = torch.ones(64 << 20, dtype=torch.uint8)
    assert peak_memory(torch.device("cpu")) >= before and before > 16 << 20
    assert held.sum() == 64 << 20


def test_failed_write_is_one_line(tmp_path):
    with pytest.raises(StageFailure, match=r"cannot write .*last.pt: disk full; the one before it is intact"):
        (tmp_path / "last.pt").touch()
        with writing(tmp_path / "last.pt"):
            raise RuntimeError("disk full\nand many more lines")
