"""SyncNet: synchrony of lips and sound of a clip, and their offset (LSE-C and LSE-D).

Network: Chung and Zisserman, "Out of time: automated lip sync in the wild" (2016). Attribute names are the keys of
the public syncnet_v2.model (joonson/syncnet_python). Scores: Prajwal et al., "A Lip Sync Expert Is All You Need"
(2020), section 4.2. Two departures from the public scripts, both in the crop: they find the face with S3FD and pass
each crop through MPEG-4 and JPEG; here the box is that of the landmarks and the pixels come straight from the clip.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from scipy.signal import medfilt
from torch import Tensor, nn

from models.audio.speech_cepstrum import STEPS_PER_SECOND, speech_cepstrum
from utils.core.types import MOTION_FPS, SAMPLES_PER_FRAME
from utils.imaging.geometry import crop_box, resize_image
from utils.media.timeline import nearest
from utils.weights.checkpoints import load_strict, read_weights, with_counters

N_EMBEDDING = 1024
CROP_SIZE = 224  # pixels
WINDOW_FRAMES = 5
STEPS_PER_FRAME = STEPS_PER_SECOND // MOTION_FPS
WINDOW_STEPS = WINDOW_FRAMES * STEPS_PER_FRAME  # 20 steps of 10 ms
MAX_OFFSET = 15  # frames either way
CROP_SCALE = 0.4  # margin of the crop over half the box's longer side, twice that below
CROP_FILL = 110  # grey level outside the frame
SMOOTHED_FRAMES = 13  # median of the box's place and size
BATCH_SIZE = 8


@dataclass(frozen=True)
class SyncScore:
    """LSE-C is the ``confidence``, LSE-D the ``distance``. offset > 0: the sound comes earlier than the lips (frames).

    frame_confidences float32 [T]: the median distance less each window's own at the best offset.
    """

    confidence: float
    distance: float
    offset: int
    frame_confidences: np.ndarray


def _conv(dims: int, n_in: int, n_out: int, kernel: object, stride: object = 1, padding: object = 0) -> list[nn.Module]:
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
    return [conv(n_in, n_out, kernel, stride, padding), norm(n_out), nn.ReLU()]  # type: ignore[arg-type]


def _projection() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, N_EMBEDDING))


class SyncNet(nn.Module):
    """Two streams that embed lips and sound of 0.2 s in one space. Layer numbers in the keys count pools too."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_conv(2, 1, 64, 3, padding=1), nn.MaxPool2d(1, 1),
            *_conv(2, 64, 192, 3, padding=1), nn.MaxPool2d(3, (1, 2)),
            *_conv(2, 192, 384, 3, padding=1), *_conv(2, 384, 256, 3, padding=1),
            *_conv(2, 256, 256, 3, padding=1), nn.MaxPool2d(3, 2),
            *_conv(2, 256, 512, (5, 4)),
        )  # fmt: skip
        self.netfcaud, self.netfclip = _projection(), _projection()
        flat = (1, 2, 2)  # strides and paddings leave time alone
        self.netcnnlip = nn.Sequential(
            *_conv(3, 3, 96, (5, 7, 7), flat), nn.MaxPool3d((1, 3, 3), flat),
            *_conv(3, 96, 256, (1, 5, 5), flat, (0, 1, 1)), nn.MaxPool3d((1, 3, 3), flat, (0, 1, 1)),
            *_conv(3, 256, 256, (1, 3, 3), padding=(0, 1, 1)), *_conv(3, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *_conv(3, 256, 256, (1, 3, 3), padding=(0, 1, 1)), nn.MaxPool3d((1, 3, 3), flat),
            *_conv(3, 256, 512, (1, 6, 6)),
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> SyncNet:
        """Open syncnet_v2.model. Raises BadInput for weights of another network."""
        with torch.device("meta"):
            network = cls()
        load_strict(network, with_counters(read_weights(path), network), path)
        return network.to(device).eval().requires_grad_(False)

    def embed_sound(self, steps: Float[Tensor, "b 1 13 20"]) -> Float[Tensor, "b 1024"]:
        return self.netfcaud(self.netcnnaud(steps).flatten(1))

    def embed_lips(self, frames: Float[Tensor, "b 3 5 224 224"]) -> Float[Tensor, "b 1024"]:
        """Frames are BGR, 0 to 255."""
        return self.netfclip(self.netcnnlip(frames).flatten(1))

    @torch.inference_mode()
    def score(self, crops: Iterable[UInt8[np.ndarray, "224 224 3"]], wave: Float[np.ndarray, " n"]) -> SyncScore | None:
        """RGB crops of every frame at 25 fps and the sound at 16 kHz; None if they share fewer than six frames."""
        cepstrum = speech_cepstrum(wave)
        lips = self._lips(crops, n_most=len(wave) // SAMPLES_PER_FRAME)
        if len(lips) == 0:
            return None
        starts = STEPS_PER_FRAME * np.arange(len(lips))
        sound = []
        for first in range(0, len(starts), BATCH_SIZE):
            windows = [cepstrum[s : s + WINDOW_STEPS].T[None] for s in starts[first : first + BATCH_SIZE]]
            sound.append(self.embed_sound(torch.from_numpy(np.stack(windows)).to(lips)))
        return score_embeddings(lips, torch.cat(sound))

    def _lips(self, crops: Iterable[np.ndarray], n_most: int) -> Float[Tensor, "t 1024"]:
        """Embeddings of the windows that begin at frames 0, 1 ...; the last full window is left out, as upstream."""
        weight = next(self.parameters())
        held: list[np.ndarray] = []
        found: list[Tensor] = []

        def embed(n_windows: int) -> None:
            pixels = torch.from_numpy(np.stack(held)[..., ::-1].copy()).to(weight.device).permute(3, 0, 1, 2)
            windows = [pixels[:, i : i + WINDOW_FRAMES].to(weight.dtype) for i in range(n_windows)]
            found.append(self.embed_lips(torch.stack(windows)))
            del held[:n_windows]

        for index, crop in enumerate(crops):
            if index >= n_most:
                break
            held.append(crop)
            if len(held) == BATCH_SIZE + WINDOW_FRAMES:
                embed(BATCH_SIZE)
        if len(held) > WINDOW_FRAMES:
            embed(len(held) - WINDOW_FRAMES)
        return torch.cat(found) if found else torch.zeros(0, N_EMBEDDING, device=weight.device)


def score_embeddings(lips: Float[Tensor, "t c"], sound: Float[Tensor, "t c"]) -> SyncScore:
    """Mean distance at every offset; the sound is 0 beyond its ends, as upstream."""
    padded = F.pad(sound, (0, 0, MAX_OFFSET, MAX_OFFSET))
    shifts = range(2 * MAX_OFFSET + 1)
    distances = torch.stack([F.pairwise_distance(lips, padded[shift : shift + len(lips)]) for shift in shifts], dim=1)
    means = distances.mean(dim=0)
    best = int(means.argmin())
    median = means.median()
    frames = (median - distances[:, best]).float().cpu().numpy()
    return SyncScore(float(median - means[best]), float(means[best]), MAX_OFFSET - best, frames)


def face_windows(landmarks: Float[np.ndarray, "n 468 d"], valid: np.ndarray) -> Float32[np.ndarray, "n 3"]:
    """Centre x, centre y and half the longer side of every frame's face, median over 13 frames, pixels.

    Frames without a face take the nearest one's. Raises ValueError if there is none.
    """
    known = np.flatnonzero(valid)
    if len(known) == 0:
        raise ValueError("no frame has a face")
    low, high = landmarks[known, :, :2].min(axis=1), landmarks[known, :, :2].max(axis=1)
    measured = np.column_stack([(low + high) / 2, (high - low).max(axis=1) / 2])
    filled = measured[np.searchsorted(known, nearest(valid))]
    edge = SMOOTHED_FRAMES // 2
    padded = np.pad(filled, ((edge, edge), (0, 0)), mode="edge")
    return np.stack([medfilt(column, SMOOTHED_FRAMES)[edge:-edge] for column in padded.T], axis=1).astype(np.float32)


def cut_face(frame: UInt8[np.ndarray, "h w 3"], window: Float32[np.ndarray, " 3"]) -> UInt8[np.ndarray, "224 224 3"]:
    """SyncNet's crop of a frame: the box with a margin of 0.4 of its half side on either side and 0.8 below."""
    x, y, half = (float(value) for value in window)
    side = half * (1 + CROP_SCALE)
    box = np.array([x - side, y - half, x + side, y + half * (1 + 2 * CROP_SCALE)]).round().astype(int)
    height, width = frame.shape[:2]
    crop = crop_box(frame, box)
    outside = crop_box(np.ones((height, width), np.uint8), box) == 0
    crop[outside] = CROP_FILL
    return resize_image(crop, CROP_SIZE, CROP_SIZE, "bilinear")
