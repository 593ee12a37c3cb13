"""Weights: safe reading, strict loading, atomic saving."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from utils.core.errors import BadInput
from utils.files.digests import sha256
from utils.weights import checkpoints

HTML = b"\xef\xbb\xbf\n <!DOCTYPE html><html><body>quota exceeded</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
SUFFIXES = (".pt", ".ckpt", ".safetensors")
ARRAY_SUFFIXES = (".safetensors", ".npz", ".npy", ".mat")


class RunsCode:
    """An unsafe pickle: a call that unpickling would run."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"a.weight": torch.randn(4, 3, generator=generator), "count": torch.tensor(7)}


def write_arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = {"a": np.arange(12, dtype=np.float32).reshape(4, 3), "b": np.arange(6, dtype=np.int32).reshape(2, 3)}
    if path.suffix == ".safetensors":
        checkpoints.save_weights(path, {name: torch.from_numpy(array) for name, array in arrays.items()})
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".mat":
        from scipy.io import savemat

        savemat(path, arrays)
    else:
        np.save(path, arrays["a"])
        return {"array": arrays["a"]}
    return arrays


def refused(read, path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_weights_round_trip(tmp_path, suffix):
    path = tmp_path / "new" / f"weights{suffix}"
    save = checkpoints.save_weights if suffix == ".safetensors" else checkpoints.save_checkpoint
    save(path, tensors())
    loaded = checkpoints.read_weights(path)
    assert loaded.keys() == tensors().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors().items())
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_nested_checkpoints_keep_their_shape(tmp_path):
    checkpoints.save_checkpoint(tmp_path / "a.ckpt", {"state_dict": {"model": tensors()}, "global_step": 5})
    loaded = checkpoints.read_weights(tmp_path / "a.ckpt")
    assert loaded["global_step"] == 5
    assert torch.equal(loaded["state_dict"]["model"]["a.weight"], tensors()["a.weight"])


def test_metadata_round_trip(tmp_path):
    checkpoints.save_weights(tmp_path / "a.safetensors", tensors(), {"licence": "Apache-2.0"})
    assert checkpoints.read_metadata(tmp_path / "a.safetensors") == {"licence": "Apache-2.0"}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "nothing"),
        (b"", "empty file"),
        (HTML, "HTML page"),
        (b"<?xml version='1.0'?><Error/>", "HTML page"),
        (LFS, "git lfs pull"),
        (b"hello, this is plain text and no weights at all", "unreadable"),
        (bytes(200), "unreadable"),
    ],
)
def test_files_that_are_no_weights(tmp_path, suffix, content, found):
    path = tmp_path / f"weights{suffix}"
    if content is not None:
        path.write_bytes(content)
    assert found in refused(checkpoints.read_weights, path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_weights(tmp_path, suffix, share):
    path = tmp_path / f"weights{suffix}"
    save = checkpoints.save_weights if suffix == ".safetensors" else checkpoints.save_checkpoint
    save(path, tensors())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(checkpoints.read_weights, path)


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch, is_zip):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": RunsCode()}, "unsafe.pt", _use_new_zipfile_serialization=is_zip)
    assert "mkdir" in refused(checkpoints.read_weights, tmp_path / "unsafe.pt")
    assert not Path("ran").exists()


def test_plain_pickles_and_other_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": RunsCode()}))
    refused(checkpoints.read_weights, tmp_path / "plain.pkl")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "found list" in refused(checkpoints.read_weights, tmp_path / "list.pt")
    assert "a folder" in refused(checkpoints.read_weights, tmp_path)
    assert not Path("ran").exists()


SCALARS = (np.float64(0.1), np.float32(-2.5), np.int64(-(2**40)), np.uint8(200), np.bool_(True), np.float16(0.5))


