"""A BFM folder with raw files: converted once, kept, and refused if its files do not match."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

from models.face3d.bfm_folder import BFM_ALIGNMENT_FILE, BFM_FILE, BFM_LANDMARK_FILE, RAW_FILES
from models.face3d.face_model import FaceModel
from utils.core.errors import BadInput

FIXTURES = Path(__file__).resolve().parents[2] / "parity" / "fixtures"
N_VERTICES = 30  # of the fixture once it is converted


@pytest.fixture
def folder(tmp_path) -> Path:
    """The raw files and the two files without conversion."""
    folder = tmp_path / "BFM"
    folder.mkdir()
    for name in RAW_FILES:
        shutil.copyfile(FIXTURES / "synthetic_bfm_raw" / name, folder / name)
    shutil.copyfile(FIXTURES / "synthetic_bfm" / BFM_ALIGNMENT_FILE, folder / BFM_ALIGNMENT_FILE)
    np.save(folder / BFM_LANDMARK_FILE, np.arange(468) % N_VERTICES)
    return folder


def require_same(first: FaceModel, second: FaceModel) -> None:
    buffers = dict(second.named_buffers())
    assert buffers.keys() == dict(first.named_buffers()).keys()
    for name, buffer in first.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_raw_files_are_converted_once(folder):
    before = names_in(folder)
    model = FaceModel.load(folder)
    assert names_in(folder) == sorted([*before, BFM_FILE])
    assert model.note == f"{folder / BFM_FILE}: made from the raw Basel Face Model files"
    (folder / RAW_FILES[0]).unlink()  # the raw files are not needed any more
    again = FaceModel.load(folder)
    assert again.note is None
    require_same(model, again)


def test_the_file_is_like_the_official_one(folder):
    FaceModel.load(folder)
    made, official = loadmat(folder / BFM_FILE), loadmat(FIXTURES / "synthetic_bfm" / BFM_FILE)
    assert made.keys() == official.keys()
    floats = [name for name, array in official.items() if name[:2] != "__" and array.dtype == np.float32]
    assert len(floats) == 5
    assert all(made[name].dtype == np.float32 for name in floats)
    assert all(made[name].ndim == official[name].ndim for name in floats)
    assert made["tri"].min() == 1


def test_a_folder_that_cannot_be_written_serves_all_the_same(folder):
    kept = FaceModel.load(folder)
    (folder / BFM_FILE).unlink()
    before = names_in(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as on a disk that is full
    try:
        model = FaceModel.load(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names_in(folder) == before
    assert "for this run alone, it cannot be kept (File too large)" in model.note
    require_same(model, kept)


def refusal(folder: Path) -> str:
    before = names_in(folder)
    with pytest.raises(BadInput) as error:
        FaceModel.load(folder)
    assert names_in(folder) == before
    return str(error.value)


@pytest.mark.parametrize("name", [*RAW_FILES, BFM_ALIGNMENT_FILE, BFM_LANDMARK_FILE])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    message = refusal(folder)
    assert f"({folder / name}): expected a file, found nothing" in message
    assert not any(other in message for other in RAW_FILES if other != name)


def test_all_missing_files_are_named(folder):
    missing = (*RAW_FILES[2:4], BFM_LANDMARK_FILE)
    for name in missing:
        (folder / name).unlink()
    assert all(name in refusal(folder) for name in missing)


def change_mat(path: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    arrays = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    savemat(path, arrays | {name: change(arrays[name])})


def with_last(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[-1] = value
        return array

    return change


@pytest.mark.parametrize(
    ("file", "name", "change", "message"),
    [
        ("01_MorphableModel.mat", "shapePC", lambda a: a[:-3], r"shapePC of shape \(180, 199\)"),
        ("01_MorphableModel.mat", "texMU", lambda a: a[:-3], "texMU of 180"),
        ("01_MorphableModel.mat", "texEV", lambda a: a[:-1], r"texPC of shape \(180, 198\)"),
        ("01_MorphableModel.mat", "shapeEV", lambda a: a * np.nan, "finite numbers, found idBase"),
        ("BFM_exp_idx.mat", "trimIndex", with_last(61), "from 1 to 60, found 1.0 to 61.0"),
        ("BFM_exp_idx.mat", "trimIndex", with_last(2.5), "trimIndex with indices"),
        ("BFM_front_idx.mat", "idx", with_last(55), "from 1 to 54"),
        ("BFM_front_idx.mat", "idx", with_last(0), "from 1 to 54, found 0.0"),
        ("facemodel_info.mat", "tri", with_last(31), "tri with indices from 1 to 30"),
        ("facemodel_info.mat", "point_buf", lambda a: a[:-1], r"point_buf of shape \(30, 8\), found \(29, 8\)"),
        ("facemodel_info.mat", "keypoints", lambda a: a[:, :67], "keypoints of 68 entries"),
        ("facemodel_info.mat", "skinmask", lambda a: a[:, :-1], "skinmask of 30 entries"),
        ("facemodel_info.mat", "tri", lambda _: np.array([1, "x"], dtype=object), "an array tri"),
        ("similarity_Lm3D_all.mat", "lm", lambda a: a[:5], r"lm of shape \(68, 3\)"),
    ],
)
def test_files_that_do_not_fit_each_other_are_named(folder, file, name, change, message):
    change_mat(folder / file, name, change)
    with pytest.raises(BadInput, match=message) as error:
        FaceModel.load(folder)
    assert str(folder / file) in str(error.value)


@pytest.mark.parametrize("n_expressed", [53, 55])
def test_expressions_of_another_mesh(folder, n_expressed):
    """As many indices as the expression basis has vertices; with the real files 53215."""
    change_mat(folder / "BFM_exp_idx.mat", "trimIndex", lambda _: 1.0 + np.arange(n_expressed))
    message = refusal(folder)
    assert f"({folder / 'Exp_Pca.bin'}): expected a mean and the components of {n_expressed} vertices" in message
    assert "found 79 components in 51844 bytes" in message


def test_expression_files_of_other_sizes(folder):
    numbers = (folder / "std_exp.txt").read_text().split()
    (folder / "std_exp.txt").write_text(" ".join(numbers[:-1]))
    assert "std_exp.txt): expected 79 numbers, as Exp_Pca.bin says, found 78" in refusal(folder)
    (folder / "std_exp.txt").write_text(" ".join(numbers))
    whole = (folder / "Exp_Pca.bin").read_bytes()
    for content in (whole[:-4], whole[:-2], whole + bytes(4), b"\xff\xff\xff\xff" + whole[4:], whole[:4], bytes(4)):
        (folder / "Exp_Pca.bin").write_bytes(content)
        assert str(folder / "Exp_Pca.bin") in refusal(folder)


def test_landmarks_of_a_larger_mesh(folder):
    np.save(folder / BFM_LANDMARK_FILE, np.arange(468))
    assert "indices from 0 to 29, found 0 to 467" in refusal_beside_conversion(folder)
    np.save(folder / BFM_LANDMARK_FILE, np.arange(20))
    assert "expected 468 indices, found 20" in refusal_beside_conversion(folder)
    np.save(folder / BFM_LANDMARK_FILE, np.array(["text"] * 468))
    assert "values of type <U4" in refusal_beside_conversion(folder)


def refusal_beside_conversion(folder: Path) -> str:
    """The landmarks are compared with the converted model, which is sound and may stay."""
    with pytest.raises(BadInput) as error:
        FaceModel.load(folder)
    assert str(folder / BFM_LANDMARK_FILE) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", [name for name in RAW_FILES if name.endswith(".mat")])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_raw_files(folder, name, share):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    assert f"unreadable array file ({folder / name})" in refusal(folder)
