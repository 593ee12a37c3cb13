"""Clips on disk: splits, speakers, and labels of the pitch variant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import training_data
from utils.core.errors import BadInput
from utils.data import motion_dataset as md
from utils.data.shard_writer import ShardPacker, pack_clip, waiting_path

N_FRAMES = 60


def write_clip(data_dir: Path, name: str, n_frames: int = N_FRAMES) -> Path:
    rng = np.random.default_rng(len(name))
    folder = data_dir / name
    folder.mkdir(parents=True)
    np.save(folder / "coeffs.npy", rng.normal(size=(n_frames, 257)).astype(np.float32))
    np.save(folder / "valid.npy", np.ones(n_frames, bool))
    np.save(folder / "audio.npy", rng.integers(-3000, 3000, n_frames * 640).astype(np.int16))
    return folder


def test_clips_are_divided(tmp_path: Path) -> None:
    for name in ("a", "bb", "ccc", "dddd"):
        write_clip(tmp_path, name)
    (tmp_path / "lags.yaml").write_text("a: 1.5\nelsewhere: 2\n")
    (tmp_path / "weights.yaml").write_text("bb: 0\nccc: 3\n")
    config = md.MotionDataConfig(
        validation_clips=("a",), lag_table=tmp_path / "lags.yaml", weight_table=tmp_path / "weights.yaml"
    )
    training, validation = md.load_motion_clips(tmp_path, config)
    assert [clip.name for clip in training] == ["ccc", "dddd"]
    assert [clip.weight for clip in training] == [3, 1]
    assert [(clip.name, clip.lag) for clip in validation] == [("a", 1.5)]
    assert training[0].wave.dtype == np.float32
    assert np.abs(training[0].wave).max() < 1


def test_centred_clips_share_their_mean(tmp_path: Path) -> None:
    for name in ("a", "bb", "ccc"):
        write_clip(tmp_path, name)
    plain, _ = md.load_motion_clips(tmp_path, md.MotionDataConfig(validation_clips=("a",)))
    config = md.MotionDataConfig(validation_clips=("a",), center_expression=True)
    training, validation = md.load_motion_clips(tmp_path, config)
    overall = np.concatenate([clip.expression for clip in plain]).mean(axis=0)
    for clip in (*training, *validation):
        np.testing.assert_allclose(clip.expression.mean(axis=0), overall, atol=1e-5)


def test_clips_in_shards_are_the_same(tmp_path: Path) -> None:
    for name in ("a", "bb"):
        folder = training_data.write_clip(tmp_path / "folders", name)
        np.save(folder / "coeffs.npy", np.random.default_rng(0).normal(size=(12, 257)).astype(np.float32))
        (folder / "track.json").write_text("{}\n")
    packer = ShardPacker(tmp_path / "shards", ("a", "bb"), 10**9)
    for name in ("a", "bb"):
        pack_clip(tmp_path / "folders" / name, name, waiting_path(tmp_path / "shards", name))
        packer.settle(name)
    assert packer.finish() == 0
    config = md.MotionDataConfig(validation_clips=("bb",))
    for packed, plain in zip(
        md.load_motion_clips(tmp_path / "shards", config),
        md.load_motion_clips(tmp_path / "folders", config),
        strict=True,
    ):
        assert packed[0].name == plain[0].name
        np.testing.assert_array_equal(packed[0].expression, plain[0].expression)
        np.testing.assert_array_equal(packed[0].wave, plain[0].wave)


def test_unusable_data(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no clip with sound"):
        md.load_motion_clips(tmp_path, md.MotionDataConfig())
    folder = write_clip(tmp_path, "a")
    with pytest.raises(BadInput, match="validation clip is not there"):
        md.load_motion_clips(tmp_path, md.MotionDataConfig(validation_clips=("b",)))
    with pytest.raises(BadInput, match="no clip left to train on"):
        md.load_motion_clips(tmp_path, md.MotionDataConfig(validation_clips=("a",)))
    np.save(folder / "valid.npy", np.ones(3, bool))
    with pytest.raises(BadInput, match=r"valid\.npy"):
        md.load_motion_clips(tmp_path, md.MotionDataConfig())
    np.save(folder / "valid.npy", np.zeros(N_FRAMES, bool))
    with pytest.raises(BadInput, match="no face in clip"):
        md.load_motion_clips(tmp_path, md.MotionDataConfig())


@pytest.mark.parametrize("text", ["", "- a", "a: late", "a: [", "a: 2020-13-45", "[" * 2000, "\udcff"])
def test_unusable_table(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput, match="table"):
        md.read_clip_table(path)


def test_lists_of_the_data_folder_divide_the_clips(tmp_path: Path) -> None:
    """Clips in neither list are left out, silent ones too; names in the config come before the lists."""
    for name in ("a", "bb", "ccc", "dropped", "silent"):
        write_clip(tmp_path, name)
    (tmp_path / "silent" / "audio.npy").unlink()
    (tmp_path / "train.txt").write_text("bb\na\nsilent\n")
    (tmp_path / "val.txt").write_text("ccc\n")
    training, validation = md.load_motion_clips(tmp_path, md.MotionDataConfig())
    assert [clip.name for clip in training] == ["a", "bb"]
    assert [clip.name for clip in validation] == ["ccc"]
    training, validation = md.load_motion_clips(tmp_path, md.MotionDataConfig(validation_clips=("bb",)))
    assert [clip.name for clip in training] == ["a", "ccc", "dropped"]
    assert [clip.name for clip in validation] == ["bb"]


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [("a\nbb\n", "bb\n", "clip is in both lists"), ("a\ngone\n", "bb\n", "listed clip is not there")],
)
def test_lists_that_do_not_fit(tmp_path: Path, train: str, val: str, message: str) -> None:
    for name in ("a", "bb"):
        write_clip(tmp_path, name)
    (tmp_path / "train.txt").write_text(train)
    (tmp_path / "val.txt").write_text(val)
    with pytest.raises(BadInput, match=message):
        md.load_motion_clips(tmp_path, md.MotionDataConfig())


def test_speakers(tmp_path: Path) -> None:
    for name in ("a", "bb", "ccc"):
        write_clip(tmp_path, name)
    (tmp_path / "speakers.txt").write_text("a Ann\nccc Ann\n")
    clips, _ = md.load_motion_clips(tmp_path, md.MotionDataConfig(speakers=tmp_path / "speakers.txt"))
    assert [clip.speaker for clip in clips] == ["Ann", "bb", "Ann"]


def test_coefficients_that_are_not_finite(tmp_path: Path) -> None:
    folder = write_clip(tmp_path, "a")
    coefficients = np.load(folder / "coeffs.npy")
    coefficients[5, 100] = np.nan
    np.save(folder / "coeffs.npy", coefficients)
    with pytest.raises(BadInput, match=r"coefficients are not finite.*coeffs\.npy"):
        md.load_motion_clips(tmp_path, md.MotionDataConfig())
    np.save(folder / "valid.npy", np.arange(N_FRAMES) != 5)
    assert len(md.load_motion_clips(tmp_path, md.MotionDataConfig())[0]) == 1


def test_mouth_amplitude() -> None:
    """L1 distance, 90th percentile over all frames."""
    landmarks = np.zeros((101, 468, 3), np.float32)
    landmarks[:, 17, 1] = -np.linspace(0, 1, 101)
    landmarks[:, 17, 2] = 0.5
    assert md.mouth_amplitude(landmarks) == pytest.approx(0.9 + 0.5)


def eyes(openings: list[float]) -> np.ndarray:
    landmarks = np.zeros((len(openings), 468, 3), np.float32)
    landmarks[:, [159, 386], 1] = np.array(openings)[:, None]
    return landmarks


def test_eye_amplitude() -> None:
    assert md.eye_amplitude(eyes(np.linspace(0, 1, 101).tolist())) == pytest.approx(2 * 0.9)


def test_blinks_become_one_frame() -> None:
    openings = [1.0] * 50
    openings[10:15] = [0.2] * 5
    openings[20:24] = [0.84] * 4
    openings[27] = 0.86  # not shut
    openings[30] = 0.2
    openings[47:] = [0.1] * 3  # until the end; lost in the reference
    blinks = md.blink_labels(eyes(openings))
    assert len(blinks) == 100
    assert np.flatnonzero(blinks).tolist() == [24, 25, 44, 45, 60, 61, 96, 97]
