from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.data.segments import Segment, SegmentSource

N_ROWS = 20
PADDING = -7.0


def count_mel(wave):
    """A log-mel whose values are frame numbers."""
    return torch.arange(len(wave) // 160, dtype=torch.float32).repeat(3, 1)


def source(random_offset: bool = False) -> SegmentSource:
    return SegmentSource(count_mel, n_mels=3, n_rows=N_ROWS, padding=PADDING, random_offset=random_offset)


def audio(n_rows: int) -> np.ndarray:
    return np.zeros(n_rows * 320, np.int16)


def first_row(segment: Segment) -> float:
    return segment.log_mel[0, 0].item() / 2


def test_segments_as_at_inference():
    rng = np.random.default_rng(0)
    for frame, start in [(0, 0), (9, 0), (10, 20), (19, 20), (20, 40), (99, 40)]:
        segment = source().cut("clip", audio(50), frame, rng)
        assert segment.start == start == first_row(segment)
        assert segment.covers(np.array([frame])).all()
    assert segment.n_real_rows == 10
    assert (segment.log_mel[:, 20:] == PADDING).all() and (segment.log_mel[:, :20] != PADDING).all()


def test_random_segments_hear_their_frame():
    rng = np.random.default_rng(0)
    starts = set()
    for _ in range(300):
        frame = int(rng.integers(100))
        segment = source(random_offset=True).cut("clip", audio(200), frame, rng)
        assert first_row(segment) == segment.start
        rows = segment.rows(np.array([frame]))[0] + segment.start
        wanted = (torch.arange(10) + 2 * frame - 4).clamp(0, 199)
        assert torch.equal(rows, wanted)
        starts.add(segment.start)
    assert len(starts) > 50 and 0 in starts and any(start % 2 for start in starts)


def test_windows_are_clamped_to_real_rows():
    segment = source().cut("clip", audio(30), 14, np.random.default_rng(0))
    assert segment.rows(np.array([10, 14, 40])).tolist() == [
        [0, 0, 0, 0, 0, 1, 2, 3, 4, 5],
        [4, 5, 6, 7, 8, 9, 9, 9, 9, 9],
        [9] * 10,
    ]


@pytest.mark.parametrize("random_offset", [False, True])
def test_frames_outside_are_not_covered(random_offset):
    segment = source(random_offset).cut("clip", audio(200), 50, np.random.default_rng(3))
    covered = np.flatnonzero(segment.covers(np.arange(100)))
    assert 50 in covered
    assert covered.min() * 2 >= segment.start and covered.max() * 2 < segment.start + N_ROWS


def test_short_clips_lie_in_one_segment():
    for frame in (0, 3, 20):
        segment = source(random_offset=True).cut("clip", audio(8), frame, np.random.default_rng(0))
        assert segment.start == 0 and segment.covers(np.arange(30)).all()


def test_silent_clip_is_zero_and_covers_everything():
    segment = source().cut("clip", None, 77, np.random.default_rng(0))
    assert not segment.log_mel.any() and segment.log_mel.shape == (3, 2 * N_ROWS)
    assert segment.covers(np.arange(100)).all() and not segment.rows(np.array([77])).any()


def test_log_mel_is_computed_once_per_clip():
    calls = []

    def compute(wave):
        calls.append(wave.dtype)
        return count_mel(wave)

    segments = SegmentSource(compute, 3, N_ROWS, PADDING, random_offset=False)
    for frame in (0, 10, 20):
        segments.cut("clip", audio(50), frame, np.random.default_rng(0))
    assert calls == [np.float32]


def test_memory_is_bounded_and_what_was_forgotten_is_computed_again(monkeypatch):
    clip_bytes = 3 * 100 * 4  # a second
    monkeypatch.setattr("utils.data.segments.MOST_KEPT", 2 * clip_bytes)
    computed = []

    def log_mel(wave):
        computed.append(len(wave))
        return count_mel(wave)

    bounded = SegmentSource(log_mel, n_mels=3, n_rows=N_ROWS, padding=PADDING, random_offset=False)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "a", "b", "c", "b", "c", "a"):
        segment = bounded.cut(name, audio(50), 10, rng)
        assert first_row(segment) == 20
    assert len(computed) == 4
