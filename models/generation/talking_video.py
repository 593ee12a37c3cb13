"""Stage 3's output files: the video in parts, of which a resumed run writes only missing ones; contact sheet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.generation.talking_face import TalkingFrame
from utils.core.allocator import return_freed_memory
from utils.core.monitor import Monitor
from utils.core.streaming import run_ahead
from utils.core.types import PictureFormat
from utils.files.arrays import load_array, save_array
from utils.files.atomic import atomic_path
from utils.files.image_files import write_rgb
from utils.imaging.contact_sheet import cut_tile, draw_sheet, view_around
from utils.media.video import VideoWriter
from utils.media.video_parts import part_path
from utils.results.unfinished import ADVICE, sheet_column_path

N_ROWS = 4  # of the contact sheet, see sheet_column


def windows_of_parts(
    windows: Iterable[Float[Tensor, "b n d"]],
    parts: Sequence[range],
    batch_size: int,
    sampling: torch.Generator | None = None,
    seed: int = 0,
) -> Iterator[Float[Tensor, "b n d"]]:
    """The batches of windows in the parts, out of all batches from the video's first frame on.

    sampling: seeded before each batch, so that a batch's samples do not depend on earlier batches.
    """
    wanted = {start for part in parts for start in part[::batch_size]}
    for number, batch in enumerate(windows):
        if number * batch_size not in wanted:
            continue
        if sampling is not None:
            state = np.random.SeedSequence([seed % 2**64, number]).generate_state(1, np.uint64)
            sampling.manual_seed(int(state[0]) >> 1)
        yield batch


def write_parts(
    folder: Path,
    parts: Sequence[range],
    frames: Iterable[TalkingFrame],
    fps: float,
    picture: PictureFormat,
    monitor: Monitor,
    sheet_frames: Sequence[int] = (),
) -> None:
    """Write the video of each part, and before its end the contact sheet's tiles of its frames.

    While a frame is encoded, the next one is generated.
    """
    coming = monitor.track(run_ahead(frames), sum(map(len, parts)), "generating faces")
    for part in parts:
        with VideoWriter(part_path(folder, part), fps, picture=picture) as writer:
            for index in part:
                frame = next(coming)
                writer.write(frame.image)
                if index in sheet_frames:
                    save_array(sheet_column_path(folder, index), np.stack(sheet_column(frame)))
        return_freed_memory()


def sheet_column(frame: TalkingFrame) -> list[np.ndarray]:
    """Tiles around the face: source, depth, blending mask and output."""
    image, face = frame.source.image, frame.source.face
    view = view_around((image.shape[0], image.shape[1]), None if face is None else face.box)
    corner = np.zeros(2, int) if face is None else face.box[:2]
    face_view = tuple(np.subtract(view, np.tile(corner, 2)).tolist())
    of_face = (None if face is None else face.depth, frame.mask)
    tiles = [cut_tile(np.zeros((1, 1), np.uint8) if tile is None else tile, face_view) for tile in of_face]
    return [cut_tile(image, view), *tiles, cut_tile(frame.image, view)]


def write_sheet(path: Path, folder: Path, sheet_frames: Sequence[int]) -> None:
    """Compose the contact sheet from the tiles that write_parts saved in ``folder``."""
    columns = [
        list(load_array(sheet_column_path(folder, index), (N_ROWS, None, None, 3), "u", ADVICE))
        for index in sheet_frames
    ]
    with atomic_path(path) as temporary:
        write_rgb(temporary, draw_sheet(columns, [f"frame {index}" for index in sheet_frames]))
