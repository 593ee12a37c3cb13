"""Clips of speech with tracked expression, and the training windows cut from them.

A clip folder (preprocess_dataset.py) gives coeffs.npy [N, 257], valid.npy [N] at 25 Hz and audio.npy int16 at 16 kHz.
Windows are drawn and disturbed at random; every draw comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Bool, Float, Int

from utils.errors import BadInput
from utils.landmarks import LOWER_OUTER_LIP, UPPER_OUTER_LIP
from utils.store import load_array
from utils.types import FEATURE_RATE, MOTION_FPS, N_COEFFS, N_EXP, N_ID, SAMPLE_RATE, SAMPLES_PER_FRAME

STEPS_PER_FRAME = FEATURE_RATE // MOTION_FPS
MARGIN_FRAMES = 1  # of sound on both sides of a window, so that its first feature step hears what came before
MIDDLE_UPPER_LIDS, MIDDLE_LOWER_LIDS = (159, 386), (145, 374)  # right and left eye
AMPLITUDE_QUANTILE = 0.9
BLINK_QUANTILE, BLINK_SHARE = 0.75, 0.85
_INT16_SCALE = 32768.0
_DATA_ADVICE = "run preprocess_dataset.py on clips with sound"


@dataclass(frozen=True)
class MotionDataConfig:
    """Which clips, how long the windows are, and what is known of each clip."""

    validation_clips: tuple[str, ...] = ()
    window_frames: int = 100  # 4 s; a multiple of 4
    batch_size: int = 16
    lag_table: Path | None = None  # YAML, clip: frames by which its lips come later than its sound
    weight_table: Path | None = None  # YAML, clip: how much oftener than others a frame of it is drawn; 0 leaves it out
    center_expression: bool = False  # replace each clip's mean expression by the mean of the training clips


@dataclass(frozen=True)
class AugmentationConfig:
    """Random disturbances of training windows; the defaults are none, as in the reference."""

    gain_db: float = 0.0  # loudness changes by up to this much either way
    noise_probability: float = 0.0  # not with HuBERT, whose features are computed once per clip
    noise_snr_db: tuple[float, float] = (5.0, 40.0)  # uniform between the two
    speed: float = 0.0  # sound and lips run up to this share faster or slower; pitch follows
    channel: float = 0.0  # standard deviation of a constant added to each feature channel: another microphone
    time_masks: int = 0  # up to this many runs of steps lose their features
    time_mask_steps: int = 20  # longest run
    coefficient_masks: int = 0  # up to this many feature channels are blanked over the whole window
    mirror_probability: float = 0.0  # swap left and right, where the face model knows how


@dataclass(frozen=True)
class MotionClip:
    """One clip. wave float32 [n]; expression [N, 64], identity [N, 80], valid [N] at 25 Hz; f0 (Hz), blink (0/1) and
    audio (states of a network that has heard the whole clip) at 50 Hz, empty where they are not used; lag in frames;
    weight and mouth_amp are numbers."""

    name: str
    wave: Float[np.ndarray, " n"]
    expression: Float[np.ndarray, "t 64"]
    identity: Float[np.ndarray, "t 80"]
    valid: Bool[np.ndarray, " t"]
    lag: float = 0.0
    weight: float = 1.0
    f0: Float[np.ndarray, " s"] = field(default_factory=lambda: np.zeros(0, np.float32))
    blink: Int[np.ndarray, " s"] = field(default_factory=lambda: np.zeros(0, np.int64))
    mouth_amp: float = 0.0
    audio: Float[np.ndarray, "a c"] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @property
    def n_frames(self) -> int:
        return len(self.valid)


@dataclass(frozen=True)
class MotionWindow:
    """A piece of one clip: T frames of motion, and their sound with one frame more on either side.

    ``rate`` is the sample rate in Hz at which the sound is as long as the motion. mask [T] is 1 where the motion is
    known; f0, blink and audio (if the clip has it) have 2 T steps.
    """

    wave: Float[np.ndarray, " n"]
    rate: float
    expression: Float[np.ndarray, "t 64"]
    identity: Float[np.ndarray, "t 80"]
    mask: Float[np.ndarray, " t"]
    f0: Float[np.ndarray, " s"]
    blink: Int[np.ndarray, " s"]
    mouth_amp: float
    audio: Float[np.ndarray, "s c"]


def load_motion_clips(data_dir: Path, config: MotionDataConfig) -> tuple[list[MotionClip], list[MotionClip]]:
    """All clips of a folder that have sound: those to train on, and those to validate on.

    Raises BadInput for an empty folder, a damaged clip, and names in the config or its tables that are not there.
    """
    folders = sorted(path.parent for path in data_dir.glob("*/audio.npy"))
    if not folders:
        raise BadInput(
            "no clip with sound", data_dir, "<clip>/audio.npy, coeffs.npy and valid.npy", "none", _DATA_ADVICE
        )
    lags, weights = read_clip_table(config.lag_table), read_clip_table(config.weight_table)
    clips = [
        replace(_load_clip(folder), lag=lags.get(folder.name, 0.0), weight=weights.get(folder.name, 1.0))
        for folder in folders
    ]
    names = {clip.name for clip in clips}
    for name in config.validation_clips:
        if name not in names:
            raise BadInput("validation clip is not there", data_dir / name, "a clip with sound", "none", _DATA_ADVICE)
    training = [clip for clip in clips if clip.name not in config.validation_clips and clip.weight > 0]
    validation = [clip for clip in clips if clip.name in config.validation_clips]
    if not training:
        raise BadInput("no clip left to train on", data_dir, "clips beside those for validation", str(len(clips)))
    return (
        (center(training, training), center(validation, training))
        if config.center_expression
        else (training, validation)
    )


def read_clip_table(path: Path | None) -> dict[str, float]:
    """A YAML file of ``clip: number`` lines; no file means an empty table. Clips that do not exist are ignored."""
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise BadInput("unreadable table", path, "lines of clip: number", str(error)) from error
    numbers = content if isinstance(content, Mapping) else {}
    if not numbers or not all(isinstance(value, int | float) for value in numbers.values()):
        raise BadInput("unusable table", path, "lines of clip: number", str(content)[:80])
    return {str(name): float(value) for name, value in numbers.items()}


def _load_clip(folder: Path) -> MotionClip:
    coefficients = load_array(folder / "coeffs.npy", (None, N_COEFFS), "f", _DATA_ADVICE)
    valid = load_array(folder / "valid.npy", (len(coefficients),), "b", _DATA_ADVICE)
    wave = load_array(folder / "audio.npy", (None,), "i", _DATA_ADVICE).astype(np.float32) / _INT16_SCALE
    if not valid.any():
        raise BadInput("no face in clip", folder, "valid frames", "none", "delete the clip's folder")
    identity, expression = np.split(coefficients[:, : N_ID + N_EXP].astype(np.float32), [N_ID], axis=1)
    return MotionClip(folder.name, wave, expression, identity, valid)


def center(clips: Sequence[MotionClip], training: Sequence[MotionClip]) -> list[MotionClip]:
    """Give every clip the training clips' mean expression: what a face looks like at rest cannot be heard."""
    overall = np.concatenate([clip.expression[clip.valid] for clip in training]).mean(axis=0)
    return [
        replace(clip, expression=clip.expression - clip.expression[clip.valid].mean(axis=0) + overall) for clip in clips
    ]


