"""How well predicted lips follow a clip's own, on the fitted face without its pose: figures per clip and per group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from jaxtyping import Float

from models.face3d.face_model import FaceModel
from utils.data.motion_dataset import MotionClip
from utils.metrics.mouth_motion import LIPS, best_lag, match_closures, mouth_opening, mouth_width

MAX_LAG = 1  # motion frames either way


@dataclass(frozen=True)
class LipFigures:
    """Figures of one clip, or their means over several.

    opening_r, width_r: correlations at the best lag within ±1 frame. distance: mean distance of the 40 lip points from
    the clip's, the mean difference taken out, over that of a mouth held at the clip's mean. spread: standard deviation
    of the opening over the clip's. precision, recall: of lip closures, see ClosureMatch.
    """

    opening_r: float
    width_r: float
    distance: float
    spread: float
    precision: float
    recall: float


def lip_figures(predicted: Float[np.ndarray, "t 64"], clip: MotionClip, face: FaceModel) -> LipFigures:
    """Figures of an expression for a clip, over its valid frames."""
    made, real = (_landmarks(expression[clip.valid], clip, face) for expression in (predicted, clip.expression))
    opening, opening_made = mouth_opening(real), mouth_opening(made)
    closures = match_closures(opening_made, opening)
    return LipFigures(
        opening_r=best_lag(opening, opening_made, MAX_LAG).r,
        width_r=best_lag(mouth_width(real), mouth_width(made), MAX_LAG).r,
        distance=_movement(made - real) / _movement(real),
        spread=float(opening_made.std() / opening.std()),
        precision=closures.precision,
        recall=closures.recall,
    )


def _landmarks(
    expression: Float[np.ndarray, "t 64"], clip: MotionClip, face: FaceModel
) -> Float[np.ndarray, "t 468 3"]:
    mean, identity_basis, expression_basis = (basis.cpu().numpy() for basis in face.landmark_bases())
    identity = clip.identity[clip.valid].mean(axis=0)[: identity_basis.shape[2]]
    moved = np.einsum("te,lce->tlc", expression[:, : expression_basis.shape[2]], expression_basis)
    return mean + identity_basis @ identity + moved


def _movement(points: Float[np.ndarray, "t 468 3"]) -> float:
    """Mean distance of the lip points from their means, in the image plane."""
    lips = points[:, list(LIPS), :2]
    return float(np.linalg.norm(lips - lips.mean(axis=0), axis=-1).mean())


def by_group(figures: Mapping[str, LipFigures], clips: Sequence[MotionClip]) -> dict[str, LipFigures]:
    """The figures of every clip, the means of every group of at least two, and those of all."""
    groups: dict[str, list[LipFigures]] = {}
    for clip in clips:
        if clip.group:
            groups.setdefault(clip.group, []).append(figures[clip.name])
    means = {f"({name})": mean_figures(found) for name, found in sorted(groups.items()) if len(found) > 1}
    return {**figures, **means, "all": mean_figures(list(figures.values()))}


def mean_figures(figures: Sequence[LipFigures]) -> LipFigures:
    """Means over clips, each as one; of closures over the clips that have some."""
    columns = np.array([list(asdict(one).values()) for one in figures], dtype=np.float64)
    known = np.isfinite(columns)
    sums, counts = np.where(known, columns, 0).sum(axis=0), known.sum(axis=0)
    return LipFigures(*np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).tolist())


def figure_table(figures: Mapping[str, LipFigures]) -> str:
    width = max(len(name) for name in (*figures, "lips"))
    names = [field.name for field in fields(LipFigures)]
    lines = [f"{'lips':{width}}  {'  '.join(names)}"]
    for name, found in figures.items():
        cells = (f"{value:{len(column)}.2f}" for column, value in asdict(found).items())
        lines.append(f"{name:{width}}  {'  '.join(cells)}")
    return "\n".join(lines)
