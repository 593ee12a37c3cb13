"""The report of an evaluation, report.json and report.md, with bootstrap intervals over clips."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from utils.files.atomic import atomic_path
from utils.metrics.figures import BY_NAME, FIGURES, Figure

JSON_NAME, MARKDOWN_NAME = "report.json", "report.md"
SCHEMA_VERSION = 1
N_RESAMPLES, LEVEL = 2000, 0.95  # of the bootstrap


@dataclass(frozen=True)
class MeanInterval:
    """Mean of n values and the interval that holds 95 % of the means of resampled clips; equal ends for one value."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: np.ndarray, seed: int = 0) -> MeanInterval | None:
    """Percentile bootstrap over the finite ``values``; None without any. The same seed gives the same interval."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) == 0:
        return None
    rng = np.random.default_rng(seed)
    means = finite[rng.integers(len(finite), size=(N_RESAMPLES, len(finite)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return MeanInterval(float(finite.mean()), float(low), float(high), len(finite))


@dataclass(frozen=True)
class ClipResult:
    """One compared pair. figures: by name, NaN if not measured; notes: remarks on the clip."""

    name: str
    generated: str
    reference: str
    n_frames: int
    figures: Mapping[str, float]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """settings: method and weights. overall: figures of all clips together, such as FID. skipped: reason by name."""

    settings: Mapping[str, object]
    clips: Sequence[ClipResult]
    overall: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    lone_generated: Sequence[str] = ()
    lone_references: Sequence[str] = ()
    seed: int = 0

    def measured(self) -> list[Figure]:
        """Figures that at least one clip has, in the order of the table."""
        names = {name for clip in self.clips for name, value in clip.figures.items() if math.isfinite(value)}
        return [figure for figure in FIGURES if figure.name in names or figure.name in self.overall]

    def interval(self, name: str) -> MeanInterval | None:
        """Mean over clips; a figure of all clips together has no interval."""
        if name in self.overall:
            value = self.overall[name]
            return MeanInterval(value, value, value, 1)
        return mean_interval(self.values(name), self.seed)

    def values(self, name: str) -> np.ndarray:
        return np.array([clip.figures.get(name, float("nan")) for clip in self.clips])


def write_report(directory: Path, report: Report) -> None:
    """Write report.json and report.md, each atomically."""
    content = json.dumps(as_json(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    for name, text in ((JSON_NAME, content), (MARKDOWN_NAME, as_markdown(report))):
        with atomic_path(directory / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def as_json(report: Report) -> dict[str, object]:
    """The content of report.json; null for figures that could not be measured."""
    intervals = {figure.name: report.interval(figure.name) for figure in report.measured()}
    return {
        "schema": SCHEMA_VERSION,
        "settings": dict(report.settings),
        "summary": {name: asdict(found) for name, found in intervals.items() if found is not None},
        "clips": [
            {**asdict(clip), "figures": {name: _finite(value) for name, value in clip.figures.items()}}
            for clip in report.clips
        ],
        "skipped": dict(report.skipped),
        "without_partner": {"generated": list(report.lone_generated), "reference": list(report.lone_references)},
        "meanings": {name: f"{BY_NAME[name].meaning} [{BY_NAME[name].unit or '1'}]" for name in intervals},
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def as_markdown(report: Report) -> str:
    parts = ["# Evaluation", _summary_table(report), _clip_table(report)]
    parts += ["## Remarks\n\n" + "\n".join(f"- {line}" for line in remarks)] if (remarks := _remarks(report)) else []
    parts.append("## How it was measured\n\n" + "\n".join(f"- {k}: {_plain(v)}" for k, v in report.settings.items()))
    return "\n\n".join(parts) + "\n"


def _summary_table(report: Report) -> str:
    lines = [f"| figure | mean | {LEVEL:.0%} interval | n | unit | better | meaning |", "|---|---|---|---|---|---|---|"]
    for figure in report.measured():
        found = report.interval(figure.name)
        if found is None:
            continue
        interval = f"{found.low:.3g} to {found.high:.3g}" if found.n > 1 else "–"
        n = "all frames" if figure.name in report.overall else str(found.n)
        cells = figure.name, f"{found.mean:.3g}", interval, n, figure.unit, figure.better, figure.meaning
        lines.append(f"| {' | '.join(cells)} |")
    note = (
        f"n counts clips; intervals are percentile bootstraps over clips ({N_RESAMPLES} resamples, seed {report.seed})."
    )
    return "\n".join(lines) + f"\n\n{note}"


def _clip_table(report: Report) -> str:
    names = [figure.name for figure in report.measured() if figure.name not in report.overall]
    lines = [f"## Clips\n\n| clip | frames | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for clip in report.clips:
        values = (clip.figures.get(name, float("nan")) for name in names)
        cells = " | ".join(f"{value:.3g}" if math.isfinite(value) else "–" for value in values)
        lines.append(f"| {_escaped(clip.name)} | {clip.n_frames} | {cells} |")
    return "\n".join(lines)


def _remarks(report: Report) -> list[str]:
    found = [f"{_escaped(clip.name)}: {note}" for clip in report.clips for note in clip.notes]
    found += [f"{_escaped(name)}: left out, {reason}" for name, reason in report.skipped.items()]
    for label, names in (("generated clips", report.lone_generated), ("references", report.lone_references)):
        if names:
            found.append(f"{label} without a partner: {', '.join(map(_escaped, names))}")
    return found


def _plain(value: object) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def _escaped(name: str) -> str:
    return name.replace("|", "\\|")
