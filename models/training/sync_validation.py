"""Accuracy of a sync expert on whole clips: right sound against shifted and foreign sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from utils.data.sync_pairs import FAR_OFFSETS, NEAR_OFFSETS

MAX_OFFSET = 15  # frames, largest offset of the curve in both directions
THRESHOLD = 0.5  # cosine above which a pair counts as in sync
KINDS = ("near", "far", "other")


@dataclass(frozen=True)
class Embedded:
    """Unit vectors of a clip's motion and sound at every usable start."""

    starts: np.ndarray
    motion: Float[np.ndarray, "n e"]
    audio: Float[np.ndarray, "n e"]


@dataclass(frozen=True)
class Judgement:
    """Figures of one clip. wins: share of comparisons in which the right sound beats one shifted a little (near), more
    (far), or another speaker's; ties count half, chance is 0.5. balanced: balanced accuracy of the threshold on right
    and shifted sounds; chance is 0.5. curve: mean cosine by offset in frames."""

    n_pairs: int
    wins: dict[str, float]
    balanced: float
    curve: dict[int, float]

    @property
    def best_offset(self) -> int:
        return max(self.curve, key=lambda offset: self.curve[offset])


def judge(clip: Embedded, strangers: Sequence[Float[np.ndarray, "m e"]]) -> Judgement:
    """strangers: sounds of other speakers; without any there is no wins["other"]."""
    right = (clip.motion * clip.audio).sum(axis=1)
    place = {int(start): row for row, start in enumerate(clip.starts)}
    curve: dict[int, float] = {}
    wins = {kind: _Wins() for kind in KINDS}
    shifted = []
    for offset in range(-MAX_OFFSET, MAX_OFFSET + 1):
        rows = [(row, place[start + offset]) for start, row in place.items() if start + offset in place]
        if not rows:
            continue
        motion_rows, audio_rows = np.array(rows).T
        cosine = (clip.motion[motion_rows] * clip.audio[audio_rows]).sum(axis=1)
        curve[offset] = float(cosine.mean())
        for kind, (low, high) in (("near", NEAR_OFFSETS), ("far", FAR_OFFSETS)):
            if low <= abs(offset) <= high:
                wins[kind].count(right[motion_rows], cosine)
        if NEAR_OFFSETS[0] <= abs(offset) <= FAR_OFFSETS[1]:
            shifted.append(cosine)
    for stranger in strangers:
        wins["other"].count(right[:, None], clip.motion @ stranger.T)
    is_low = np.concatenate(shifted) <= THRESHOLD if shifted else np.array([0.5])
    balanced = float((np.mean(right > THRESHOLD) + is_low.mean()) / 2)
    shares = {kind: found.share for kind, found in wins.items() if found.n_pairs}
    return Judgement(len(right), shares, balanced, curve)


@dataclass
class _Wins:
    """Counts comparisons that the right sound wins; a tie is half a win."""

    n_won: float = 0.0
    n_pairs: int = 0

    def count(self, right: np.ndarray, wrong: np.ndarray) -> None:
        self.n_won += np.count_nonzero(right > wrong) + 0.5 * np.count_nonzero(right == wrong)
        self.n_pairs += wrong.size

    @property
    def share(self) -> float:
        return self.n_won / self.n_pairs


def pool(found: Sequence[Judgement]) -> Judgement:
    """Means over clips, weighted by their numbers of pairs."""

    def mean(values: Sequence[tuple[int, float]]) -> float:
        return sum(n * value for n, value in values) / sum(n for n, _ in values)

    kinds = [kind for kind in KINDS if any(kind in one.wins for one in found)]
    offsets = sorted({offset for one in found for offset in one.curve})
    return Judgement(
        sum(one.n_pairs for one in found),
        {kind: mean([(one.n_pairs, one.wins[kind]) for one in found if kind in one.wins]) for kind in kinds},
        mean([(one.n_pairs, one.balanced) for one in found]),
        {k: mean([(one.n_pairs, one.curve[k]) for one in found if k in one.curve]) for k in offsets},
    )


def judgement_table(found: Mapping[str, Judgement], pooled: Judgement) -> str:
    width = max(len(name) for name in (*found, "clip"))
    near, far = ("-".join(map(str, offsets)) for offsets in (NEAR_OFFSETS, FAR_OFFSETS))
    lines = [
        "how often the right sound wins against a wrong one, and share sorted rightly at cosine 0.5; chance is 50 %",
        f"{'clip':{width}}  pairs  off {near}  off {far}   other  sorted  best offset",
    ]
    for name, one in (*found.items(), ("all", pooled)):
        shares = [100 * one.wins.get(kind, float("nan")) for kind in KINDS]
        cells = f"{shares[0]:6.1f}  {shares[1]:7.1f}  {shares[2]:7.1f}  {100 * one.balanced:6.1f}"
        lines.append(f"{name:{width}}  {one.n_pairs:5d}  {cells}  {one.best_offset:+11d}")
    return "\n".join(lines)


def curve_text(curve: Mapping[int, float]) -> str:
    return "  ".join(f"{offset:+d} {value:.3f}" for offset, value in curve.items())
