"""The report on a choice of clips: a table of all segments, and histograms of length, frame rate and face size."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from utils.core.types import MOTION_FPS
from utils.curation.clip_record import REPORT_DIR, Row
from utils.files.atomic import atomic_path

TABLE_NAME, FIGURE_NAME = "stretches.csv", "histograms.png"
KEPT_COLOUR, REJECTED_COLOUR = "#2a78b5", "#c9ccd1"
N_BINS = 30


@dataclass(frozen=True)
class _Panel:
    title: str
    unit: str
    kept: list[float]
    rejected: list[float]


def write_report(clips_dir: Path, rows: Sequence[Row]) -> Path:
    """Write CLIPS_DIR/report/stretches.csv and histograms.png; returns the folder."""
    folder = clips_dir / REPORT_DIR
    write_table(folder / TABLE_NAME, rows)
    draw_histograms(folder / FIGURE_NAME, rows)
    return folder


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """A CSV line per segment; the columns are Row's fields. File names that are not UTF-8 keep their bytes."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow([column.name for column in fields(Row)])
        table.writerows(astuple(row) for row in rows)


def draw_histograms(path: Path, rows: Sequence[Row]) -> None:
    """Segments that show a face, kept ones below and rejected ones on top, as PNG; needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), dpi=100, layout="constrained")
    panels = _panels([row for row in rows if row.face_size > 0])
    n_kept, n_rejected = len(panels[0].kept), len(panels[0].rejected)
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        if panel.kept or panel.rejected:
            axes.hist(
                [panel.kept, panel.rejected],
                bins=N_BINS,
                stacked=True,
                color=[KEPT_COLOUR, REJECTED_COLOUR],
                label=[f"kept ({n_kept})", f"rejected ({n_rejected})"],
            )
        axes.set_title(panel.title)
        axes.set_xlabel(panel.unit)
        axes.set_ylabel("segments")
    if n_kept or n_rejected:
        figure.axes[0].legend(frameon=False)
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def _panels(rows: Sequence[Row]) -> list[_Panel]:
    kept, rejected = ([row for row in rows if bool(row.clip) == is_kept] for is_kept in (True, False))
    return [
        _Panel("length", "seconds", *([row.frames / MOTION_FPS for row in part] for part in (kept, rejected))),
        _Panel("frame rate", "frames per second", *([row.fps for row in part] for part in (kept, rejected))),
        _Panel("face size", "pixels, shorter side", *([row.face_size for row in part] for part in (kept, rejected))),
    ]


def main_reason(rows: Sequence[Row]) -> str:
    """The reason for which most frames of a video are rejected."""
    frames: Counter[str] = Counter()
    for row in rows:
        frames[row.reason] += 0 if row.clip else row.frames
    return frames.most_common(1)[0][0] if frames else "no frame"
