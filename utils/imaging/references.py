"""Choice of reference frames for the generator: mouth open, so that teeth show, and a similar pose.

Upstream takes the frame that is edited itself. Its mouth then shows through, also when it should be still.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from utils.files.arrays import ArrayRows
from utils.imaging.landmarks import EYE_CONTOURS, LOWER_INNER_LIP, NOSE, UPPER_INNER_LIP

N_REFERENCES = 4
OPEN_SHARE = 0.3  # of the frames, those with the widest open mouths, may be references
SWITCH_COST = 0.05  # of the box's size; a change of reference must bring the pose that much closer
_BLOCK = 1024  # frames whose landmarks are held at once
_POSE_POINTS = list(EYE_CONTOURS + NOSE)


def choose_references(
    landmarks: Float[np.ndarray, "n 468 2"] | ArrayRows, sizes: Float[np.ndarray, "n 2"], valid: Bool[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """For every frame the index of its reference; -1 for frames without a face.

    landmarks: pixels of the face box, read some at a time; sizes: its width and height. At most N_REFERENCES different
    frames are chosen, spread over the poses of the clip; the reference changes only if SWITCH_COST is outweighed.
    """
    chosen = np.full(len(valid), -1)
    used = np.flatnonzero(valid)
    if len(used) == 0:
        return chosen
    poses, openings = np.zeros((len(used), 2 * len(_POSE_POINTS))), np.zeros(len(used))
    for first in range(0, len(used), _BLOCK):
        block = slice(first, first + _BLOCK)
        shown = landmarks[used[block]] / np.maximum(sizes[used[block]], 1)[:, None]
        poses[block], openings[block] = shown[:, _POSE_POINTS].reshape(len(shown), -1), mouth_openings(shown)
    candidates = spread_over(poses, widest(openings))
    distances = np.stack([distances_to(poses[one], poses) for one in candidates], axis=1)
    chosen[used] = used[candidates[cheapest_path(distances, SWITCH_COST)]]
    return chosen


def distances_to(pose: Float[np.ndarray, " d"], poses: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
    blocks = (poses[first : first + _BLOCK] for first in range(0, len(poses), _BLOCK))
    return np.concatenate([np.abs(block - pose).mean(axis=1) for block in blocks])


def mouth_openings(landmarks: Float[np.ndarray, "n 468 2"]) -> Float[np.ndarray, " n"]:
    return np.linalg.norm(landmarks[:, LOWER_INNER_LIP] - landmarks[:, UPPER_INNER_LIP], axis=1)


def widest(openings: Float[np.ndarray, " n"]) -> Int[np.ndarray, " k"]:
    n_open = min(len(openings), max(1, round(OPEN_SHARE * len(openings))))
    return np.argsort(-openings, kind="stable")[:n_open]


def spread_over(poses: Float[np.ndarray, "n d"], candidates: Int[np.ndarray, " c"]) -> Int[np.ndarray, " k"]:
    """Up to N_REFERENCES candidates: the one nearest to the middle pose, then always the farthest from those chosen."""
    first = np.abs(poses[candidates] - np.median(poses, axis=0)).mean(axis=1).argmin()
    kept = [int(candidates[first])]
    while len(kept) < min(N_REFERENCES, len(candidates)):
        distances = np.min([np.abs(poses[candidates] - poses[one]).mean(axis=1) for one in kept], axis=0)
        if distances.max() <= SWITCH_COST:
            break
        kept.append(int(candidates[distances.argmax()]))
    return np.array(kept)


def cheapest_path(
    costs: Float[np.ndarray, "n k"], switch_costs: float | Float[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """One of k choices per step: the sum of their costs and of the cost of every change is least (Viterbi).

    switch_costs: of a change from the step before to this one.
    """
    n_steps, n_choices = costs.shape
    costs_of_change = np.broadcast_to(switch_costs, n_steps)
    before = np.zeros((n_steps, n_choices), int)
    total = costs[0].copy()
    for step in range(1, n_steps):
        best = int(total.argmin())
        changed = total[best] + costs_of_change[step]
        changes = changed < total
        before[step] = np.where(changes, best, np.arange(n_choices))
        total = np.where(changes, changed, total) + costs[step]
    path = np.zeros(n_steps, int)
    path[-1] = total.argmin()
    for step in range(n_steps - 1, 0, -1):
        path[step - 1] = before[step, path[step]]
    return path