class WindowSampler:
    """Draws windows: a clip by its length times its weight, a start uniformly, then the disturbances."""

    def __init__(
        self,
        clips: Sequence[MotionClip],
        n_frames: int,
        augmentation: AugmentationConfig,
        mirror_expression: Float[np.ndarray, "64 64"] | None = None,
    ) -> None:
        if augmentation.mirror_probability > 0 and mirror_expression is None:
            raise BadInput(
                "this face model has no mirror_exp array", expected="augmentation.mirror_probability: 0", found="more"
            )
        self.clips, self.n_frames, self.augmentation = clips, n_frames, augmentation
        self.mirror_expression = mirror_expression
        shares = np.array([clip.n_frames * clip.weight for clip in clips])
        self.shares = shares / shares.sum()

    def draw(self, rng: np.random.Generator) -> MotionWindow:
        clip = self.clips[rng.choice(len(self.clips), p=self.shares)]
        speed = 1 + rng.uniform(-1, 1) * self.augmentation.speed
        last_start = max(0.0, clip.n_frames - 1 - (self.n_frames - 1) * speed)
        window = cut_window(clip, rng.uniform(0, last_start), self.n_frames, speed)
        if rng.random() < self.augmentation.mirror_probability and self.mirror_expression is not None:
            window = replace(window, expression=window.expression @ self.mirror_expression)
        return replace(window, wave=self._disturbed(window.wave, rng))

    def _disturbed(self, wave: Float[np.ndarray, " n"], rng: np.random.Generator) -> Float[np.ndarray, " n"]:
        settings = self.augmentation
        if rng.random() < settings.noise_probability:
            wave = add_noise(wave, rng.uniform(*settings.noise_snr_db), rng)
        return wave * np.float32(10 ** (rng.uniform(-1, 1) * settings.gain_db / 20))


