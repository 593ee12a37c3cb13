"""report.py and report_plots.py: files hold the measured values; intervals have the right width."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from utils.metrics.figures import BY_NAME, FIGURES, METRICS, NEEDS_WEIGHTS, NEITHER
from utils.metrics.report import ClipResult, Report, mean_interval, write_report
from utils.metrics.report_plots import (
    Curve,
    WorstFrame,
    density,
    difference_tile,
    save_bars,
    save_densities,
    save_worst,
)

NAN = float("nan")


@pytest.fixture
def report():
    clips = [
        ClipResult("a|b", "made/a|b.mp4", "real/a.mp4", 50, {"psnr": 30.0, "psnr_still": 20.0, "av_r": NAN}, ["short"]),
        ClipResult("c", "made/c.mp4", "real/c.mp4", 70, {"psnr": 34.0, "psnr_still": 22.0, "av_r": 0.5}),
    ]
    settings = {"lower face": "256x256", "weights": {"av": "av.safetensors sha256 12ab"}}
    return Report(settings, clips, {"fid": 12.5}, {"d": "no face"}, ["e.mp4"], ["f.mp4"], seed=3)


def test_json_can_be_read_and_holds_everything(tmp_path, report):
    write_report(tmp_path / "new" / "folder", report)
    content = json.loads((tmp_path / "new" / "folder" / "report.json").read_text())
    assert content["summary"]["psnr"]["mean"] == 32
    assert content["summary"]["psnr"]["n"] == 2
    assert content["summary"]["av_r"] == {"mean": 0.5, "low": 0.5, "high": 0.5, "n": 1}
    assert content["clips"][0]["figures"]["av_r"] is None
    assert content["clips"][0]["notes"] == ["short"]
    assert content["skipped"] == {"d": "no face"}
    assert content["without_partner"] == {"generated": ["e.mp4"], "reference": ["f.mp4"]}
    assert content["settings"]["weights"]["av"].endswith("12ab")
    assert set(content["meanings"]) == {"psnr", "psnr_still", "av_r", "fid"}


def test_markdown_is_one_table_of_figures_and_one_of_clips(tmp_path, report):
    write_report(tmp_path, report)
    text = (tmp_path / "report.md").read_text()
    assert "| psnr | 32 | 30 to 34 | 2 | dB | higher |" in text
    assert "| av_r | 0.5 | – | 1 |" in text
    assert "| fid | 12.5 | – | all frames |" in text
    assert r"| a\|b | 50 | 30 | 20 | – |" in text
    assert "- d: left out, no face" in text
    assert "generated clips without a partner: e.mp4" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_figures_refer_to_each_other():
    assert len(BY_NAME) == len(FIGURES)
    assert all(BY_NAME[figure.beside].better == NEITHER for figure in FIGURES if figure.beside)
    assert set(NEEDS_WEIGHTS) < set(METRICS)


def test_pictures_are_written(tmp_path, report):
    save_bars(tmp_path / "bars.png", report)
    rng = np.random.default_rng(0)
    groups = {
        "psnr": [
            Curve("floor", rng.normal(20, 1, 300), True),
            Curve("generated", np.append(rng.normal(30, 2, 300), NAN)),
        ],
        "lmd": [Curve("generated", np.zeros(20)), Curve("nothing", np.full(4, NAN))],
    }
    save_densities(tmp_path / "density.png", groups)
    tile = np.full((192, 192, 3), 90, np.uint8)
    save_worst(tmp_path / "worst.png", [WorstFrame("a 3", tile, tile + 10)] * 2)
    for name in ("bars", "density", "worst"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 300
            assert len(np.unique(np.asarray(image.convert("L")))) > 4
    with Image.open(tmp_path / "worst.png") as image:
        assert image.size[1] > 3 * 192


def test_density_is_one():
    values = np.random.default_rng(0).normal(5, 2, 2000)
    places, heights = density(values)
    assert heights.sum() * (places[1] - places[0]) == pytest.approx(1, abs=0.01)
    assert places[heights.argmax()] == pytest.approx(5, abs=0.5)
    assert heights.max() == pytest.approx(0.2, abs=0.03)


def test_difference_is_grey_where_nothing_changed():
    first = np.full((2, 2, 3), 100, np.uint8)
    second = first.copy()
    second[0, 0], second[1, 1] = 110, 0
    tile = difference_tile(first, second)
    assert (tile[0, 1] == 128).all()
    assert (tile[0, 0] == 168).all()
    assert (tile[1, 1] == 0).all()


def test_one_value_and_none():
    found = mean_interval(np.array([3.0]))
    assert (found.mean, found.low, found.high, found.n) == (3, 3, 3, 1)
    assert mean_interval(np.array([np.nan, np.inf])) is None


def test_values_that_could_not_be_measured_do_not_count():
    found = mean_interval(np.array([1.0, np.nan, 3.0]))
    assert (found.mean, found.n) == (2, 2)
    assert (found.low, found.high) == (1, 3)


def test_same_seed_same_interval():
    values = np.random.default_rng(0).normal(size=9)
    assert mean_interval(values, seed=4) == mean_interval(values, seed=4)
    assert mean_interval(values, seed=4) != mean_interval(values, seed=5)


def test_width_is_that_of_theory():
    """For many normal values the interval is ±1.96 deviations of the mean."""
    values = np.random.default_rng(1).normal(10, 2, 400)
    found = mean_interval(values)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)
