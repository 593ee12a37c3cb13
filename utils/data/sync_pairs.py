"""Pairs of lip motion and sound, in sync or not, for the training of a sync expert.

A pair is five frames of motion and ten 50-Hz steps of sound. Shares and offsets are Real3DPortrait's, with two fixes:
sound of another clip is always another speaker's, and a pair that is in sync by chance is labelled so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from utils.core.errors import BadInput
from utils.data.motion_dataset import STEPS_PER_FRAME, MotionClip
from utils.data.motion_windows import cut_steps

PAIR_FRAMES = 5
PAIR_STEPS = STEPS_PER_FRAME * PAIR_FRAMES
NEAR_OFFSETS, FAR_OFFSETS = (2, 5), (5, 10)  # frames in both directions, ends included
NEAR_SHARE, FAR_SHARE, OTHER_SHARE = 0.3, 0.2, 0.1  # of a batch; the rest is in sync


@dataclass(frozen=True)
class SyncClip:
    """One clip with its sound aligned to its frames. expression [T, 64], identity [T, 80], audio [2 T, C];
    starts: frames at which a pair may begin, for motion and for sound."""

    name: str
    speaker: str
    weight: float
    expression: Float[np.ndarray, "t 64"]
    identity: Float[np.ndarray, "t 80"]
    audio: Float[np.ndarray, "s c"]
    starts: Bool[np.ndarray, " n"]

    def motion(self, starts: np.ndarray) -> tuple[Float[np.ndarray, "p 5 64"], Float[np.ndarray, "p 5 80"]]:
        """Expression and identity of the pairs that begin at ``starts``."""
        rows = starts[:, None] + np.arange(PAIR_FRAMES)
        return self.expression[rows], self.identity[rows]

    def sound(self, starts: np.ndarray) -> Float[np.ndarray, "p 10 c"]:
        rows = STEPS_PER_FRAME * starts[:, None] + np.arange(PAIR_STEPS)
        return self.audio[rows].astype(np.float32)


@dataclass(frozen=True)
class SyncPairs:
    """A batch. labels: 1 in sync, 0 not; offsets: frames by which the sound is later, within one clip; clips: names of
    the motion's and of the sound's clip."""

    expression: Float[np.ndarray, "p 5 64"]
    identity: Float[np.ndarray, "p 5 80"]
    audio: Float[np.ndarray, "p 10 c"]
    labels: Float[np.ndarray, " p"]
    offsets: np.ndarray
    clips: list[tuple[str, str]]


def sync_clip(clip: MotionClip, features: Float[np.ndarray, "a c"]) -> SyncClip:
    """Align a whole clip's 50-Hz features to its frames, with its lag removed."""
    audio = cut_steps(features, -clip.lag, clip.n_frames, speed=1.0)
    has_sound = cut_steps(np.ones(len(features), bool), -clip.lag, clip.n_frames, speed=1.0)
    usable = clip.valid & has_sound.reshape(-1, STEPS_PER_FRAME).all(axis=1)
    if len(usable) < PAIR_FRAMES:
        starts = np.zeros(0, bool)
    else:
        starts = np.lib.stride_tricks.sliding_window_view(usable, PAIR_FRAMES).all(axis=1)
    return SyncClip(clip.name, clip.speaker, clip.weight, clip.expression, clip.identity, audio, starts)


class PairSampler:
    """Samples batches of pairs; a clip by its number of usable starts times its weight."""

    def __init__(self, clips: Sequence[SyncClip]) -> None:
        """Raises BadInput for fewer than two speakers, or if the largest offset fits into no clip."""
        self.clips = [clip for clip in clips if clip.starts.any()]
        speakers = {clip.speaker for clip in self.clips}
        if len(speakers) < 2:
            advice = "prepare clips of more people, or correct data.speakers"
            raise BadInput("a sync expert learns from several people", None, "two speakers", str(len(speakers)), advice)
        largest = FAR_OFFSETS[1]
        if not any((clip.starts[largest:] & clip.starts[:-largest]).any() for clip in self.clips):
            expected = f"{largest + PAIR_FRAMES} frames in a row with face and sound"
            raise BadInput("no clip is long enough for the sync expert", None, expected, "less")
        self._starts = [np.flatnonzero(clip.starts) for clip in self.clips]
        shares = np.array([len(starts) * clip.weight for starts, clip in zip(self._starts, self.clips, strict=True)])
        self._shares = shares / shares.sum()

    def draw(self, n_pairs: int, rng: np.random.Generator) -> SyncPairs:
        n_near, n_far, n_other = (round(share * n_pairs) for share in (NEAR_SHARE, FAR_SHARE, OTHER_SHARE))
        groups = [
            self._shifted(n_pairs - n_near - n_far - n_other, (0, 0), rng),
            self._shifted(n_near, NEAR_OFFSETS, rng),
            self._shifted(n_far, FAR_OFFSETS, rng),
            self._of_another(n_other, rng),
        ]
        motion_clips, starts, sound_clips, sound_starts = np.concatenate(groups, axis=1)
        in_time = (motion_clips == sound_clips) & (starts == sound_starts)
        return self._gather(motion_clips, starts, sound_clips, sound_starts, in_time)

    def _gather(
        self,
        motion_clips: np.ndarray,
        starts: np.ndarray,
        sound_clips: np.ndarray,
        sound_starts: np.ndarray,
        in_time: Bool[np.ndarray, " p"],
    ) -> SyncPairs:
        motions = [self.clips[i].motion(np.array([start])) for i, start in zip(motion_clips, starts, strict=True)]
        sounds = [self.clips[i].sound(np.array([start])) for i, start in zip(sound_clips, sound_starts, strict=True)]
        expressions, identities = zip(*motions, strict=True)
        names = [(self.clips[i].name, self.clips[j].name) for i, j in zip(motion_clips, sound_clips, strict=True)]
        return SyncPairs(
            np.concatenate(expressions),
            np.concatenate(identities),
            np.concatenate(sounds),
            in_time.astype(np.float32),
            sound_starts - starts,
            names,
        )

    def _positions(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Random clips and starts within them."""
        chosen = rng.choice(len(self.clips), n, p=self._shares)
        places = rng.random(n)
        starts = [self._starts[i][int(place * len(self._starts[i]))] for i, place in zip(chosen, places, strict=True)]
        return chosen, np.array(starts, dtype=np.int64)

    def _shifted(self, n: int, offsets: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Pairs of one clip, sound off by a whole number of frames: [4, n] clip, start, clip, start of the sound."""
        kept = np.zeros((4, 0), np.int64)
        while kept.shape[1] < n:
            chosen, starts = self._positions(n, rng)
            later = starts + rng.integers(offsets[0], offsets[1] + 1, n) * rng.choice((-1, 1), n)
            fits = [
                0 <= start < len(self.clips[i].starts) and self.clips[i].starts[start]
                for i, start in zip(chosen, later, strict=True)
            ]
            kept = np.concatenate([kept, np.stack([chosen, starts, chosen, later])[:, np.array(fits, bool)]], axis=1)
        return kept[:, :n]

    def _of_another(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Pairs of two speakers: [4, n] as _shifted."""
        speakers = np.unique([clip.speaker for clip in self.clips], return_inverse=True)[1]
        kept = np.zeros((4, 0), np.int64)
        while kept.shape[1] < n:
            motion, sound = self._positions(n, rng), self._positions(n, rng)
            differ = speakers[motion[0]] != speakers[sound[0]]
            kept = np.concatenate([kept, np.stack([*motion, *sound])[:, differ]], axis=1)
        return kept[:, :n]