def cut_window(clip: MotionClip, start: float, n_frames: int, speed: float = 1.0) -> MotionWindow:
    """Frames start, start + speed, ... of a clip, and the sound that belongs to them.

    ``start`` counts frames of the motion; the sound is read ``clip.lag`` frames earlier. Beyond the clip's ends the
    sound is silence and the mask 0.
    """
    positions = start + speed * np.arange(n_frames)
    below = np.clip(np.floor(positions).astype(int), 0, clip.n_frames - 1)
    above = np.minimum(below + 1, clip.n_frames - 1)
    share = (positions - below).astype(np.float32)[:, None].clip(0, 1)
    inside = positions <= clip.n_frames - 1
    first_sound = start - clip.lag  # in frames of the sound track
    return MotionWindow(
        wave=_cut_sound(clip.wave, first_sound - MARGIN_FRAMES * speed, (n_frames + 2 * MARGIN_FRAMES) * speed),
        rate=SAMPLE_RATE * speed,
        expression=clip.expression[below] * (1 - share) + clip.expression[above] * share,
        identity=clip.identity[below],
        mask=(inside & clip.valid[below] & clip.valid[above]).astype(np.float32),
        f0=_cut_steps(clip.f0, first_sound, n_frames, speed) * np.float32(speed),
        blink=_cut_steps(clip.blink, start, n_frames, speed),
        mouth_amp=clip.mouth_amp,
        audio=_cut_steps(clip.audio, first_sound, n_frames, speed),
    )


def _cut_sound(wave: Float[np.ndarray, " n"], first_frame: float, n_frames: float) -> Float[np.ndarray, " m"]:
    start, length = round(first_frame * SAMPLES_PER_FRAME), round(n_frames * SAMPLES_PER_FRAME)
    inside = wave[max(0, start) : max(0, start + length)]
    before = min(length, max(0, -start))
    return np.pad(inside, (before, length - before - len(inside)))


def _cut_steps(steps: np.ndarray, first_frame: float, n_frames: int, speed: float) -> np.ndarray:
    """Nearest 50-Hz values under a window; zeros where there are none."""
    times = first_frame * STEPS_PER_FRAME + speed * np.arange(n_frames * STEPS_PER_FRAME)
    index = np.rint(times).astype(int)
    known = (index >= 0) & (index < len(steps))
    values = np.zeros((len(index), *steps.shape[1:]), steps.dtype)
    values[known] = steps[index[known]]
    return values


def add_noise(wave: Float[np.ndarray, " n"], snr_db: float, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Add Gaussian noise, white to nearly brown at random, at a signal-to-noise ratio."""
    from scipy.signal import lfilter

    white = rng.standard_normal(len(wave), dtype=np.float32)
    noise = lfilter([1.0], [1.0, -rng.uniform(0, 0.95)], white)
    power = np.mean(wave**2) / 10 ** (snr_db / 10)
    return wave + (noise * np.sqrt(power / np.mean(noise**2))).astype(np.float32)


def mask_features(
    features: Float[np.ndarray, "t c"], settings: AugmentationConfig, rng: np.random.Generator
) -> Float[np.ndarray, "t c"]:
    """Another microphone, lost steps and lost channels (SpecAugment, arXiv 1904.08779) on a window's features."""
    n_steps, n_coefficients = features.shape
    mean = features.mean(axis=0)
    masked = features + rng.normal(0, 1, n_coefficients).astype(np.float32) * np.float32(settings.channel)
    for _ in range(rng.integers(settings.time_masks + 1)):
        length = rng.integers(1, settings.time_mask_steps + 1)
        start = rng.integers(max(1, n_steps - length))
        masked[start : start + length] = mean
    for _ in range(rng.integers(settings.coefficient_masks + 1)):
        column = rng.integers(n_coefficients)
        masked[:, column] = mean[column]
    return masked


def mouth_amplitude(landmarks: Float[np.ndarray, "t 468 3"]) -> float:
    """How far a clip's mouth opens: 90th percentile of the L1 distance between the outer lips' middles.

    landmarks are the offsets that LandmarkLoss sees (centimetres, without the mean face).
    """
    distance = np.abs(landmarks[:, UPPER_OUTER_LIP] - landmarks[:, LOWER_OUTER_LIP]).sum(axis=-1)
    return float(np.quantile(distance, AMPLITUDE_QUANTILE))


def blink_labels(landmarks: Float[np.ndarray, "t 468 3"]) -> Int[np.ndarray, " s"]:
    """1 in the middle frame of every blink, at 50 Hz; the eyes are shut below 0.85 of their usual opening.

    landmarks are those of the whole unposed face.
    """
    upper, lower = (landmarks[:, list(lids)].mean(axis=1) for lids in (MIDDLE_UPPER_LIDS, MIDDLE_LOWER_LIDS))
    opening = np.linalg.norm(upper - lower, axis=-1)
    shut = opening < BLINK_SHARE * np.quantile(opening, BLINK_QUANTILE)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], shut.astype(int), [0]])))
    blinks = np.zeros(len(landmarks), np.int64)
    blinks[(edges[::2] + edges[1::2] - 1) // 2] = 1
    return blinks.repeat(STEPS_PER_FRAME)
