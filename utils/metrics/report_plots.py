"""Plots of an evaluation: bars per clip, densities over frames, and a contact sheet of the worst frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from utils.files.atomic import atomic_path
from utils.files.image_files import write_rgb
from utils.imaging.contact_sheet import draw_sheet
from utils.metrics.figures import BY_NAME, NEITHER, Figure
from utils.metrics.report import Report

BARS_NAME, DENSITY_NAME, WORST_NAME = "clips.png", "density.png", "worst_frames.png"
GENERATED_COLOUR, BESIDE_COLOUR, FLOOR_COLOUR = "#1b6ca8", "#b8b8b8", "#e0a458"
MAX_BARS = 40  # clips; only the first ones are plotted, more are unreadable
DIFFERENCE_GAIN = 4
_DPI = 110


@dataclass(frozen=True)
class Curve:
    """Values of all frames under one name. is_beside: a floor or the reference, plotted in grey."""

    label: str
    values: np.ndarray
    is_beside: bool = False


@dataclass(frozen=True)
class WorstFrame:
    """label: clip and frame; tiles uint8 RGB [s, s, 3]."""

    label: str
    reference: np.ndarray
    generated: np.ndarray


def save_bars(path: Path, report: Report) -> None:
    """One panel per figure with a better direction: a bar per clip beside its floor or reference."""
    figures = [f for f in report.measured() if f.better != NEITHER and f.name not in report.overall]
    clips = report.clips[:MAX_BARS]
    names = [clip.name if len(clip.name) <= 24 else clip.name[:22] + "…" for clip in clips]
    width = max(4.5, 1.5 + 0.45 * len(clips))
    with _panels(path, [f.name for f in figures], width) as panels:
        for axes, figure in zip(panels, figures, strict=True):
            _plot_bars(axes, report, figure, names)


def _plot_bars(axes, report: Report, figure: Figure, names: Sequence[str]) -> None:  # type: ignore[no-untyped-def]
    sides = [(figure.name, GENERATED_COLOUR)]
    if figure.beside:
        sides.append((figure.beside, BESIDE_COLOUR))
    wrong = f"{figure.name}_wrong"
    if wrong in BY_NAME:
        sides.append((wrong, FLOOR_COLOUR))
    places, width = np.arange(len(names)), 0.8 / len(sides)
    for number, (name, colour) in enumerate(sides):
        values = report.values(name)[: len(names)]
        offset = (number - (len(sides) - 1) / 2) * width
        axes.bar(places + offset, np.nan_to_num(values), width, color=colour, label=name)
    axes.set_xticks(places, names, rotation=60, ha="right", fontsize=7)
    axes.set_title(f"{figure.name}: {figure.better} is better", fontsize=9)
    axes.set_ylabel(figure.unit, fontsize=8)
    axes.axhline(0, color="black", linewidth=0.5)
    axes.legend(fontsize=7)


def save_densities(path: Path, groups: Mapping[str, Sequence[Curve]]) -> None:
    """One panel per group: density of the values over all frames of all clips."""
    with _panels(path, list(groups), width=4.5) as panels:
        for axes, (title, curves) in zip(panels, groups.items(), strict=True):
            for curve in curves:
                values = curve.values[np.isfinite(curve.values)]
                colour = BESIDE_COLOUR if curve.is_beside else GENERATED_COLOUR
                if len(values) == 0:
                    continue
                label = f"{curve.label}, mean {values.mean():.3g}"
                axes.axvline(values.mean(), color=colour, linewidth=0.8, linestyle="--")
                if np.ptp(values) == 0:  # constant: a line instead of a density
                    axes.axvline(values.mean(), color=colour, label=label)
                    continue
                places, heights = density(values)
                axes.plot(places, heights, color=colour, label=label)
                axes.fill_between(places, heights, color=colour, alpha=0.25)
            axes.set_title(title, fontsize=9)
            axes.set_yticks([])
            axes.legend(fontsize=7)


def density(values: np.ndarray, n_places: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernel density of non-constant values, Scott's bandwidth: places and heights; integral near 1."""
    bandwidth = float(values.std()) * len(values) ** -0.2
    counts, edges = np.histogram(values, bins=512)  # binned first, so that long clips cost no more
    centres = (edges[1:] + edges[:-1]) / 2
    places = np.linspace(values.min() - 3 * bandwidth, values.max() + 3 * bandwidth, n_places)
    kernel = np.exp(-0.5 * ((places[:, None] - centres[None]) / bandwidth) ** 2)
    return places, kernel @ counts / (len(values) * bandwidth * np.sqrt(2 * np.pi))


class _panels:  # noqa: N801 - used as a function
    """Axes side by side, up to three in a row, written as a PNG on leaving."""

    def __init__(self, path: Path, titles: Sequence[str], width: float) -> None:
        self._path, self._n, self._width = path, max(1, len(titles)), width

    def __enter__(self) -> list:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas

        n_columns = min(3, self._n) if self._width < 9 else 1
        n_rows = -(-self._n // n_columns)
        self._canvas = Canvas(figsize=(self._width * n_columns, 3.2 * n_rows), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(self._canvas)
        axes = self._canvas.subplots(n_rows, n_columns, squeeze=False).ravel()
        for unused in axes[self._n :]:
            unused.set_visible(False)
        return list(axes[: self._n])

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            with atomic_path(self._path) as temporary:
                self._canvas.savefig(temporary, format="png")


def save_worst(path: Path, frames: Sequence[WorstFrame]) -> None:
    """A column per frame: reference, generated and their difference (DIFFERENCE_GAIN times)."""
    columns = [[f.reference, f.generated, difference_tile(f.reference, f.generated)] for f in frames]
    sheet = draw_sheet(columns, [frame.label for frame in frames])
    with atomic_path(path) as temporary:
        write_rgb(temporary, sheet)


def difference_tile(
    first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Signed difference of two images around grey 128; brighter where the second one is."""
    change = second.astype(np.int32) - first.astype(np.int32)
    return np.clip(128 + DIFFERENCE_GAIN * change, 0, 255).astype(np.uint8)
