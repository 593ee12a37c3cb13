"""Shards: read like folders, the same bytes in any order, written atomically, readable as WebDataset."""

from __future__ import annotations

import gc
import io
import json
import multiprocessing
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import preprocess_dataset_extra
from tests.helpers.training_data import write_clip
from utils.core.errors import BadInput
from utils.data.clips import clip_folders, clip_names, open_clips
from utils.data.shard_writer import ShardPacker, pack_clip, packed_names, waiting_path
from utils.results.store import face_path

NAMES = ("a clip (1) it's", "b.v2", "c" * 120, "dé")
SHARD_BYTES = 340_000  # two of these clips


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    data_dir = tmp_path_factory.mktemp("folders")
    for name in NAMES:
        folder = write_clip(data_dir, name, has_audio=name != "b.v2")
        (folder / "track.json").write_text("{}\n")
        face_path(folder, 3).unlink()  # no face there
        (folder / "depth" / "00000003.png").unlink()
    return data_dir


def pack(folders: Path, data_dir: Path, order=NAMES, shard_bytes: int = SHARD_BYTES) -> int:
    """Pack clips as they finish in the given order; returns how many still wait."""
    packer = ShardPacker(data_dir, NAMES, shard_bytes)
    for name in order:
        pack_clip(folders / name, name, waiting_path(data_dir, name))
        packer.settle(name)
    return packer.finish()


@pytest.fixture(scope="module")
def shards(folders, tmp_path_factory) -> Path:
    data_dir = tmp_path_factory.mktemp("shards")
    assert pack(folders, data_dir) == 0
    return data_dir


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_clips_are_the_same_in_both_formats(folders, shards):
    assert clip_names(shards) == clip_names(folders) == sorted(NAMES)
    for packed, plain in zip(open_clips(shards, NAMES), open_clips(folders, NAMES), strict=True):
        assert packed.name == plain.name
        assert np.array_equal(packed.valid, plain.valid)
        assert np.array_equal(packed.audio, plain.audio) if plain.audio is not None else packed.audio is None
        for index in np.flatnonzero(plain.valid):
            for part in ("faces", "depths", "landmarks"):
                assert np.array_equal(getattr(packed, part)[index], getattr(plain, part)[index])


def test_frames_without_an_image_and_unknown_names_are_no_files(shards):
    with pytest.raises(BadInput, match=r"unreadable image.*shard-000000\.tar/a clip .*faces/00000003\.jpg"):
        open_clips(shards, [NAMES[0]])[0].faces[3]
    folder = clip_folders(shards)[NAMES[0]]
    assert (folder / "faces" / "00000002.jpg").is_file()
    for name in ("x.jpg", "00000003.jpg", "00000099.jpg", "00000000.png"):
        assert not (folder / "faces" / name).is_file()
    assert not (folder / "nothing.npy").is_file()


def test_shards_hold_as_much_as_they_may(shards):
    assert [path.name for path in sorted(shards.iterdir())] == [
        f"shard-00000{number}.{suffix}" for number in range(2) for suffix in ("json", "npy", "tar")
    ]
    assert all(path.stat().st_size <= SHARD_BYTES for path in shards.glob("*.tar"))


@pytest.mark.parametrize("order", [NAMES[::-1], (NAMES[2], NAMES[0], NAMES[3], NAMES[1])])
def test_bytes_do_not_depend_on_who_is_done_first(folders, shards, tmp_path, order):
    assert pack(folders, tmp_path, order) == 0
    assert files_of(tmp_path) == files_of(shards)


def test_an_unsettled_clip_keeps_later_ones_waiting_for_the_next_run(folders, shards, tmp_path):
    assert pack(folders, tmp_path, NAMES[:1] + NAMES[2:]) == 3
    assert not list(tmp_path.glob("shard-*"))
    packer = ShardPacker(tmp_path, NAMES, SHARD_BYTES)
    pack_clip(folders / NAMES[1], NAMES[1], waiting_path(tmp_path, NAMES[1]))
    packer.settle(NAMES[1])
    assert packer.finish() == 0
    assert files_of(tmp_path) == files_of(shards)


