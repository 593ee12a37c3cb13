"""Make the files of demo/: a short portrait clip with a little head motion, and a line of speech.

example_5s.mp4 and xinwen_5s.mp3 are the first five seconds of both, under the names that JoyGen's README uses.

    python -m scripts.make_demo_media --result_dir demo

The portrait is NASA's photograph of the astronaut Eileen Collins (1999, public domain), as scikit-image ships it. The
speech is spoken by the espeak-ng program (https://github.com/espeak-ng/espeak-ng), which this script calls; with
--skip_speech it is not needed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from utils.core import cli
from utils.core.errors import BadInput, StageFailure
from utils.core.options import CommandParser
from utils.core.types import MOTION_FPS, SAMPLE_RATE
from utils.files.atomic import atomic_path, require_writable
from utils.media.audio import load_waveform, write_mp3
from utils.media.video import VideoWriter

FRAME_SIZE = 512  # px, the clip is square
CROP_LEFT, CROP_TOP, CROP_SIZE = 103, 2, 240  # px of the 512 x 512 photograph: head and shoulders
HEAD_CENTER, HEAD_RADIUS = (223.0, 125.0), 75.0  # px of the photograph: the rigidly moving part
HEAD_FALLOFF = 60.0  # px over which the motion fades out towards neck and background
SHIFT, TILT, ZOOM = 6.0, 0.06, 0.02  # largest motion: px of the photograph, rad, relative
PERIODS = (5.3, 2.9, 1.7)  # seconds of the slow waves that make up each motion
WAVE_WEIGHTS = (0.6, 0.3, 0.1)
X264_CRF = 22  # small enough for git, and still without visible blocks

SPEECH_TEXT = "Hello! I have never said this before. A small program spoke these words, and my mouth follows them."
SPEECH_VOICE, WORDS_PER_MINUTE = "en-us+f3", 165
EXCERPT_SECONDS = 5.0


def slow_waves(times: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A smooth motion in [-1, 1] for times [N] in seconds, zero at the first one."""
    phases = generator.uniform(0, 2 * np.pi, len(PERIODS))
    waves = [np.sin(2 * np.pi * times / period + phase) for period, phase in zip(PERIODS, phases, strict=True)]
    motion = np.tensordot(WAVE_WEIGHTS, np.stack(waves), axes=1)
    return (motion - motion[0]) / 2


def moving_portrait(photograph: np.ndarray, n_frames: int, seed: int) -> Iterator[np.ndarray]:
    """Yield uint8 RGB [512, 512, 3] frames: the head sways, tilts and nears a little, the rest stays."""
    generator = np.random.default_rng(seed)
    times = np.arange(n_frames) / MOTION_FPS
    shift_x, shift_y, tilt, zoom = (slow_waves(times, generator) for _ in range(4))
    grid = (np.arange(FRAME_SIZE) + 0.5) * CROP_SIZE / FRAME_SIZE - 0.5
    x, y = np.meshgrid(grid + CROP_LEFT, grid + CROP_TOP)
    to_x, to_y = x - HEAD_CENTER[0], y - HEAD_CENTER[1]
    beyond = np.clip((np.hypot(to_x, to_y) - HEAD_RADIUS) / HEAD_FALLOFF, 0, 1)
    weight = 0.5 + 0.5 * np.cos(np.pi * beyond)
    for frame in range(n_frames):
        angle, scale = TILT * tilt[frame], 1 / (1 + ZOOM * zoom[frame])
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        source_x = x + weight * (cos * to_x + sin * to_y - to_x - SHIFT * shift_x[frame])
        source_y = y + weight * (cos * to_y - sin * to_x - to_y - SHIFT * shift_y[frame])
        yield cv2.remap(
            photograph,
            source_x.astype(np.float32),
            source_y.astype(np.float32),
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )


def write_portrait(path: Path, seconds: float, seed: int) -> None:
    from skimage.data import astronaut

    with VideoWriter(path, crf=X264_CRF) as writer:
        for frame in moving_portrait(astronaut(), round(seconds * MOTION_FPS), seed):
            writer.write(frame)


def write_speech(path: Path) -> None:
    if shutil.which("espeak-ng") is None:
        raise BadInput("program espeak-ng not found", advice="install it, or give --skip_speech")
    with atomic_path(path) as temporary:
        command = ["espeak-ng", "-v", SPEECH_VOICE, "-s", str(WORDS_PER_MINUTE), "-w", str(temporary), SPEECH_TEXT]
        if subprocess.run(command, check=False).returncode:
            raise StageFailure(f"espeak-ng failed: {' '.join(command)}")


def main(argv: list[str] | None) -> None:
    parser = CommandParser(description=__doc__.splitlines()[0])
    parser.add_argument("--result_dir", type=Path, default=Path("demo"))
    parser.add_argument("--seconds", type=float, default=6.0, help="length of the portrait clip (default 6)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip_speech", action="store_true", help="keep the existing speech")
    arguments = parser.parse_args(argv)
    require_writable(arguments.result_dir)
    speech_path = arguments.result_dir / "speech.wav"
    write_portrait(arguments.result_dir / "portrait.mp4", arguments.seconds, arguments.seed)
    write_portrait(arguments.result_dir / "example_5s.mp4", EXCERPT_SECONDS, arguments.seed)
    if not arguments.skip_speech:
        write_speech(speech_path)
    if speech_path.is_file():
        speech = load_waveform(speech_path)
        write_mp3(arguments.result_dir / "xinwen_5s.mp3", speech[: round(EXCERPT_SECONDS * SAMPLE_RATE)])


if __name__ == "__main__":
    cli.run(main)
