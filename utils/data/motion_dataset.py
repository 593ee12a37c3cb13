"""Clips of speech with tracked expression: splits, speakers, and labels of blinks and mouth amplitude.

A clip (a folder, or packed in a shard, by preprocess_dataset.py) gives coeffs.npy [N, 257], valid.npy [N] at 25 Hz and
audio.npy int16 at 16 kHz.
"""

from __future__ import annotations

import reprlib
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from utils.core.config import Count, parse_yaml
from utils.core.errors import BadInput
from utils.core.types import FEATURE_RATE, MOTION_FPS, N_EXP, N_ID
from utils.data.clips import clip_folders
from utils.data.splits import TRAIN_LIST, VALIDATION_LIST, read_names, read_speakers
from utils.files.arrays import StoredPath
from utils.imaging.landmarks import LOWER_OUTER_LIP, UPPER_OUTER_LIP
from utils.results.training_clip import MOTION_CLIP_PATTERN, ClipArrays

STEPS_PER_FRAME = FEATURE_RATE // MOTION_FPS
MIDDLE_UPPER_LIDS, MIDDLE_LOWER_LIDS = (159, 386), (145, 374)  # right and left eye
AMPLITUDE_QUANTILE = 0.9
BLINK_QUANTILE, BLINK_SHARE = 0.75, 0.85
_INT16_SCALE = 32768.0
_DATA_ADVICE = "run preprocess_dataset.py on clips with sound"


@dataclass(frozen=True)
class MotionDataConfig:
    """Validation clips, windows, and tables of speakers, lags and weights."""

    validation_clips: tuple[str, ...] = ()  # none: the lists of preprocess_dataset_extra.py, if they exist
    speakers: Path | None = None  # lines of <clip> <speaker>; an unlisted clip is a speaker of its own
    groups: Path | None = None  # lines of <clip> <group>, such as a language; the validation gives each group's means
    window_frames: Count = 100  # 4 s; a multiple of 4
    batch_size: Count = 16
    lag_table: Path | None = None  # YAML, clip: frames by which its lips come later than its sound
    weight_table: Path | None = None  # YAML, clip: relative sampling weight of its frames; 0 leaves it out
    center_expression: bool = False  # replace each clip's mean expression by the mean of the training clips


@dataclass(frozen=True)
class MotionClip:
    """One clip. wave float32 [n]; expression [N, 64], identity [N, 80], valid [N] at 25 Hz; f0 (Hz), blink (0/1) and
    audio (encoder states of the whole clip) at 50 Hz, empty where they are not used; lag in frames;
    weight, mouth_amp and eye_amp are numbers."""

    name: str
    speaker: str
    wave: Float[np.ndarray, " n"]
    expression: Float[np.ndarray, "t 64"]
    identity: Float[np.ndarray, "t 80"]
    valid: Bool[np.ndarray, " t"]
    lag: float = 0.0
    weight: float = 1.0
    f0: Float[np.ndarray, " s"] = field(default_factory=lambda: np.zeros(0, np.float32))
    blink: Int[np.ndarray, " s"] = field(default_factory=lambda: np.zeros(0, np.int64))
    mouth_amp: float = 0.0
    eye_amp: float = 0.0
    audio: Float[np.ndarray, "a c"] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    is_copy: bool = False  # another clip with other sound, see utils/data/sound_variants.py
    group: str = ""  # of the validation's means
    is_cut: bool = False  # its sound was cut off at its end, where its windows end too

    @property
    def n_frames(self) -> int:
        return len(self.valid)


def clip_generator(clip: MotionClip, seed: int) -> np.random.Generator:
    """For what is drawn once per clip: whichever other clips are loaded, so that stored states of copies are reused."""
    return np.random.default_rng([seed, zlib.crc32(clip.name.encode())])


def load_motion_clips(data_dir: Path, config: MotionDataConfig) -> tuple[list[MotionClip], list[MotionClip]]:
    """Clips of a folder that have sound: those to train on, and those to validate on.

    Raises BadInput for an empty folder, a damaged clip, and unknown names in the config or the folder's lists.
    """
    known = clip_folders(data_dir)
    folders = {name: folder for name, folder in known.items() if ClipArrays(folder, _DATA_ADVICE).has_sound}
    if not folders:
        raise BadInput("no clip with sound", data_dir, MOTION_CLIP_PATTERN, "none", _DATA_ADVICE)
    lags, weights = read_clip_table(config.lag_table), read_clip_table(config.weight_table)
    speakers, groups = (read_speakers(path) if path else {} for path in (config.speakers, config.groups))

    def load(name: str) -> MotionClip:
        clip = _load_clip(folders[name], speakers.get(name, name))
        group = groups.get(name, "")
        return replace(clip, lag=lags.get(name, 0.0), weight=weights.get(name, 1.0), group=group)

    training_names, held_out_names = _split(data_dir, config, known, folders)
    training = [load(name) for name in training_names if weights.get(name, 1.0) > 0]
    validation = [load(name) for name in held_out_names]
    if not training:
        raise BadInput("no clip left to train on", data_dir, "clips beside those for validation", str(len(validation)))
    if config.center_expression:
        return center(training, training), center(validation, training)
    return training, validation


