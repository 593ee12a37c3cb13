"""Lists of a preprocessed data folder: usable clips and held-out speakers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import preprocess_dataset_extra
from tests.helpers.training_data import write_clip
from utils.core.errors import BadInput
from utils.data import splits
from utils.data.clips import open_clip
from utils.data.dataset import DatasetConfig, split_clips
from utils.data.splits import ClipCount


@pytest.fixture
def data_dir(tmp_path) -> Path:
    for name, n_frames in {"ann 1#a": 20, "ann 2": 20, "ben": 20, "cleo": 20, "short": 7}.items():
        write_clip(tmp_path / "data", name, n_frames)
    return tmp_path / "data"


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lists_of(data_dir: Path) -> tuple[list[str], list[str]]:
    return split_clips(DatasetConfig(data_dir, img_size=32, batch_size=1))


def test_the_trainer_finds_the_lists(data_dir, capsys):
    assert len(lists_of(data_dir)[0]) == 5
    before = files_of(data_dir)
    preprocess_dataset_extra.main([str(data_dir), "--validation_share", "0.3"])
    training, validation = lists_of(data_dir)
    assert sorted(training + validation) == ["ann 1#a", "ann 2", "ben", "cleo"]
    assert len(validation) == 2
    output = capsys.readouterr()
    assert "left out short: 6 usable frames, 7 needed" in output.err
    assert "2 clips to learn from, 2 held out, 1 left out" in output.out
    after = files_of(data_dir)
    assert {path: after[path] for path in before} == before
    assert {path.name for path in set(after) - set(before)} == {"train.txt", "val.txt", "summary.json"}
    summary = json.loads((data_dir / "summary.json").read_text())
    assert summary["training"]["frames"] + summary["validation"]["frames"] == 4 * 19
    assert summary["dropped"] == {"short": "6 usable frames, 7 needed"}


def test_dry_run_writes_nothing(data_dir, capsys):
    before = files_of(data_dir)
    preprocess_dataset_extra.main([str(data_dir), "--dry-run"])
    assert files_of(data_dir) == before
    assert "nothing written: 3 clips to learn from, 1 held out" in capsys.readouterr().out


def test_speakers_are_held_out_whole(data_dir, tmp_path):
    speakers = tmp_path / "speakers.txt"
    speakers.write_text("# clip speaker\nann 1#a ann\nann 2 ann\n\nben ben\n")
    for seed in range(6):
        arguments = [str(data_dir), "--validation_share", "0.4", "--speakers", str(speakers), "--seed", str(seed)]
        preprocess_dataset_extra.main(arguments)
        training, validation = lists_of(data_dir)
        assert {"ann 1#a", "ann 2"} <= set(training) or {"ann 1#a", "ann 2"} <= set(validation)
        preprocess_dataset_extra.main(arguments)
        assert lists_of(data_dir) == (training, validation)


def test_the_share_is_of_frames_and_a_training_speaker_remains():
    clips = [ClipCount(name, 100, 100, 100, True) for name in "abcdefghij"]
    assert len(splits.split_by_speaker(clips, {}, 0.25, seed=1).validation) == 3
    assert splits.split_by_speaker(clips, {}, 0.0, seed=1).validation == []
    assert len(splits.split_by_speaker(clips, {}, 0.99, seed=1).training) == 1
    assert splits.split_by_speaker(clips[:1], {}, 0.5, seed=1).training == ["a"]
    chosen = {tuple(splits.split_by_speaker(clips, {}, 0.1, seed).validation) for seed in range(8)}
    assert len(chosen) > 1


def test_frames_after_the_end_of_the_sound_are_not_usable(tmp_path):
    valid = np.array([True, False, True, True])
    assert splits.usable_frames(valid, None).tolist() == [0, 2, 3]
    assert splits.usable_frames(valid, 2 * 640).tolist() == [0]
    assert splits.usable_frames(valid, 2 * 640 + 1).tolist() == [0, 2]
    folder = write_clip(tmp_path, "clip", n_frames=12)
    np.save(folder / "audio.npy", np.zeros(640 * 8, np.int16))
    assert np.flatnonzero(open_clip(folder).valid).tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert splits.count_clip(folder) == ClipCount("clip", 12, 11, 7, True)


def test_a_damaged_clip_is_left_out_with_its_reason(data_dir, capsys):
    (data_dir / "ben" / "audio.npy").write_bytes(b"not an array")
    preprocess_dataset_extra.main([str(data_dir)])
    assert "left out ben: unreadable array" in capsys.readouterr().err
    assert not any("ben" in names for names in lists_of(data_dir))


def test_bad_input(tmp_path, data_dir):
    with pytest.raises(BadInput, match="no training clips"):
        preprocess_dataset_extra.main([str(tmp_path / "nowhere")])
    with pytest.raises(BadInput, match="no usable clip"):
        preprocess_dataset_extra.main([str(data_dir), "--min_frames", "1000"])
    with pytest.raises(BadInput, match="list of speakers missing"):
        preprocess_dataset_extra.main([str(data_dir), "--speakers", str(tmp_path / "nowhere")])
    for text, found in {"lonely\n": "line 1", "ben a\nben b\n": "line 2 .*named twice"}.items():
        (tmp_path / "speakers.txt").write_text(text)
        with pytest.raises(BadInput, match=found):
            preprocess_dataset_extra.main([str(data_dir), "--speakers", str(tmp_path / "speakers.txt")])
    for flag, value in (("validation_share", "1"), ("validation_share", "-0.1"), ("min_frames", "0")):
        with pytest.raises(BadInput, match=f"--{flag}: expected a"):
            preprocess_dataset_extra.main([str(data_dir), f"--{flag}={value}"])
