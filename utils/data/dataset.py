"""Training batches of stage 3: faces, references, depth and sound of a few clips, augmented.

Batch k depends on the seed and k only, so a resumed training gets the same batches as an uninterrupted one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from utils.core.config import Count, Size, Whole
from utils.core.errors import BadInput
from utils.data.augment import Augmentation, sample_color, sample_placement, sample_shift, shift_image
from utils.data.clips import STORED_SIZE, Clip, clip_names
from utils.data.segments import SegmentSource
from utils.data.sound_states import StateSource
from utils.data.splits import MIN_FRAMES, TRAIN_LIST, VALIDATION_LIST, read_names
from utils.imaging.face_warp import MouthPicture, compose_reference
from utils.imaging.images import mouth_depth, stack_gray, stack_images
from utils.imaging.masks import mouth_mask
from utils.imaging.mouth_library import N_MOUTHS

MIN_REFERENCE_DISTANCE = 5  # frames
NEAR_DISTANCE = 25  # frames
NEAR_FRAMES, SIMILAR_MOUTHS, MIXED_MOUTHS = 0.75, 0.75, 0.2  # shares of composed references, see make_reference


@dataclass(frozen=True)
class DatasetConfig:
    root_dir: Path
    img_size: Size  # side of the generator's images, pixels
    batch_size: Count
    train_file: Path | None = None  # names of the training clips, one per line; null: see split_clips
    val_file: Path | None = None  # names of the held-out clips
    num_workers: Whole = 0
    frames_per_clip: Count = 1  # frames per clip in a batch, which share a pass of the audio encoder
    # other: another frame of the clip; composed: a near frame with another frame's mouth, see compose_reference
    reference: Literal["other", "composed"] = "other"
    fine_size: Size | None = None  # side of targets and references for a refiner; null: img_size
    in_memory: bool = False  # keep decoded images (200 kB and 65 kB per frame)
    augment: Augmentation = field(default_factory=Augmentation)

    @property
    def picture_size(self) -> int:
        return self.fine_size or self.img_size


@dataclass(frozen=True)
class Batch:
    """B = G * F items: F frames of each of G clips, group after group. Images are uint8 RGB.

    Depths have the generator's image size, the others may be larger, see DatasetConfig.fine_size.
    """

    targets: UInt8[Tensor, "b 3 p p"]
    references: UInt8[Tensor, "b 3 p p"]
    depths: UInt8[Tensor, "b 1 s s"]  # inside the lips; 0 where depth is dropped
    mouths: UInt8[Tensor, "b 1 p p"]  # 1 inside the lips of the target
    log_mel: Float[Tensor, "g c t"]
    rows: Int[Tensor, "b 10"]  # states of the group's segment in the frame's window
    has_audio: Bool[Tensor, " g"]
    windows: Float[Tensor, "b n d"] | None  # of a frozen speech encoder's states
    names: tuple[str, ...]  # "clip/frame" of every item, for messages

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {
            key: value.to(device) for key, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def join_batches(parts: Sequence[Batch]) -> Batch:
    tensors: dict[str, Any] = {
        key: torch.cat([getattr(part, key) for part in parts])
        for key, value in vars(parts[0]).items()
        if isinstance(value, Tensor)
    }
    return replace(parts[0], **tensors, names=tuple(name for part in parts for name in part.names))


class TrainingBatches(Dataset[Batch]):
    """Batches of a training by number."""

    def __init__(
        self,
        clips: Sequence[Clip],
        config: DatasetConfig,
        sound: SegmentSource,
        n_batches: int,
        seed: int,
        states: StateSource | None = None,
    ) -> None:
        """states: of a frozen speech encoder, whose windows come with the batches.

        Raises BadInput if no clip has enough usable frames, or batch_size is not a multiple of frames_per_clip."""
        self._clips = [clip for clip in clips if clip.valid.sum() >= MIN_FRAMES]
        if not self._clips:
            raise BadInput("no usable clip", config.root_dir, f"a clip of {MIN_FRAMES} frames with a face", "none")
        if config.batch_size % config.frames_per_clip:
            expected = f"a multiple of frames_per_clip = {config.frames_per_clip}"
            raise BadInput("batch_size cannot be shared among clips", None, expected, str(config.batch_size))
        self._config, self._sound, self._n_batches, self._seed = config, sound, n_batches, seed
        self._states = states
        shares = np.sqrt([clip.valid.sum() for clip in self._clips])  # long clips more often, not in proportion
        self._clip_shares = shares / shares.sum()

    def __len__(self) -> int:
        return self._n_batches

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self._seed, index])
        n_groups = self._config.batch_size // self._config.frames_per_clip
        has_enough = len(self._clips) >= n_groups
        chosen = rng.choice(len(self._clips), n_groups, replace=not has_enough, p=self._clip_shares)
        return join_batches([self._group(self._clips[i], rng) for i in chosen])

    def _group(self, clip: Clip, rng: np.random.Generator) -> Batch:
        """Items of one clip whose sound lies in one segment."""
        usable = np.flatnonzero(clip.valid)
        segment = self._sound.cut(clip.name, clip.audio, int(rng.choice(usable)), rng)
        covered = usable[segment.covers(usable)]
        n_wanted = self._config.frames_per_clip
        frames = rng.choice(covered, n_wanted, replace=len(covered) < n_wanted)
        items = [make_item(clip, int(frame), self._config, rng) for frame in frames]
        targets, references, depths, mouths = zip(*items, strict=True)
        return Batch(
            targets=stack_images(targets),
            references=stack_images(references),
            depths=stack_gray(depths),
            mouths=stack_gray(mouths),
            log_mel=segment.log_mel[None],
            rows=segment.rows(frames),
            has_audio=torch.tensor([clip.sound is not None]),
            windows=None if self._states is None else self._states.windows(clip.name, clip.audio, frames),
            names=tuple(f"{clip.name}/{frame}" for frame in frames),
        )


def make_item(
    clip: Clip, frame: int, config: DatasetConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One augmented training item: target and reference uint8 [p, p, 3], depth [s, s] and mouth [p, p] uint8."""
    augment, size, fine = config.augment, config.img_size, config.picture_size
    placement, color = sample_placement(augment, rng), sample_color(augment, rng)
    reference = make_reference(clip, frame, config, rng)
    right, down = sample_shift(augment, size, rng)
    shows_depth = rng.random() < augment.depth
    landmarks = clip.landmarks[frame]
    depth = placement.apply(mouth_depth(clip.depths[frame], landmarks), size)
    mouth = mouth_mask(landmarks, (STORED_SIZE, STORED_SIZE))
    return (
        color.apply(placement.apply(clip.faces[frame], fine)),
        color.apply(placement.apply(reference, fine)),
        shift_image(depth, right, down) if shows_depth else np.zeros_like(depth),
        placement.apply(mouth, fine),
    )


