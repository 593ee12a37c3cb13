from __future__ import annotations

import pytest

from tests.helpers.training_data import read_log
from utils.core.errors import BadInput
from utils.training.training_log import TENSORBOARD_FOLDER, TrainingLog


def test_reports_are_json_lines(tmp_path):
    log = TrainingLog(tmp_path / "run", tensorboard=False)
    log.report("train", 1, {"total": 0.5})
    log.report("validation", 1, {"psnr": 20.0})
    log.close()
    assert read_log(tmp_path / "run") == [
        {"kind": "train", "step": 1, "total": 0.5},
        {"kind": "validation", "step": 1, "psnr": 20.0},
    ]
    assert not (tmp_path / "run" / TENSORBOARD_FOLDER).exists()


def test_continued_training_replaces_what_it_repeats(tmp_path):
    log = TrainingLog(tmp_path, tensorboard=False)
    for step in (1, 2, 3):
        log.report("train", step, {"total": 1.0})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "tr')  # killed while it wrote
    log = TrainingLog(tmp_path, after_step=2, tensorboard=False)
    log.report("train", 3, {"total": 3.0})
    assert [(record["step"], record["total"]) for record in read_log(tmp_path)] == [(1, 1.0), (2, 1.0), (3, 3.0)]


def test_tensorboard_has_the_same_figures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TrainingLog(tmp_path)
    log.report("train", 5, {"total": 0.25, "lr": float("nan")})
    log.close()
    events = EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER)).Reload()
    assert events.Tags()["scalars"] == ["train/total"]
    (event,) = events.Scalars("train/total")
    assert (event.step, event.value) == (5, 0.25)


def test_tensorboard_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.training.training_log.find_spec", lambda _name: None)
    with pytest.raises(BadInput, match="pip install tensorboard=="):
        TrainingLog(tmp_path, tensorboard=True)
    log = TrainingLog(tmp_path)
    log.report("train", 1, {"total": 1.0})
    assert not (tmp_path / TENSORBOARD_FOLDER).exists()