def test_more_clips_make_more_shards(folders, tmp_path):
    for name in NAMES:
        packer = ShardPacker(tmp_path, [name], SHARD_BYTES)
        pack_clip(folders / name, name, waiting_path(tmp_path, name))
        packer.settle(name)
        packer.finish()
    assert list(packed_names(tmp_path)) == list(NAMES)
    assert len(list(tmp_path.glob("*.tar"))) == len(NAMES)


def test_a_shard_without_its_index_does_not_count(folders, shards, tmp_path):
    """A run killed between tar and index: the next run writes the shard again."""
    (tmp_path / "shard-000000.tar").write_bytes(b"half a shard")
    with pytest.raises(BadInput, match="no training clips"):
        clip_names(tmp_path)
    pack(folders, tmp_path)
    assert files_of(tmp_path) == files_of(shards)


def test_tar_readers_see_the_files_in_order(folders, shards):
    with tarfile.open(shards / "shard-000000.tar") as tar:
        names = tar.getnames()
        assert len(names) == len(set(names))
        ours = [name.removeprefix(f"{NAMES[0]}/") for name in names if name.startswith(NAMES[0])]
        assert ours[:6] == [
            f"clip.{name}" for name in ("audio.npy", "boxes.npy", "landmarks.npy", "track.json", "valid.npy")
        ] + ["00000000.depth.png"]
        assert ours[6:8] == ["00000000.face.jpg", "00000001.depth.png"]
        member = tar.extractfile(f"{NAMES[0]}/00000002.face.jpg")
        assert member.read() == face_path(folders / NAMES[0], 2).read_bytes()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_them(folders, shards):
    webdataset = pytest.importorskip("webdataset", reason="pip install webdataset")
    samples = list(webdataset.WebDataset(str(shards / "shard-{000000..000001}.tar"), shardshuffle=False))
    gc.collect()  # it leaves its files for Python to close, with a warning
    by_key = {sample["__key__"]: sample for sample in samples}
    assert len(by_key) == len(samples) == len(NAMES) * (1 + 11)
    for name in NAMES:
        arrays, frame = by_key[f"{name}/clip"], by_key[f"{name}/00000005"]
        assert np.array_equal(np.load(io.BytesIO(arrays["valid.npy"])), np.load(folders / name / "valid.npy"))
        assert frame["face.jpg"] == face_path(folders / name, 5).read_bytes()
        assert Image.open(io.BytesIO(frame["depth.png"])).size == (256, 256)


def _mean_face(path: Path, name: str, queue) -> None:
    queue.put(float(open_clips(path, [name])[0].faces[5].mean()))


def test_reading_survives_a_fork(shards):
    """Trainers open clips and then fork loaders, which read the same shard at the same time."""
    here = float(open_clips(shards, [NAMES[0]])[0].faces[5].mean())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_mean_face, args=(shards, NAMES[0], queue)) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=60) for _ in children] == [here, here]
    for child in children:
        child.join()


def test_the_lists_are_the_same_for_both_formats(folders, shards, tmp_path, capsys):
    for source, target in ((folders, tmp_path / "folders"), (shards, tmp_path / "shards")):
        target.mkdir()
        for path in source.iterdir():
            (target / path.name).symlink_to(path)
        preprocess_dataset_extra.main([str(target), "--validation_share", "0.3"])
    for name in ("train.txt", "val.txt", "summary.json"):
        assert (tmp_path / "folders" / name).read_bytes() == (tmp_path / "shards" / name).read_bytes()


def test_damaged_shards_are_named(folders, tmp_path):
    pack(folders, tmp_path)
    index = tmp_path / "shard-000001.json"
    content = index.read_text()
    for damaged in ("", "{}", json.dumps({"schema": 9, "clips": []}), content[:-20]):
        index.write_text(damaged)
        with pytest.raises(BadInput, match=r"unreadable shard index.*shard-000001\.json"):
            clip_names(tmp_path)
    index.write_text(content)
    (tmp_path / "shard-000001.npy").write_bytes(b"")
    with pytest.raises(BadInput, match=r"unreadable shard index.*shard-000001\.npy"):
        open_clips(tmp_path, NAMES)
    tar = tmp_path / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"shard-000000\.tar"):
        open_clips(tmp_path, NAMES[:1])
    tar.unlink()
    with pytest.raises(BadInput, match="shard missing"):
        clip_names(tmp_path)
