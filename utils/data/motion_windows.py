"""Training windows of audio2motion, and augmentation that keeps lips and sound in sync.

All randomness comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from utils.core.config import Amount, Decay, Share, Whole
from utils.core.errors import BadInput
from utils.core.types import SAMPLE_RATE, SAMPLES_PER_FRAME
from utils.data.motion_dataset import STEPS_PER_FRAME, MotionClip

MARGIN_FRAMES = 1  # sound on both sides of a window, context of its first and last feature steps


@dataclass(frozen=True)
class AugmentationConfig:
    """Random augmentation of training windows; off by default, as in the reference."""

    gain_db: Amount = 0.0  # largest change of loudness, up or down
    noise_probability: Share = 0.0  # only with audio_type mfcc; other features are computed once per clip
    noise_snr_db: tuple[float, float] = (5.0, 40.0)  # uniform between the two
    speed: Decay = 0.0  # largest relative change of speed of sound and lips; pitch changes too
    channel: Amount = 0.0  # standard deviation of a constant added to each feature channel: another microphone
    time_masks: Whole = 0  # largest number of masked runs of feature steps
    time_mask_steps: Whole = 20  # longest run
    coefficient_masks: Whole = 0  # largest number of feature channels masked over the whole window
    mirror_probability: Share = 0.0  # probability of swapping left and right; needs the face model's mirror_exp


@dataclass(frozen=True)
class MotionWindow:
    """T frames of motion of one clip, and their sound with one more frame on either side.

    rate: sample rate in Hz at which sound and motion have the same duration. mask [T]: 1 where the motion is
    valid; f0, blink and audio (if the clip has it) have 2 T steps. name: "clip/first frame", for messages.
    """

    name: str
    wave: Float[np.ndarray, " n"]
    rate: float
    expression: Float[np.ndarray, "t 64"]
    identity: Float[np.ndarray, "t 80"]
    mask: Float[np.ndarray, " t"]
    f0: Float[np.ndarray, " s"]
    blink: Int[np.ndarray, " s"]
    mouth_amp: float
    eye_amp: float
    audio: Float[np.ndarray, "s c"]


class WindowSampler:
    """Samples windows: a clip by length times weight, a uniform start (the last one in a cut), then augmentation."""

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
        start = last_start if clip.is_cut else rng.uniform(0, last_start)
        window = cut_window(clip, start, self.n_frames, speed)
        if rng.random() < self.augmentation.mirror_probability and self.mirror_expression is not None:
            window = replace(window, expression=window.expression @ self.mirror_expression)
        return replace(window, wave=self._augmented(window.wave, rng))

    def _augmented(self, wave: Float[np.ndarray, " n"], rng: np.random.Generator) -> Float[np.ndarray, " n"]:
        settings = self.augmentation
        if rng.random() < settings.noise_probability:
            wave = add_noise(wave, rng.uniform(*settings.noise_snr_db), rng)
        return wave * np.float32(10 ** (rng.uniform(-1, 1) * settings.gain_db / 20))


def cut_window(clip: MotionClip, start: float, n_frames: int, speed: float = 1.0) -> MotionWindow:
    """Frames start, start + speed, ... of a clip, and their sound, read ``clip.lag`` frames earlier.

    Beyond the clip's ends the sound is silent and the mask 0.
    """
    positions = start + speed * np.arange(n_frames)
    below = np.clip(np.floor(positions).astype(int), 0, clip.n_frames - 1)
    above = np.minimum(below + 1, clip.n_frames - 1)
    share = (positions - below).astype(np.float32)[:, None].clip(0, 1)
    inside = positions <= clip.n_frames - 1
    first_sound = start - clip.lag  # in frames of the sound track
    return MotionWindow(
        name=f"{clip.name}/{start:.1f}",
        wave=_cut_sound(clip.wave, first_sound - MARGIN_FRAMES * speed, (n_frames + 2 * MARGIN_FRAMES) * speed),
        rate=SAMPLE_RATE * speed,
        expression=clip.expression[below] * (1 - share) + clip.expression[above] * share,
        identity=clip.identity[below],
        mask=(inside & clip.valid[below] & clip.valid[above]).astype(np.float32),
        f0=cut_steps(clip.f0, first_sound, n_frames, speed) * np.float32(speed),
        blink=cut_steps(clip.blink, start, n_frames, speed),
        mouth_amp=clip.mouth_amp,
        eye_amp=clip.eye_amp,
        audio=cut_steps(clip.audio, first_sound, n_frames, speed),
    )


def _cut_sound(wave: Float[np.ndarray, " n"], first_frame: float, n_frames: float) -> Float[np.ndarray, " m"]:
    start, length = round(first_frame * SAMPLES_PER_FRAME), round(n_frames * SAMPLES_PER_FRAME)
    inside = wave[max(0, start) : max(0, start + length)]
    before = min(length, max(0, -start))
    return np.pad(inside, (before, length - before - len(inside)))


def cut_steps(steps: np.ndarray, first_frame: float, n_frames: int, speed: float = 1.0) -> np.ndarray:
    """Nearest 50-Hz values at ``n_frames`` frames of 25 Hz; zeros beyond the ends."""
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
    """A random offset per channel (another microphone), masked steps and channels (SpecAugment, arXiv 1904.08779)."""
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