@pytest.mark.parametrize("is_zip", [True, False])
def test_numpy_scalars_beside_the_tensors_become_numbers(tmp_path, is_zip):
    optimizer = {"state": {0: {"step": SCALARS[0]}}, "param_groups": [{"betas": (SCALARS[1], SCALARS[2])}]}
    content = {"net": tensors(), "opt_00": optimizer, "rest": list(SCALARS)}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    loaded = checkpoints.read_weights(tmp_path / "a.pth")
    assert loaded["rest"] == [scalar.item() for scalar in SCALARS]
    assert [type(number) for number in loaded["rest"]] == [float, float, int, int, bool, float]
    assert loaded["opt_00"] == {"state": {0: {"step": 0.1}}, "param_groups": [{"betas": (-2.5, -(2**40))}]}
    assert torch.equal(loaded["net"]["a.weight"], tensors()["a.weight"])


class Asks:
    """Pickled as a call of any function with any arguments, and a state for what it returns."""

    def __init__(self, *reduced: object) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple:
        return self.reduced


SCALAR = np.float64(1).__reduce__()[0]


@pytest.mark.parametrize(
    "content",
    [
        np.arange(3),
        np.dtype([("a", "f8")]),
        np.array([("a", 1)], "U1,i4")[0],
        np.str_("text"),
        np.datetime64("2024-01-01"),
        np.clongdouble(1),
        Asks(np.dtype, ("O",)),
        Asks(np.dtype, ({"names": ["a"], "formats": ["f8"]},)),
        Asks(SCALAR, (np.dtype("f8"), b"1234")),
        Asks(SCALAR, ("f8", b"12345678")),
        Asks(np.dtype, ("f8", False, True), 1),
        Asks(np.frombuffer, (b"12345678",)),
    ],
    ids=str,
)
def test_other_numpy_objects_are_refused(tmp_path, content):
    torch.save({"a": content, "b": tensors()}, tmp_path / "a.pth")
    refused(checkpoints.read_weights, tmp_path / "a.pth")


def test_a_checkpoint_cannot_change_numpy(tmp_path):
    """Setting the state of numpy's own float64 would turn its byte order around for the whole process."""
    swapped = (3, ">", None, None, None, -1, -1, 0)
    torch.save({"a": Asks(np.dtype, ("f8", False, False), swapped)}, tmp_path / "a.pth")
    checkpoints.read_weights(tmp_path / "a.pth")
    assert np.dtype("f8").byteorder == "="
    assert np.frombuffer(np.float64(1).tobytes(), "f8")[0] == 1


def test_swapped_bytes_of_a_scalar(tmp_path):
    torch.save({"a": Asks(SCALAR, (np.dtype(">f8"), np.array(3.0, ">f8").tobytes()))}, tmp_path / "a.pth")
    assert checkpoints.read_weights(tmp_path / "a.pth") == {"a": 3.0}


