"""Change of pixels by encoding alone: the floor for pixels that should not change."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from utils.core.types import PictureFormat
from utils.media.video import VideoWriter, read_frames
from utils.metrics.image_quality import mean_difference, upper_pixels

N_FRAMES = 50  # encoded from the start of a clip: 2 s


class CodecNoise:
    """Encodes the first N_FRAMES frames of a clip with the pipeline's settings and compares the pixels above the mouth.

    Whole frames go to a temporary file; only the upper halves of the face boxes are held in memory.
    """

    def __init__(self, picture: PictureFormat | None = None) -> None:
        self._picture = picture
        self._held: list[tuple[np.ndarray | None, np.ndarray]] = []  # box and pixels above its middle

    def __enter__(self) -> CodecNoise:
        with contextlib.ExitStack() as stack:
            self._path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "encoded.mp4"
            self._encoding = stack.enter_context(contextlib.ExitStack())
            self._stack = stack.pop_all()
        return self

    def add(self, frame: np.ndarray, box: np.ndarray | None) -> None:
        """The next frame with its face box, None without a face; frames after the first N_FRAMES are left out."""
        if len(self._held) == N_FRAMES:
            return
        if not self._held:
            self._writer = self._encoding.enter_context(VideoWriter(self._path, picture=self._picture))
        self._writer.write(frame)
        pixels = np.zeros((0, 0, 3), np.uint8) if box is None else upper_pixels(frame, box).copy()
        self._held.append((box, pixels))

    def measure(self) -> float:
        """Mean absolute difference of encoded and original pixels in grey levels; NaN without a face."""
        self._encoding.close()
        frames = read_frames(self._path) if self._held else iter(())
        differences = [
            mean_difference(upper_pixels(frame, box)[: pixels.shape[0], : pixels.shape[1]], pixels)
            for frame, (box, pixels) in zip(frames, self._held, strict=False)
            if box is not None and pixels.size
        ]
        return float(np.mean(differences)) if differences else float("nan")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
