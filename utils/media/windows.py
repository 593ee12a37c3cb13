"""Cut 50-Hz audio states into one window per video frame.

state rows   0   1   2   3   4   5   6   7   8   9  10  11  ...
frame 0     [0   0   0   0   0   1   2   3   4   5]              centre 0, clamped at the start
frame 1         [0   0   0   1   2   3   4   5   6   7]          centre 2, at 25 frames/s
frame 2             [0   1   2   3   4   5   6   7   8   9]      centre 4
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import count

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.core.types import FEATURE_RATE, MOTION_FPS

Rate = int | float | Fraction  # video frames per second

ROWS_BEFORE = 4  # state rows before the centre
WINDOW_ROWS = 10  # state rows in a window: [centre - 4, centre + 6)


def window_rows(n_frames: int, fps: Rate = MOTION_FPS, start: int = 0) -> Int[Tensor, "n 10"]:
    """State rows in the windows of the frames start .. start + n_frames - 1, before clamping.

    The centre of frame v is int(v * 50 / fps), as upstream has it; rows may lie outside the audio.
    """
    if n_frames < 0 or fps <= 0:
        raise ValueError(f"expected n_frames >= 0 and fps > 0, found {n_frames} and {fps}")
    frames = torch.arange(start, start + n_frames, dtype=torch.float64)
    centers = (frames * FEATURE_RATE / float(fps)).long()
    return centers[:, None] + torch.arange(-ROWS_BEFORE, WINDOW_ROWS - ROWS_BEFORE)


def needed_rows(parts: Iterable[range], n_rows: int, fps: Rate = MOTION_FPS) -> list[range]:
    """State rows, of ``n_rows``, that the windows of each part's frames need."""
    needed = []
    for part in parts:
        rows = window_rows(len(part), fps, part.start).clamp(0, n_rows - 1)
        needed.append(range(int(rows[0, 0]), int(rows[-1, -1]) + 1))
    return needed


def upstream_window_count(n_rows: int, fps: Rate = MOTION_FPS) -> int:
    """Number of windows that upstream cuts from n_rows states: one to three more than the audio has frames.

    Its stop test int(v * (50 / fps)) > n_rows rounds differently from the centre and comes after the append.
    """
    step = FEATURE_RATE / float(fps)
    return next(v for v in count() if int(v * step) > n_rows) + 1


def stream_windows(
    segments: Iterable[Float[Tensor, "t l d"]], n_frames: int, fps: Rate = MOTION_FPS, batch_size: int = 8
) -> Iterator[Float[Tensor, "n 10*l d"]]:
    """Windows of the first ``n_frames`` video frames, flattened row-major (time, then layer), in batches.

    segments: states at 50 Hz of L layers, in order; about one segment is held at a time. Frames beyond the audio repeat
    its last row. Yields ceil(n_frames / batch_size) batches; the last may be smaller. ValueError without states.
    """
    source = iter(segments)
    kept = next(source, None)  # the rows from first_row on that a later window may still need
    if kept is None or len(kept) == 0:
        raise ValueError("expected at least one row of audio states, found none")
    first_row, has_more = 0, True
    for start in range(0, n_frames, batch_size):
        rows = window_rows(min(batch_size, n_frames - start), fps, start).clamp(min=0)
        while has_more and int(rows.max()) >= first_row + len(kept):
            segment = next(source, None)
            has_more = segment is not None
            kept = kept if segment is None else torch.cat((kept, segment))
        local = rows.clamp(max=first_row + len(kept) - 1) - first_row
        yield kept[local.to(kept.device)].flatten(1, 2)
        n_unneeded = max(0, min(int(rows[-1, 0]) - first_row, len(kept) - 1))
        kept, first_row = kept[n_unneeded:], first_row + n_unneeded
