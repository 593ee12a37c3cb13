"""Training of the sync expert and with it, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.lipsync.sync_expert import load_expert
from models.motion.audio2motion import Audio2MotionConfig
from models.training.motion_learner import MotionLearner, weighted_total
from models.training.motion_training_config import MotionTrainingConfig
from tests.helpers.motion_world import train, weights_of, write_config, write_world
from tests.helpers.training_data import read_log
from utils.core.config import load_config
from utils.core.errors import BadInput
from utils.training.learner import float32_accelerator
from utils.training.motion_losses import LossConfig

HEARS_MFCC = Audio2MotionConfig(audio_type="mfcc")
CPU = torch.device("cpu")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return write_world(tmp_path)


def test_it_learns_what_belongs_together(world: Path) -> None:
    """On a held-out clip the right sound scores higher more often than by chance, and the curve peaks at 0."""
    train(
        write_config(world),
        "--task",
        "sync",
        "sync.max_steps=120",
        "sync.validation_interval=120",
        "sync.batch_pairs=200",
    )
    (figures,) = (line for line in read_log(world / "out_sync") if line["kind"] == "validation")
    assert figures["near/unheard"] > 0.65
    assert figures["far/unheard"] > 0.65
    curve = {key: value for key, value in figures.items() if key.startswith("cosine/")}
    assert max(curve, key=lambda key: curve[key]) == "cosine/+0"


def test_its_file_serves_the_motion_network(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(write_config(world), "--task", "sync", "--export", str(world / "pack"))
    path = world / "out_sync" / "sync_expert.safetensors"
    assert (world / "pack" / path.name).read_bytes() == path.read_bytes()
    expert = load_expert(path, HEARS_MFCC, 13, CPU)
    best = weights_of(world, "out_sync", "best.pt")
    assert all(torch.equal(value, best[key]) for key, value in expert.state_dict().items())
    capsys.readouterr()
    train(write_config(world), f"sync_expert={path}")
    assert all("sync" in line for line in read_log(world / "out") if line["kind"] == "train")
    assert f"sync expert {path}" in capsys.readouterr().out


def test_an_expert_that_reads_principal_components(world: Path) -> None:
    """They are fitted on the training clips and stored with it."""
    train(write_config(world), "--task", "sync", "sync.audio_components=4", "sync.max_steps=2")
    expert = load_expert(world / "out_sync" / "sync_expert.safetensors", HEARS_MFCC, 13, CPU)
    assert expert.config.audio_components == 4
    assert expert.audio_projection is not None
    assert tuple(expert.audio_projection.weight.shape) == (4, 13)
    assert expert.embed_audio(torch.zeros(1, 10, 13)).shape == (1, 16)


def test_without_an_expert_nothing_is_added(world: Path) -> None:
    train(write_config(world))
    assert not any("sync" in line for line in read_log(world / "out"))


def test_the_loss_moves_the_motion_network_alone(world: Path) -> None:
    config_path = write_config(world, augmentation={})
    train(config_path, "--task", "sync")
    path = world / "out_sync" / "sync_expert.safetensors"
    gradients = []
    for overrides in ([], [f"sync_expert={path}"], [f"sync_expert={path}", "loss.sync=0"]):
        learner = MotionLearner(load_config(MotionTrainingConfig, config_path, overrides), float32_accelerator(-1))
        learner.losses(learner.batch(0), 0)["total"].backward()
        gradients.append(learner.network.vae.decoder.out_proj.weight.grad)
        if learner.expert is not None:
            before = load_expert(path, HEARS_MFCC, 13, CPU).state_dict()
            assert all(torch.equal(value, before[key]) for key, value in learner.expert.state_dict().items())
            assert all(parameter.grad is None for parameter in learner.expert.parameters())
    without, with_expert, weightless = gradients
    assert not torch.equal(without, with_expert)
    assert torch.equal(without, weightless)


def test_total_of_the_reference() -> None:
    """beta KL + .5 MSE(exp) + .5 landmarks + 1 Laplacian + .1 mean(exp^2) + .2 sync."""
    values = {"kl": 7.0, "expression": 1.0, "landmarks": 10.0, "laplacian": 100.0, "magnitude": 1e3, "sync": 1e4}
    terms = {name: torch.tensor(value) for name, value in values.items()}
    rest = 0.5 * 1 + 0.5 * 10 + 1.0 * 100 + 0.1 * 1e3 + 0.2 * 1e4
    for step, beta in ((0, 0.0), (1000, 0.01), (2000, 0.02), (3999, 0.02), (4000, 0.0)):
        assert weighted_total(terms, LossConfig(), step).item() == pytest.approx(7 * beta + rest)


def test_prior_sync(world: Path) -> None:
    config = write_config(world)
    train(config, "--task", "sync")
    train(config, f"sync_expert={world / 'out_sync' / 'sync_expert.safetensors'}", "loss.prior_sync=0.2", "max_steps=2")
    reports = [line for line in read_log(world / "out") if line["kind"] == "train"]
    assert reports
    assert all("prior_sync" in line for line in reports)


def test_one_speaker_is_refused(world: Path) -> None:
    (world / "speakers.txt").write_text("a Ann\nb Ann\nc Ann\n")
    with pytest.raises(BadInput, match="learns from several people"):
        train(write_config(world), "--task", "sync", f"data.speakers={world / 'speakers.txt'}")


def test_another_expert_in_the_output_folder_is_refused(world: Path) -> None:
    config = write_config(world)
    train(config, "--task", "sync", "sync.max_steps=2")
    with pytest.raises(BadInput, match="training of another network"):
        train(config, "--task", "sync", "sync.sizes.hidden=16")
