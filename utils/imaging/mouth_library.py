"""Choice of the frames whose mouths are shown between the new lips: few of the clip, those with the most similar lips.

Lips are compared without their position, poses weakly: an open mouth in the right pose has other teeth than a nearly
shut one, while the warp corrects small differences of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from utils.files.arrays import ArrayRows
from utils.imaging.landmarks import EYE_CONTOURS, INNER_LIPS, NOSE, OUTER_LIPS
from utils.imaging.references import cheapest_path, mouth_openings

N_MOUTHS = 32
POSE_SHARE = 0.03  # of the distance between poses beside that of the lips
SWITCH_COST = 0.005  # times a wide-open mouth's share of opening; unit: distance of lips in face sizes
OPEN_PERCENTILE = 90  # of the wanted openings: counts as wide open
FADE = (0.25, 0.5, 0.25)  # shares of a mouth in the frames around a change
MOST_CLUSTERED = 4096  # frames; of more, evenly spread ones
_BLOCK = 1024  # frames whose landmarks are held at once
_LIPS, _POSE = list(OUTER_LIPS + INNER_LIPS), list(EYE_CONTOURS + NOSE)

Landmarks = Float[np.ndarray, "n 468 2"] | ArrayRows
MouthMix = tuple[tuple[int, float], ...]  # frames and their shares


def choose_mouths(
    landmarks: Landmarks, target: Landmarks, sizes: Float[np.ndarray, "n 2"], valid: Bool[np.ndarray, " n"]
) -> list[MouthMix]:
    """For every frame the frames whose mouths it shows, with shares that add up to 1; empty without a face.

    landmarks, target: as tracked and as wanted, pixels of the face box, read some at a time; sizes: of the box. At most
    N_MOUTHS different frames are chosen; changes are rare but while the mouth is shut, and fade over three frames.
    """
    used = np.flatnonzero(valid)
    chosen: list[MouthMix] = [()] * len(valid)
    if not len(used):
        return chosen
    candidates = candidate_frames(landmarks, target, sizes, used)
    known = describe_mouths(landmarks, sizes, candidates)
    wanted = _blocks(target, sizes, used, describe)
    costs = np.concatenate([np.sqrt(_squared_distances(block, known)) for block in wanted])
    openings = np.concatenate(list(_blocks(target, sizes, used, mouth_openings)))
    wide = max(float(np.percentile(openings, OPEN_PERCENTILE)), 1e-6)
    path = cheapest_path(costs, SWITCH_COST * np.minimum(openings / wide, 1))
    for frame, mix in zip(used, _faded(candidates[path]), strict=True):
        chosen[frame] = mix
    return chosen


def candidate_frames(
    landmarks: Landmarks, target: Landmarks, sizes: Float[np.ndarray, "n 2"], used: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " k"]:
    """At most N_MOUTHS frames that are nearest to the wanted mouths' cluster centres (k-means, first by opening)."""
    from scipy.cluster.vq import kmeans  # slow to import

    some = used[np.linspace(0, len(used) - 1, min(len(used), MOST_CLUSTERED)).round().astype(int)]
    wanted, known = describe_mouths(target, sizes, some), describe_mouths(landmarks, sizes, some)
    by_opening = np.argsort(np.concatenate(list(_blocks(target, sizes, some, mouth_openings))), kind="stable")
    first = by_opening[np.linspace(0, len(some) - 1, min(len(some), N_MOUTHS)).round().astype(int)]
    centers, _ = kmeans(wanted, np.unique(wanted[first], axis=0))
    return np.unique(some[_squared_distances(centers, known).argmin(axis=1)])


def describe_mouths(
    landmarks: Landmarks, sizes: Float[np.ndarray, "n 2"], frames: Int[np.ndarray, " m"]
) -> Float32[np.ndarray, "m d"]:
    return np.concatenate(list(_blocks(landmarks, sizes, frames, describe)))


def describe(faces: Float[np.ndarray, "n 468 2"]) -> Float32[np.ndarray, "n d"]:
    """Vectors whose distance is that of two mouths. faces: landmarks in shares of the face box."""
    lips, pose = faces[:, _LIPS], faces[:, _POSE]
    lips = lips - lips.mean(axis=1, keepdims=True)
    parts = (lips / np.sqrt(len(_LIPS)), pose * np.sqrt(POSE_SHARE / len(_POSE)))
    return np.concatenate([part.reshape(len(faces), -1) for part in parts], axis=1).astype(np.float32)


def _blocks(
    landmarks: Landmarks,
    sizes: Float[np.ndarray, "n 2"],
    frames: Int[np.ndarray, " m"],
    measure: Callable[[np.ndarray], np.ndarray],
) -> Iterator[np.ndarray]:
    """``measure`` of the frames' landmarks in shares of the box, some frames at a time."""
    for first in range(0, len(frames), _BLOCK):
        rows = frames[first : first + _BLOCK]
        yield measure(landmarks[rows] / np.maximum(sizes[rows], 1)[:, None])


def _squared_distances(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "n k"]:
    products = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.maximum(products, 0)


def _faded(path: Int[np.ndarray, " n"]) -> Iterator[MouthMix]:
    """Each frame's mouth, mixed with those of the frames before and after it."""
    around = np.pad(path, 1, mode="edge")
    for neighbours in zip(around, around[1:], around[2:], strict=False):
        shares: dict[int, float] = {}
        for frame, share in zip(neighbours, FADE, strict=True):
            shares[int(frame)] = shares.get(int(frame), 0.0) + share
        yield tuple(shares.items())
