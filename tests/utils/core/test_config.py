from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from utils.core.config import load_config, to_dict
from utils.core.errors import BadInput


@dataclass(frozen=True)
class Optimizer:
    lr: float
    max_steps: int
    betas: tuple[float, float] = (0.9, 0.99)


@dataclass(frozen=True)
class Config:
    opti: Optimizer
    root_dir: Path
    precision: Literal["no", "bf16"] = "no"
    resume: Path | None = None
    widths: tuple[int, ...] = ()
    use_ema: bool = False


GOOD = "root_dir: data\nopti: {lr: 1e-5, max_steps: 10}\n"


def load(tmp_path: Path, text: str, *overrides: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load_config(Config, path, overrides)


def test_values_are_typed(tmp_path):
    config = load(tmp_path, GOOD + "widths: [1, 2, 3]\nresume: last.pt\n")
    assert config.opti == Optimizer(lr=1e-5, max_steps=10)
    assert config.root_dir == Path("data") and config.resume == Path("last.pt")
    assert config.widths == (1, 2, 3)


def test_overrides_come_on_top(tmp_path):
    config = load(tmp_path, GOOD, "opti.max_steps=20", "opti.betas=[0.5, 1]", "precision=bf16", "resume=null")
    assert config.opti.max_steps == 20 and config.opti.betas == (0.5, 1.0)
    assert config.precision == "bf16" and config.resume is None


def test_round_trip(tmp_path):
    import yaml

    config = load(tmp_path, GOOD, "widths=[4]")
    assert load(tmp_path, yaml.safe_dump(to_dict(config))) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("root_dir: data\n", "config key missing.*opti"),
        (GOOD + "colour: red\n", "unknown config key.*colour"),
        ("root_dir: data\nopti: {lr: 1, max_steps: 1, lrr: 2}\n", "unknown config key.*opti.lrr"),
        ("root_dir: data\nopti: {lr: 1, max_steps: 1.5}\n", "opti.max_steps.*expected int, found 1.5"),
        ("root_dir: data\nopti: {lr: fast, max_steps: 1}\n", "opti.lr.*expected float"),
        ("root_dir: 3\nopti: {lr: 1, max_steps: 1}\n", "root_dir"),
        (GOOD + "use_ema: 1\n", "use_ema.*expected bool"),
        (GOOD + "precision: fp8\n", "precision.*'no', 'bf16'"),
        (GOOD + "widths: [1, a]\n", "widths"),
        ("[1, 2]\n", "not a mapping"),
        ("a: [\n", "unreadable config"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    with pytest.raises(BadInput, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize("override", ["opti", "=3", "root_dir.x=1"])
def test_bad_overrides(tmp_path, override):
    with pytest.raises(BadInput):
        load(tmp_path, GOOD, override)


def test_missing_file(tmp_path):
    with pytest.raises(BadInput, match="config file missing"):
        load_config(Config, tmp_path / "none.yaml")
