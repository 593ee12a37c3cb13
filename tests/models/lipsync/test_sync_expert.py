"""The sync expert: its towers, its file, its loss on predicted motion, and its validation."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from models.lipsync.sync_expert import (
    SyncExpert,
    SyncExpertConfig,
    SyncExpertSizes,
    load_expert,
    save_expert,
    sync_loss,
)
from models.motion.audio2motion import Audio2MotionConfig
from models.training.sync_validation import Embedded, curve_text, judge, judgement_table, pool
from utils.core.errors import BadInput
from utils.weights.checkpoints import save_weights

CONFIG = SyncExpertConfig("mfcc", 13, use_identity=False, sizes=SyncExpertSizes(8, 16, 2))
HEARS_MFCC = Audio2MotionConfig(audio_type="mfcc")
CPU = torch.device("cpu")


@pytest.fixture
def expert() -> SyncExpert:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SyncExpert(CONFIG)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_probabilities_from_unit_vectors(expert: SyncExpert) -> None:
    landmarks, audio = noise(6, 5, 1404), noise(6, 10, 13)
    for vectors in (expert.embed_motion(landmarks), expert.embed_audio(audio)):
        assert vectors.shape == (6, 16)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(6))
    found = expert(landmarks, audio)
    assert bool(((found >= 0) & (found <= 1)).all())


def test_reference_size() -> None:
    """128 to 512 channels, 1024 outputs, on HuBERT."""
    expert = SyncExpert(SyncExpertConfig("hubert", 1024)).eval()
    assert expert(noise(2, 5, 1404), noise(2, 10, 1024)).shape == (2,)
    assert expert.audio_tower[-1].conv.weight.shape == (1024, 512, 1)


def test_every_frame_and_step_counts(expert: SyncExpert) -> None:
    expert.eval()
    landmarks, audio = noise(1, 5, 1404).requires_grad_(), noise(1, 10, 13).requires_grad_()
    expert(landmarks, audio).sum().backward()
    assert bool((landmarks.grad.abs().sum(dim=2) > 0).all())
    assert bool((audio.grad.abs().sum(dim=2) > 0).all())


def test_file(expert: SyncExpert, tmp_path: Path) -> None:
    path = tmp_path / "expert.safetensors"
    expert(noise(6, 5, 1404), noise(6, 10, 13))  # updates the running statistics
    save_expert(path, expert)
    loaded = load_expert(path, HEARS_MFCC, 13, CPU)
    assert loaded.config == CONFIG
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    inputs = noise(3, 5, 1404), noise(3, 10, 13)
    torch.testing.assert_close(loaded(*inputs), expert.eval()(*inputs))
    with pytest.raises(
        BadInput, match=r"sync expert for other features.*expected hubert, 1024 channels, found mfcc, 13"
    ):
        load_expert(path, Audio2MotionConfig(), 1024, CPU)
    save_weights(path, expert.state_dict())
    with pytest.raises(BadInput, match="not a sync expert"):
        load_expert(path, HEARS_MFCC, 13, CPU)


def test_sync_loss_reaches_the_motion(expert: SyncExpert) -> None:
    expert.eval().requires_grad_(False)
    landmarks = noise(2, 12, 1404).requires_grad_()
    mask = torch.ones(2, 12)
    mask[0, 3] = 0
    mask[1] = 0
    loss = sync_loss(expert, landmarks, noise(2, 24, 13), mask, 100, torch.Generator().manual_seed(0))
    loss.backward()
    moved = landmarks.grad.abs().sum(dim=2) > 0
    assert moved[0].tolist() == [False] * 4 + [True] * 8  # five valid frames in a row are needed
    assert not bool(moved[1].any())


def test_sync_loss_by_hand(expert: SyncExpert) -> None:
    """Mean of -log p over all clips of five frames; fewer clips are sampled from them."""
    expert.eval()
    landmarks, audio, mask = noise(1, 8, 1404), noise(1, 16, 13), torch.ones(1, 8)
    with torch.no_grad():
        single = torch.stack(
            [-expert(landmarks[:, t : t + 5], audio[:, 2 * t : 2 * t + 10]).log()[0] for t in range(4)]
        )
        whole = sync_loss(expert, landmarks, audio, mask, 100, torch.Generator().manual_seed(0))
        one = sync_loss(expert, landmarks, audio, mask, 1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(whole, single.mean())
    assert any(torch.isclose(one, value) for value in single)


def test_nothing_valid_costs_nothing(expert: SyncExpert) -> None:
    landmarks = noise(1, 8, 1404).requires_grad_()
    loss = sync_loss(expert, landmarks, noise(1, 16, 13), torch.zeros(1, 8), 9, torch.Generator())
    loss.backward()
    assert loss == 0
    assert bool((landmarks.grad == 0).all())


def units(seed: int, n: int) -> np.ndarray:
    vectors = np.abs(np.random.default_rng(seed).normal(size=(n, 16)))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_perfect_expert() -> None:
    motion = units(0, 80)
    found = judge(Embedded(np.arange(80), motion, motion), [units(1, 50)])
    assert found.wins == {"near": 1.0, "far": 1.0, "other": 1.0}
    assert found.best_offset == 0
    assert found.curve[0] == pytest.approx(1)
    assert sorted(found.curve) == list(range(-15, 16))


def test_an_expert_that_is_late() -> None:
    """Vectors of the sound agree with the motion of 3 frames later."""
    motion = units(0, 80)
    found = judge(Embedded(np.arange(80), motion, np.roll(motion, -3, axis=0)), [])
    assert found.best_offset == -3
    assert "other" not in found.wins


def test_a_blind_expert_is_at_chance() -> None:
    found = judge(Embedded(np.arange(300), units(0, 300), units(1, 300)), [units(2, 300)])
    assert found.wins == pytest.approx({"near": 0.5, "far": 0.5, "other": 0.5}, abs=0.05)
    constant = np.full((50, 16), 0.25)
    assert judge(Embedded(np.arange(50), constant, constant), [constant]).wins == pytest.approx(
        {"near": 0.5, "far": 0.5, "other": 0.5}
    )


def test_many_strangers_take_no_more_memory_than_one() -> None:
    """All pairs of a frame and another speaker's sound count, and none is stored: 400 x 400 take 1.3 MB."""

    def peak(n_strangers: int) -> int:
        clip, strangers = Embedded(np.arange(400), units(0, 400), units(1, 400)), [units(2, 400)] * n_strangers
        tracemalloc.start()
        try:
            judge(clip, strangers)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(20) < 1.1 * peak(1)


def test_gaps_are_not_bridged() -> None:
    """Only valid starts are compared."""
    starts = np.array([0, 1, 2, 40, 41, 42])
    found = judge(Embedded(starts, units(0, 6), units(1, 6)), [])
    assert sorted(found.curve) == [-2, -1, 0, 1, 2]
    assert "far" not in found.wins


def test_pooling_weighs_by_pairs_and_the_table_shows_it() -> None:
    motion = units(0, 90)
    good, bad = (
        judge(Embedded(np.arange(n), motion[:n], sound[:n]), [])
        for n, sound in ((90, motion), (30, np.tile(units(1, 1), (90, 1))))
    )
    both = pool([good, bad])
    assert both.n_pairs == 120
    assert both.wins["near"] == pytest.approx(0.75 * good.wins["near"] + 0.25 * bad.wins["near"])
    table = judgement_table({"one": good, "two": bad}, both).splitlines()
    assert [line.split()[0] for line in table[2:]] == ["one", "two", "all"]
    assert table[2].split()[1:3] == ["90", "100.0"]
    assert "+0 1.000" in curve_text(good.curve)