def make_reference(
    clip: Clip, frame: int, config: DatasetConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """The generator's reference image; never the target's own mouth."""
    if config.reference == "other":
        return clip.faces[choose_reference(clip.valid, frame, rng)]
    is_own = rng.random() < config.augment.same_frame
    around = frame if is_own else frame_near(clip.valid, frame, rng)
    n_mouths = 2 if rng.random() < MIXED_MOUTHS else 1
    chosen = [choose_mouth(clip, frame, rng) for _ in range(n_mouths)]
    mouths = [MouthPicture(clip.faces[index], clip.landmarks[index], 1 / n_mouths) for index in chosen]
    target = clip.landmarks[frame]
    return compose_reference(clip.faces[around], clip.landmarks[around], mouths, target, STORED_SIZE)


def choose_mouth(clip: Clip, frame: int, rng: np.random.Generator) -> int:
    """A frame whose mouth is shown: with SIMILAR_MOUTHS the most similar one of N_MOUTHS, as at inference, else any."""
    if rng.random() >= SIMILAR_MOUTHS:
        return choose_reference(clip.valid, frame, rng)
    some = np.array([choose_reference(clip.valid, frame, rng) for _ in range(N_MOUTHS)])
    wanted, known = clip.mouths[frame], clip.mouths[some]
    return int(some[np.square(known - wanted).sum(axis=1).argmin()])


def frame_near(valid: Bool[np.ndarray, " n"], frame: int, rng: np.random.Generator) -> int:
    """A frame within NEAR_DISTANCE with probability inverse to its distance; with 1 - NEAR_FRAMES a distant one."""
    distances = np.abs(np.arange(len(valid)) - frame)
    near = np.flatnonzero(valid & (distances > 0) & (distances <= NEAR_DISTANCE))
    if len(near) and rng.random() < NEAR_FRAMES:
        shares = 1 / distances[near]
        return int(rng.choice(near, p=shares / shares.sum()))
    return choose_reference(valid, frame, rng)


def choose_reference(valid: Bool[np.ndarray, " n"], frame: int, rng: np.random.Generator) -> int:
    """Another usable frame, at least five away; the farthest one if the clip is too short for that."""
    usable = np.flatnonzero(valid)
    distances = np.abs(usable - frame)
    distant = usable[distances >= MIN_REFERENCE_DISTANCE]
    return int(rng.choice(distant)) if len(distant) else int(usable[distances.argmax()])


class NumberedBatches(Dataset[tuple[int, "Batch | BadInput"]]):
    """Batches with their numbers, or the BadInput of an unusable file, which a worker would raise with a traceback."""

    def __init__(self, batches: TrainingBatches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> tuple[int, Batch | BadInput]:
        try:
            return number, self._batches[number]
        except BadInput as error:
            return number, error


def numbered_batches(
    batches: TrainingBatches, first: int, process: int, n_processes: int, n_workers: int
) -> Iterator[tuple[int, Batch]]:
    """Numbers first + process, first + process + n_processes, ... and their batches, in this order."""
    order = range(first + process, len(batches), n_processes)
    n_workers = min(n_workers, os.cpu_count() or 1)
    for number, batch in DataLoader(NumberedBatches(batches), batch_size=None, sampler=order, num_workers=n_workers):
        if isinstance(batch, BadInput):
            raise batch
        yield number, batch


def split_clips(config: DatasetConfig) -> tuple[list[str], list[str]]:
    """Names of the training and of the held-out clips; raises BadInput if a list is missing or they overlap.

    Without lists in the config those of preprocess_dataset_extra.py are used; without these all clips are for training.
    """
    train_file, val_file = config.train_file, config.val_file
    if train_file is None and val_file is None and (config.root_dir / TRAIN_LIST).is_file():
        train_file, val_file = config.root_dir / TRAIN_LIST, config.root_dir / VALIDATION_LIST
    held_out = read_names(val_file) if val_file else []
    if train_file:
        training = read_names(train_file)
    else:
        training = [name for name in clip_names(config.root_dir) if name not in held_out]
    both = sorted(set(training) & set(held_out))
    if both:
        raise BadInput("clip is in both lists", train_file, "separate lists", both[0])
    return training, held_out
