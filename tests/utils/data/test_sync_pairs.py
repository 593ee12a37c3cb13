"""Pairs for the sync expert: shares, offsets, and the two fixed errors of the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from utils.core.errors import BadInput
from utils.data.motion_dataset import MotionClip
from utils.data.sync_pairs import PairSampler, SyncClip, sync_clip

N_FRAMES = 60


def speaking(name: str, speaker: str, number: int, n_frames: int = N_FRAMES) -> SyncClip:
    """Values of motion and sound are frame + 1000 * clip number."""
    return sync_clip(recorded(name, speaker, number, n_frames), times(number, n_frames))


def recorded(name: str, speaker: str, number: int, n_frames: int) -> MotionClip:
    frames = np.arange(n_frames, dtype=np.float32) + 1000 * number
    return MotionClip(
        name=name,
        speaker=speaker,
        wave=np.zeros(n_frames * 640, np.float32),
        expression=np.repeat(frames[:, None], 64, axis=1),
        identity=np.full((n_frames, 80), number, np.float32),
        valid=np.ones(n_frames, bool),
    )


def times(number: int, n_frames: int) -> np.ndarray:
    return (np.arange(2 * n_frames, dtype=np.float32)[:, None] / 2 + 1000 * number).repeat(3, axis=1)


@pytest.fixture
def sampler() -> PairSampler:
    """Three clips of two speakers."""
    return PairSampler([speaking("a1", "Ann", 0), speaking("a2", "Ann", 1), speaking("b", "Bob", 2)])


def test_shares(sampler: PairSampler) -> None:
    pairs = sampler.draw(1000, np.random.default_rng(0))
    is_same = np.array([first == second for first, second in pairs.clips])
    distance = np.abs(pairs.offsets)
    assert (is_same & (distance == 0)).sum() == 400
    assert (is_same & (distance >= 2)).sum() == 500
    assert (~is_same).sum() == 100
    near = (is_same & (distance >= 2) & (distance < 5)).sum()
    assert 180 < near < 290  # 3/4 of 300
    assert set(distance[is_same]) == {0, 2, 3, 4, 5, 6, 7, 8, 9, 10}
    assert set(np.sign(pairs.offsets[is_same])) == {-1, 0, 1}


def test_sound_and_motion_are_as_far_apart_as_it_says(sampler: PairSampler) -> None:
    pairs = sampler.draw(400, np.random.default_rng(1))
    assert pairs.expression.shape == (400, 5, 64)
    assert pairs.identity.shape == (400, 5, 80)
    assert pairs.audio.shape == (400, 10, 3)
    is_same = np.array([first == second for first, second in pairs.clips])
    lag = pairs.audio[:, ::2, 0] - pairs.expression[:, :, 0]
    np.testing.assert_array_equal(lag[is_same], pairs.offsets[is_same, None].repeat(5, axis=1))


def test_right_sound_is_never_called_wrong(sampler: PairSampler) -> None:
    """The reference samples the offset of foreign sound from -10 to 10, 0 included, which may leave it in sync."""
    for seed in range(20):
        pairs = sampler.draw(500, np.random.default_rng(seed))
        same_moment = pairs.audio[:, 0, 0] == pairs.expression[:, 0, 0]
        np.testing.assert_array_equal(pairs.labels, same_moment.astype(np.float32))


def test_another_person_is_another_speaker(sampler: PairSampler) -> None:
    """The reference's loader gives batches of one clip, so its "another person" is the same; another clip of the
    same speaker does not count either."""
    speakers = {"a1": "Ann", "a2": "Ann", "b": "Bob"}
    found = set()
    for seed in range(20):
        for first, second in sampler.draw(500, np.random.default_rng(seed)).clips:
            if first != second:
                assert speakers[first] != speakers[second]
                found.add((first, second))
    assert found == {("a1", "b"), ("a2", "b"), ("b", "a1"), ("b", "a2")}


def test_one_speaker_is_not_enough() -> None:
    with pytest.raises(BadInput, match="learns from several people: expected two speakers, found 1"):
        PairSampler([speaking("a1", "Ann", 0), speaking("a2", "Ann", 1)])


def test_short_clips() -> None:
    short = [speaking(name, name, i, n_frames=14) for i, name in enumerate("ab")]
    with pytest.raises(BadInput, match=r"no clip is long enough.*15 frames"):
        PairSampler(short)
    pairs = PairSampler([*short, speaking("c", "c", 2, 15)]).draw(3000, np.random.default_rng(0))
    assert set(np.abs(pairs.offsets[pairs.labels == 0])) >= {2, 10}


def test_every_batch_is_its_seed_s(sampler: PairSampler) -> None:
    first, second, other = (sampler.draw(50, np.random.default_rng([0, number])) for number in (3, 3, 4))
    np.testing.assert_array_equal(first.audio, second.audio)
    assert not np.array_equal(first.audio, other.audio)


def test_lag_is_taken_out() -> None:
    """Lips that lag by 2 frames belong to the sound 2 frames earlier; the first two frames have none."""
    clip = sync_clip(replace(recorded("a", "Ann", 0, 20), lag=2.0), times(0, 20))
    np.testing.assert_array_equal(clip.audio[4::2, 0], clip.expression[2:, 0] - 2)
    assert np.flatnonzero(clip.starts).tolist() == list(range(2, 16))


def test_frames_without_face_or_sound_are_left_out() -> None:
    valid = np.ones(20, bool)
    valid[7] = False
    clip = sync_clip(replace(recorded("a", "Ann", 0, 20), valid=valid), times(0, 18))
    assert np.flatnonzero(clip.starts).tolist() == [0, 1, 2, 8, 9, 10, 11, 12, 13]