def _split(
    data_dir: Path, config: MotionDataConfig, known: Collection[str], folders: Collection[str]
) -> tuple[list[str], list[str]]:
    """Names of the training and validation clips with sound, each list sorted."""
    for name in config.validation_clips:
        if name not in folders:
            raise BadInput("validation clip is not there", data_dir / name, "a clip with sound", "none", _DATA_ADVICE)
    if config.validation_clips or not (data_dir / TRAIN_LIST).is_file():
        held_out = sorted(set(config.validation_clips))
        return [name for name in folders if name not in held_out], held_out
    listed = [read_names(data_dir / name) for name in (TRAIN_LIST, VALIDATION_LIST)]
    both = sorted(set(listed[0]) & set(listed[1]))
    if both:
        raise BadInput("clip is in both lists", data_dir / TRAIN_LIST, "separate lists", both[0])
    for name in (*listed[0], *listed[1]):
        if name not in known:
            advice = "run preprocess_dataset_extra.py again"
            raise BadInput("listed clip is not there", data_dir / name, "a prepared clip", "nothing", advice)
    training, held_out = (sorted(set(names) & set(folders)) for names in listed)
    return training, held_out


def read_clip_table(path: Path | None) -> dict[str, float]:
    """A YAML file of ``clip: number`` lines; None: an empty table. Unknown clips are ignored."""
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("unreadable table", path, "lines of clip: number", str(error)) from error
    content = parse_yaml(text, path)
    numbers = content if isinstance(content, Mapping) else {}
    if not numbers or not all(isinstance(value, int | float) for value in numbers.values()):
        raise BadInput("unusable table", path, "lines of clip: number", reprlib.repr(content))
    return {str(name): float(value) for name, value in numbers.items()}


def _load_clip(folder: StoredPath, speaker: str) -> MotionClip:
    arrays = ClipArrays(folder, _DATA_ADVICE)
    coefficients = arrays.coeffs()
    valid, wave = arrays.valid(len(coefficients)), arrays.sound().astype(np.float32) / _INT16_SCALE
    if not valid.any():
        raise BadInput("no face in clip", str(folder), "valid frames", "none", "delete the clip's folder")
    if not np.isfinite(coefficients[valid]).all():
        path = str(arrays.coeffs_path)
        raise BadInput("coefficients are not finite", path, "finite numbers", "others", _DATA_ADVICE)
    identity, expression = np.split(coefficients[:, : N_ID + N_EXP].astype(np.float32), [N_ID], axis=1)
    return MotionClip(folder.name, speaker, wave, expression, identity, valid)


def center(clips: Sequence[MotionClip], training: Sequence[MotionClip]) -> list[MotionClip]:
    """Replace every clip's mean expression by the training clips': a face's rest shape does not depend on the sound."""
    overall = np.concatenate([clip.expression[clip.valid] for clip in training]).mean(axis=0)
    return [
        replace(clip, expression=clip.expression - clip.expression[clip.valid].mean(axis=0) + overall) for clip in clips
    ]


def mouth_amplitude(landmarks: Float[np.ndarray, "t 468 3"]) -> float:
    """Mouth amplitude of a clip: 90th percentile of the L1 distance between the outer lips' middles.

    landmarks: the clip's unposed face in face units; a closed mouth is not 0 (Real3DPortrait, get_mouth_amp).
    """
    distance = np.abs(landmarks[:, UPPER_OUTER_LIP] - landmarks[:, LOWER_OUTER_LIP]).sum(axis=-1)
    return float(np.quantile(distance, AMPLITUDE_QUANTILE))


def eye_amplitude(landmarks: Float[np.ndarray, "t 468 3"]) -> float:
    """Eye amplitude of a clip: 90th percentile of eye_opening (Real3DPortrait, get_eye_amp)."""
    return float(np.quantile(eye_opening(landmarks), AMPLITUDE_QUANTILE))


def eye_opening(landmarks: Float[np.ndarray, "t 468 3"]) -> Float[np.ndarray, " t"]:
    """L1 distance of the lids' middles, both eyes added; landmarks are those of the whole unposed face."""
    upper, lower = (landmarks[:, list(lids)] for lids in (MIDDLE_UPPER_LIDS, MIDDLE_LOWER_LIDS))
    return np.abs(upper - lower).sum(axis=(1, 2))


def blink_labels(landmarks: Float[np.ndarray, "t 468 3"]) -> Int[np.ndarray, " s"]:
    """1 in the middle frame of every blink, at 50 Hz; closed: below 0.85 of the opening's 75th percentile.

    landmarks: the clip's unposed face (Real3DPortrait, get_blink, which drops a blink that lasts to the clip's end;
    here it is kept).
    """
    opening = eye_opening(landmarks)
    shut = opening < BLINK_SHARE * np.quantile(opening, BLINK_QUANTILE)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], shut.astype(int), [0]])))
    blinks = np.zeros(len(landmarks), np.int64)
    blinks[(edges[::2] + edges[1::2]) // 2] = 1
    return blinks.repeat(STEPS_PER_FRAME)
