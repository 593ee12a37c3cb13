"""Archives of training data: the clips come back, and damaged or foreign files are one error line."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import torch

import preprocess_dataset
from models.face3d.face_model import MODEL_FILE
from scripts.mini_pack import archive
from scripts.mini_pack.packed_clip import MOST_FRAMES, alignment_of, decode_arrays, encode_arrays, fit_crop
from tests.helpers.talking_clip import CLIP_NAME, FACE_MODELS, moving_face, write_speech
from utils.core.errors import BadInput, StageFailure
from utils.data.clips import open_clip
from utils.imaging.geometry import Alignment
from utils.media.video import VideoWriter
from utils.results import store

FACE_MODEL = FACE_MODELS[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """data/dataset/<clip>, a preprocessed clip with sound, whose face is hidden at the end."""
    folder = tmp_path_factory.mktemp("data")
    write_speech(folder / "speech.wav")
    with VideoWriter(folder / "clips" / CLIP_NAME, audio_path=folder / "speech.wav") as writer:
        for image in moving_face():
            writer.write(image)
    preprocess_dataset.main(
        ["--video_dir", str(folder / "clips"), "--result_dir", str(folder / "dataset"), "--num_workers", "1",
         "--bfm_folder", str(FACE_MODEL)]
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def packed(data):
    archive.main(["pack", str(data / "dataset"), "--out", str(data / "training.tar")])
    return data / "training.tar"


def clip_folder(folder):
    (found,) = (folder / "dataset").iterdir()
    return found


def test_a_clip_comes_back(data, packed, tmp_path):
    archive.main(["unpack", str(packed), str(tmp_path)])
    before, after = open_clip(clip_folder(data)), open_clip(clip_folder(tmp_path))
    assert np.array_equal(before.valid, after.valid)
    assert np.array_equal(before.audio, after.audio)
    assert store.load_track_record(clip_folder(data)) == store.load_track_record(clip_folder(tmp_path))
    for name, tolerance in ((store.BOXES_NAME, 0), (store.COEFFS_NAME, 4e-3), (store.FRAME_INDEX_NAME, 0)):
        first, second = (np.load(clip_folder(folder) / name) for folder in (data, tmp_path))
        assert first.dtype == second.dtype
        assert np.abs(first.astype(float) - second).max() <= tolerance, name
    for index in np.flatnonzero(before.valid):
        assert np.abs(before.landmarks[index] - after.landmarks[index]).max() < 0.1
        crops = before.faces[index].astype(float) - after.faces[index]
        depths = np.abs(before.depths[index].astype(float) - after.depths[index])
        assert np.square(crops).mean() < 255**2 / 10**3.5  # 35 dB
        assert depths.mean() < 0.2
    assert (tmp_path / MODEL_FILE).read_bytes() == FACE_MODEL.read_bytes()


def test_clips_that_are_there_stay(packed, tmp_path, capsys):
    archive.main(["unpack", str(packed), str(tmp_path)])
    state = clip_folder(tmp_path).stat()
    archive.main(["unpack", str(packed), str(tmp_path)])
    assert "already there" in capsys.readouterr().out
    assert clip_folder(tmp_path).stat().st_ino == state.st_ino
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_same_clips_give_the_same_archive(data, packed, tmp_path):
    archive.main(["pack", str(data / "dataset"), "--out", str(tmp_path / "again.tar")])
    assert (tmp_path / "again.tar").read_bytes() == packed.read_bytes()


def test_too_large_an_archive_is_not_written(data, tmp_path):
    with pytest.raises(StageFailure, match="raise --crf"):
        archive.main(["pack", str(data / "dataset"), "--out", str(tmp_path / "a.tar"), "--most_megabytes", "0.1"])
    assert list(tmp_path.iterdir()) == []


def test_another_face_model_is_refused(data, tmp_path):
    from utils.weights.checkpoints import read_arrays, save_weights

    arrays = {name: torch.from_numpy(np.array(values)) for name, values in read_arrays(FACE_MODEL).items()}
    arrays["meanshape"] = arrays["meanshape"].flip(0)
    save_weights(tmp_path / MODEL_FILE, arrays)
    with pytest.raises(BadInput, match="does not fit the face model"):
        archive.main(["pack", str(data / "dataset"), "--out", str(tmp_path / "a.tar"), "--face_model", str(tmp_path)])


def rewritten(packed, path, change):
    """The archive with other members: ``change`` gets (name, content) pairs and returns such."""
    with tarfile.open(packed) as old:
        members = [(info.name, old.extractfile(info).read()) for info in old]
    with tarfile.open(path, "w") as new:
        for name, content in change(members):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            new.addfile(info, io.BytesIO(content))
    return path


def renamed(members, old, new):
    """A member of another name, in the index too."""
    (_, index), *others = members
    text = index.decode().replace(json.dumps(old), json.dumps(new))
    return [("index.json", text.encode()), *((new if name == old else name, content) for name, content in others)]


def test_damaged_archives_are_one_line_and_leave_nothing(packed, tmp_path):
    content = packed.read_bytes()
    with tarfile.open(packed) as found:
        last = found.getmembers()[-1]
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 255
    changes = {
        "empty": b"",
        "text": b"no archive" * 2000,
        "cut": content[: len(content) // 2],
        "cut behind a member": content[: last.offset],
        "flipped": bytes(flipped),
        "zeros": bytes(len(content)),
    }
    for what, damaged in changes.items():
        path = tmp_path / "damaged.tar"
        path.write_bytes(damaged)
        with pytest.raises(BadInput) as error:
            archive.main(["unpack", str(path), str(tmp_path / "out")])
        assert "\n" not in str(error.value), what
        assert list((tmp_path / "out").iterdir()) == [], what


@pytest.mark.parametrize(
    "new",
    ["../outside/faces.mp4", "/tmp/x/faces.mp4", "dataset/../faces.mp4", "dataset/.x/faces.mp4",
     "dataset/clip/other.py", "dataset/faces.mp4"],
)  # fmt: skip
def test_no_name_leads_outside(packed, tmp_path, new):
    old = f"dataset/{clip_folder(packed.parent).name}/faces.mp4"
    path = rewritten(packed, tmp_path / "a.tar", lambda members: renamed(members, old, new))
    with pytest.raises(BadInput, match="another form"):
        archive.main(["unpack", str(path), str(tmp_path / "out" / "folder")])
    assert [found.name for found in tmp_path.rglob("faces.mp4")] == []


def test_members_beside_the_index_are_refused(packed, tmp_path):
    path = rewritten(packed, tmp_path / "a.tar", lambda members: [*members, ("dataset/x/faces.mp4", b"")])
    with pytest.raises(BadInput, match="damaged archive"):
        archive.main(["unpack", str(path), str(tmp_path / "out")])


def record_of(**values):
    given = {"source_name": "a.mp4", "source_bytes": 1, "width": 64, "height": 48, "n_source_frames": 3}
    return store.TrackRecord(**given | {"n_frames": 3, "n_valid": 2, "motion_name": "", "weights": "mini"} | values)


def arrays_of(rng):
    from scripts.mini_pack.packed_clip import PackedArrays

    boxes = np.int32([[1, 2, 30, 40]] * 3)
    coeffs = rng.normal(0, 1, (3, 257)).astype(np.float16).astype(np.float32)
    return PackedArrays(np.array([True, False, True]), boxes, rng.uniform(1, 2, 3), np.int32([[-4, 0]] * 3), coeffs)


def test_arrays_come_back(tmp_path):
    arrays = arrays_of(np.random.default_rng(0))
    (tmp_path / "a").write_bytes(encode_arrays(arrays))
    found = decode_arrays(tmp_path / "a", record_of())
    for name, values in vars(arrays).items():
        assert np.array_equal(getattr(found, name), values), name


@pytest.mark.parametrize("values", [{"n_frames": 2}, {"n_frames": MOST_FRAMES}, {"n_valid": 3}])
def test_arrays_of_another_length_are_refused(tmp_path, values):
    (tmp_path / "a").write_bytes(encode_arrays(arrays_of(np.random.default_rng(0))))
    with pytest.raises(BadInput, match="do not fit"):
        decode_arrays(tmp_path / "a", record_of(**values))


@pytest.mark.parametrize("name, value", [("coeffs", np.nan), ("scales", 0.0), ("scales", np.nan), ("boxes", 10**9)])
def test_impossible_numbers_are_refused(tmp_path, name, value):
    arrays = arrays_of(np.random.default_rng(0))
    getattr(arrays, name)[0] = value
    (tmp_path / "a").write_bytes(encode_arrays(arrays))
    with pytest.raises(BadInput, match="impossible numbers"):
        decode_arrays(tmp_path / "a", record_of())


def test_the_aligned_crop_is_found_again():
    rng = np.random.default_rng(1)
    record = record_of(width=641, height=360)
    for x, y in rng.uniform(-300, 900, (50, 2)):
        original = Alignment(record.width, record.height, float(rng.uniform(0.2, 4)), (float(x), float(y)))
        points = rng.uniform(0, 224, (468, 2))
        scale, offset = fit_crop(points, original.from_crop(points))
        found = alignment_of(record, scale, offset)
        assert (found.left, found.up, found.scaled_size) == (original.left, original.up, original.scaled_size)
        assert found.scale == pytest.approx(original.scale, rel=1e-9)
