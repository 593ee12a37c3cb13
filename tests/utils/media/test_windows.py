from __future__ import annotations

import pytest
import torch

from tests.helpers.audio_windows import audio_windows
from utils.media.windows import WINDOW_ROWS, stream_windows, upstream_window_count, window_rows


def numbered_states(n_rows: int, n_layers: int = 3, width: int = 2) -> torch.Tensor:
    """States whose every value is its row number."""
    return torch.arange(n_rows, dtype=torch.float32)[:, None, None].expand(n_rows, n_layers, width).contiguous()


def windows_one_by_one(states: torch.Tensor, n_frames: int, fps: float) -> torch.Tensor:
    """The slow, plain implementation: loops over frames and rows."""
    windows = []
    for frame in range(n_frames):
        center = int(frame * 50 / fps)
        rows = [min(max(row, 0), len(states) - 1) for row in range(center - 4, center + 6)]
        windows.append(torch.cat([states[row] for row in rows]))
    return torch.stack(windows)


@pytest.mark.parametrize("fps", [24, 25, 29.97, 30, 60])
def test_windows_match_the_plain_loop(fps):
    states = torch.randn(61, 3, 4)
    assert torch.equal(audio_windows(states, 40, fps), windows_one_by_one(states, 40, fps))


def test_the_first_windows_are_clamped_at_the_start_and_flattened_time_first():
    windows = audio_windows(numbered_states(40), 3)
    assert windows.shape == (3, 3 * WINDOW_ROWS, 2)
    assert windows[0, ::3, 0].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert windows[2, ::3, 0].tolist() == list(range(0, 10))


def test_frames_beyond_the_audio_repeat_its_last_row():
    assert audio_windows(numbered_states(7), 50)[-1].unique().tolist() == [6]


def test_a_later_start_gives_the_same_windows():
    states = torch.randn(100, 2, 3)
    assert torch.equal(audio_windows(states, 50, 30)[17:29], audio_windows(states, 12, 30, start=17))


@pytest.mark.parametrize("lengths", [(100,), (30, 30, 30, 10), (1, 99), (5,)])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_streaming_gives_the_same_windows(lengths, batch_size):
    states = torch.randn(sum(lengths), 2, 3)
    batches = list(stream_windows(iter(states.split(list(lengths))), 60, 25, batch_size))
    assert torch.equal(torch.cat(batches), audio_windows(states, 60, 25))


def test_streaming_takes_segments_only_when_they_are_needed():
    taken = []

    def segments():
        for index in range(100):
            taken.append(index)
            yield torch.zeros(1500, 1, 1)

    next(stream_windows(segments(), 10_000, batch_size=8))
    assert taken == [0]


def test_upstream_cuts_a_few_windows_more_than_there_are_frames():
    assert upstream_window_count(200, 25) == 102
    assert upstream_window_count(201, 25) == 102
    assert upstream_window_count(201, 30) == 123


def test_no_states_is_an_error():
    with pytest.raises(ValueError, match="at least one row"):
        audio_windows(torch.zeros(0, 5, 4), 3)
    with pytest.raises(ValueError, match="at least one row"):
        next(stream_windows([], 3))


def test_a_negative_frame_count_is_an_error():
    with pytest.raises(ValueError, match="n_frames >= 0"):
        window_rows(-1)