@pytest.mark.parametrize("suffix", ARRAY_SUFFIXES)
def test_arrays_of_every_kind(tmp_path, suffix):
    path = tmp_path / f"arrays{suffix}"
    expected = write_arrays(path)
    loaded = checkpoints.read_arrays(path)
    assert sorted(loaded) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize("suffix", ARRAY_SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated_arrays(tmp_path, suffix, share):
    path = tmp_path / f"arrays{suffix}"
    write_arrays(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(checkpoints.read_arrays, path)


@pytest.mark.parametrize("suffix", ARRAY_SUFFIXES)
def test_text_in_place_of_arrays(tmp_path, suffix):
    path = tmp_path / f"arrays{suffix}"
    path.write_bytes(b"hello, this is plain text and no numbers at all, however long it may go on being so" * 4)
    refused(checkpoints.read_arrays, path)


def test_words_of_a_binary_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(np.array([7], "<i4").tobytes() + np.array([0.5, -2], "<f4").tobytes())
    words = checkpoints.read_words(path)
    assert words[:1].view("<i4").tolist() == [7]
    assert words[1:].view("<f4").tolist() == [0.5, -2.0]
    path.write_bytes(path.read_bytes()[:-1])
    assert "found 11 bytes" in refused(checkpoints.read_words, path)
    path.write_bytes(HTML)
    assert "HTML page" in refused(checkpoints.read_words, path)
    refused(checkpoints.read_words, tmp_path / "missing.bin")


def test_numbers_of_a_text_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("1.5 -2\n3e2\n")
    assert checkpoints.read_numbers(path).tolist() == [1.5, -2.0, 300.0]
    for content in (
        b"1.5 two",
        b"1.5 nan",
        b"1.5 1e999",
        b"\xff\xfe1\x00",
        b"1" * 400,
        b"1 " * 600_000,
        HTML,
        LFS,
        b"",
    ):
        path.write_bytes(content)
        refused(checkpoints.read_numbers, path)


def test_pickled_arrays_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.array([RunsCode()], dtype=object), allow_pickle=True)
    np.savez("a.npz", a=np.array([RunsCode()], dtype=object))
    for name in ("a.npy", "a.npz"):
        refused(checkpoints.read_arrays, tmp_path / name)
    assert not Path("ran").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_floats_become_float32(tmp_path, dtype):
    checkpoints.save_weights(tmp_path / "a.safetensors", {"a": torch.tensor([0.5, -2.0], dtype=dtype)})
    loaded = checkpoints.read_arrays(tmp_path / "a.safetensors")["a"]
    assert loaded.dtype == np.float32
    assert loaded.tolist() == [0.5, -2.0]


def test_damaged_metadata(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\xff" * 64)
    refused(checkpoints.read_metadata, path)


def test_strict_loading_copies_and_renames(tmp_path):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    state = {f"module.{key}": value.half() for key, value in source.state_dict().items()}
    checkpoints.load_strict(target, state, tmp_path / "a.pt", rename=lambda key: key.removeprefix("module."))
    assert target.weight.dtype == torch.float32
    torch.testing.assert_close(target.weight, source.weight, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"bias": None}, "1 missing keys such as bias"),
        ({"extra": torch.zeros(1)}, "1 unexpected keys such as extra"),
        ({"weight": torch.zeros(2, 4)}, r"weight weight has another shape .*expected \(2, 3\), found \(2, 4\)"),
        ({"bias": {"nested": 1}}, "found dict"),
        ({"bias": torch.tensor([0.0, torch.nan])}, "weight bias is not finite"),
        ({"weight": torch.full((2, 3), torch.inf).half()}, "weight weight is not finite"),
    ],
)
def test_strict_loading_names_what_is_wrong(tmp_path, change, found):
    module = nn.Linear(3, 2)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {key: value for key, value in (dict(before) | change).items() if value is not None}
    with pytest.raises(BadInput, match=found) as caught:
        checkpoints.load_strict(module, state, tmp_path / "net.pt")
    assert "net.pt" in str(caught.value)
    assert all(torch.equal(module.state_dict()[key], value) for key, value in before.items())


def test_newest_checkpoint(tmp_path):
    for name in ("_9.ckpt", "_100.ckpt", "_100.safetensors", "_20.safetensors", "_200.ckpt.tmp", "_x.ckpt"):
        (tmp_path / f"model_ckpt_steps{name}").touch()
    assert checkpoints.newest_checkpoint(tmp_path).name == "model_ckpt_steps_100.safetensors"
    for directory in (tmp_path / "missing", tmp_path / "model_ckpt_steps_9.ckpt"):
        refused(checkpoints.newest_checkpoint, directory)


def test_weights_of_a_diffusers_folder(tmp_path):
    refused(checkpoints.weights_file, tmp_path)
    for suffix in (".bin", ".safetensors"):
        (tmp_path / f"diffusion_pytorch_model{suffix}").touch()
        assert checkpoints.weights_file(tmp_path).suffix == suffix


def test_half_precision_leaves_counters():
    halved = checkpoints.half_precision(tensors())
    assert halved["a.weight"].dtype == torch.float16
    assert halved["count"].dtype == torch.int64


def test_sha256(tmp_path):
    content = bytes(range(256)) * 8000
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
