"""Intermediate files: written whole or not at all, checked when read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from utils.core.errors import BadInput
from utils.files.arrays import load_array
from utils.files.image_files import write_gray
from utils.results import store

ROOT = Path(__file__).resolve().parents[3]
N = 4  # frames of the small stage-2 result


def listing(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


def record(**changes: object) -> store.TrackRecord:
    values = {
        "source_name": "clip.mp4",
        "source_bytes": 1000,
        "width": 64,
        "height": 48,
        "n_source_frames": 3,
        "n_frames": N,
        "n_valid": 3,
        "motion_name": "speech.npy",
        "weights": "mini",
    } | changes
    return store.TrackRecord(**values)


def write_edit(directory: Path) -> store.TrackRecord:
    rng = np.random.default_rng(0)
    valid = np.array([True, True, False, True])
    store.save_edit_arrays(
        directory,
        boxes=np.tile([2, 3, 12, 11], (N, 1)),
        landmarks=rng.normal(size=(N, 468, 2)),
        coeffs=rng.normal(size=(N, 257)),
        frame_index=np.array([0, 1, 2, 2]),
        valid=valid,
        source_landmarks=rng.normal(size=(N, 468, 2)),
        strength=valid * 0.5,
    )
    for index in np.flatnonzero(valid):
        write_gray(store.depth_path(directory, index), np.full((8, 10), 40 * index, np.uint8))
    store.save_track_record(directory, record())
    return record()


def test_only_own_results_are_replaced(tmp_path):
    own, empty, foreign, file = (tmp_path / name for name in ("own", "empty", "foreign", "file"))
    for directory in (own, empty, foreign):
        directory.mkdir()
    store.save_track_record(own, record())
    (foreign / "holiday.jpg").write_bytes(b"")
    file.write_text("mine")
    for directory in (own, empty, tmp_path / "absent"):
        store.require_replaceable(directory)
    for path in (foreign, file):
        with pytest.raises(BadInput, match=path.name):
            store.require_replaceable(path)


def bad_files(directory: Path) -> list[Path]:
    paths = [directory / name for name in ("text.npy", "empty.npy", "cut.npy", "zip.npy", "pickle.npy", "huge.npy")]
    text, empty, cut, archive, pickled, huge = paths
    text.write_text("no numbers here")
    empty.write_bytes(b"")
    np.save(cut, np.zeros((8, 64), np.float32))
    cut.write_bytes(cut.read_bytes()[:-100])
    with archive.open("wb") as file:
        np.savez(file, motion=np.zeros((8, 64), np.float32))
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999, 64), }\n"
    huge.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return [*paths, directory / "missing.npy", directory]


def test_files_that_are_no_arrays(tmp_path):
    for path in bad_files(tmp_path):
        for load in (store.load_motion, lambda name: load_array(name, (None, 64), "f", "advice")):
            with pytest.raises(BadInput) as caught:
                load(path)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_motion_round_trip(tmp_path):
    motion = np.random.default_rng(0).normal(size=(8, 64))
    store.save_motion(tmp_path / "motion.npy", motion)
    loaded = store.load_motion(tmp_path / "motion.npy")
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded, motion, rtol=1e-6)
    np.save(tmp_path / "batch.npy", motion[None])
    np.testing.assert_array_equal(store.load_motion(tmp_path / "batch.npy"), loaded)


@pytest.mark.parametrize(
    ("motion", "found"),
    [
        (np.zeros((8, 63), np.float32), r"float32 \[8, 63\]"),
        (np.zeros((64,), np.float32), r"float32 \[64\]"),
        (np.zeros((2, 8, 64), np.float32), r"float32 \[2, 8, 64\]"),
        (np.zeros((8, 64), np.int32), r"int32 \[8, 64\]"),
        (np.zeros((0, 64), np.float32), "no frame"),
        (np.full((8, 64), np.nan, np.float32), "512 others"),
        (np.full((8, 64), 1e300), "512 others"),
        (np.eye(8, 64, dtype=np.float32) * -1e4, "8 others"),
    ],
)
def test_motion_that_does_not_fit(tmp_path, motion, found):
    np.save(tmp_path / "motion.npy", motion)
    with pytest.raises(BadInput, match=rf"motion\.npy.*{found}.*inference_audio2motion"):
        store.load_motion(tmp_path / "motion.npy")


def test_names_of_results():
    video, motion, audio = Path("/a/my clip (1).mov"), Path("b/speech.v2.npy"), Path("b/speech.v2.mp3")
    assert store.edit_dir(Path("out"), video, motion) == Path("out/my clip (1)/speech.v2")
    assert store.edit_dir(Path("out"), video, audio) == store.edit_dir(Path("out"), video, motion)
    assert store.talk_path(Path("out"), video, audio) == Path("out/my clip (1)#speech.v2.mp4")


def test_edit_round_trip(tmp_path):
    written = write_edit(tmp_path)
    edit = store.load_edit(tmp_path)
    assert edit.record == written
    assert len(edit) == N
    assert edit.boxes.dtype == edit.frame_index.dtype == np.int32
    assert edit.landmarks.dtype == edit.coeffs.dtype == edit.source_landmarks.dtype == np.float32
    assert edit.valid.tolist() == [True, True, False, True]
    assert edit.strength.tolist() == [0.5, 0.5, 0, 0.5]
    np.testing.assert_array_equal(edit.depth(3), np.full((8, 10), 120, np.uint8))


ARRAYS = ("boxes", "landmarks", "source_landmarks", "coeffs", "frame_index", "valid", "strength")


@pytest.mark.parametrize("name", ["track.json", *(f"{name}.npy" for name in ARRAYS), "depth/00000003.png"])
def test_incomplete_edit(tmp_path, name):
    write_edit(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BadInput, match=rf"{name}.*inference_edit_expression"):
        store.load_edit(tmp_path)


@pytest.mark.parametrize("name", ARRAYS)
def test_edit_arrays_of_another_length(tmp_path, name):
    write_edit(tmp_path)
    array = np.load(tmp_path / f"{name}.npy")
    np.save(tmp_path / f"{name}.npy", array[:-1])
    with pytest.raises(BadInput, match=rf"{name}\.npy"):
        store.load_edit(tmp_path)


@pytest.mark.parametrize("strength", [-0.1, 1.5, np.nan])
def test_strength_is_a_share(tmp_path, strength):
    write_edit(tmp_path)
    np.save(tmp_path / "strength.npy", np.array([1, 1, 0, strength], np.float32))
    with pytest.raises(BadInput, match=r"strength\.npy.*0 to 1"):
        store.load_edit(tmp_path)


CHANGES = [
    {"schema": 99},
    {"n_frames": "4"},
    {"extra": 1},
    {"n_frames": None},
    "[]",
    "{",
    "\\xff",
    {"source_bytes": 1.5},
]
RATES = [{"fps": rate} for rate in (0, -25, 1e-9, 1e-320, float("nan"), float("inf"), "25", [25], None, 10**400)]


@pytest.mark.parametrize("change", [*CHANGES, *RATES, "[" * 100_000], ids=lambda change: str(change)[:20])
def test_track_records_of_another_kind(tmp_path, change):
    write_edit(tmp_path)
    path = tmp_path / "track.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change) if isinstance(change, dict) else change)
    with pytest.raises(BadInput, match=r"track\.json"):
        store.load_edit(tmp_path)


def test_sound_round_trip(tmp_path):
    wave = np.array([-1.0, -0.5, 0.0, 0.25, 0.9999], np.float32)
    store.save_sound(tmp_path, wave)
    stored = np.load(tmp_path / store.SOUND_NAME)
    assert stored.dtype == np.int16
    np.testing.assert_allclose(stored / 32768, wave, atol=1 / 32768)
