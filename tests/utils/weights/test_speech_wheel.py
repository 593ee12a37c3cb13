"""The speech networks of the installed wheel: their tensors, and one line for a wheel that cannot be used."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from utils.core.errors import BadInput
from utils.weights import speech_wheel
from utils.weights.speech_wheel import (
    DETECTOR_PATH,
    ENCODER_PATH,
    read_speech_detector,
    read_speech_encoder,
    wheel_file,
)

INSTALL = "pip install --no-deps pipecat-ai==1.14.0"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return read_speech_encoder()


def install_copy(site: Path, monkeypatch: pytest.MonkeyPatch, version: str = "1.14.0") -> Path:
    """A copy of the wheel's encoder where Python looks for packages first; returns its path."""
    original = wheel_file(ENCODER_PATH)
    path = site / ENCODER_PATH
    path.parent.mkdir(parents=True)
    shutil.copy(original, path)
    record = site / f"pipecat_ai-{version}.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pipecat-ai\nVersion: {version}\n")
    monkeypatch.syspath_prepend(site)
    return path


def test_tensors_are_those_of_whisper_tiny(state):
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert len(shapes) == 67
    assert shapes["conv1.weight"] == (384, 80, 3)
    assert shapes["positional_embedding"] == (400, 384)
    assert shapes["blocks.3.mlp.0.weight"] == (1536, 384)
    assert all(tensor.dtype == torch.float32 for tensor in state.values())


def test_matrices_belong_to_the_layers_that_read_them(state):
    """Independently of names: the product with a layer's matrix is reshaped, scaled or added as that layer's is."""
    graph = onnx.load(wheel_file(ENCODER_PATH)).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    matrices = [
        node.input[1].removesuffix("_DequantizeLinear_Output") for node in graph.node if node.op_type == "MatMul"
    ]
    dequantised = [
        stored[f"{name}_quantized"].astype(np.float32).T * stored[f"{name}_scale"][:, None]
        for name in matrices
        if f"{name}_quantized" in stored and "pool" not in name
    ]
    for block in range(4):
        for layer in ("attn.query", "attn.key", "attn.value", "attn.out", "mlp.0", "mlp.2"):
            wanted = state[f"blocks.{block}.{layer}.weight"].numpy()
            same = [m for m in dequantised if m.shape == wanted.shape and np.array_equal(m, wanted)]
            assert len(same) == 1, f"{block} {layer}"


def test_the_detector_is_the_branch_for_16_khz():
    """The other branch has other sizes; every tensor is one of the file's, unchanged."""
    branches = next(node for node in onnx.load(wheel_file(DETECTOR_PATH)).graph.node if node.op_type == "If").attribute
    (branch,) = [attribute.g for attribute in branches if attribute.name == "then_branch"]
    constants = [node.attribute[0].t for node in branch.node if node.op_type == "Constant"]
    stored = [numpy_helper.to_array(tensor) for tensor in constants if tensor.data_type == onnx.TensorProto.FLOAT]
    state = read_speech_detector()
    assert len(state) == 15
    assert state["spectrum.weight"].shape == (258, 1, 256)
    for tensor in state.values():
        assert tensor.dtype == torch.float32
        assert any(np.array_equal(tensor.numpy(), array) for array in stored)


def test_a_missing_wheel_is_one_line(monkeypatch):
    monkeypatch.setattr(speech_wheel, "WHEEL", replace(speech_wheel.WHEEL, name="pipecat-that-is-not-installed"))
    with pytest.raises(
        BadInput, match=r"speech networks missing: .* found none; install it with: pip install --no-deps"
    ):
        read_speech_encoder()


def test_another_version_is_one_line(tmp_path, monkeypatch):
    install_copy(tmp_path, monkeypatch, version="1.13.0")
    with pytest.raises(BadInput, match=rf"another version .*: expected 1\.14\.0, found 1\.13\.0; .*{INSTALL}"):
        read_speech_encoder()


@pytest.mark.parametrize("size", [0, 100_000, None])
def test_a_damaged_file_is_one_line(tmp_path, monkeypatch, size):
    path = install_copy(tmp_path, monkeypatch)
    read_speech_encoder()
    content = bytearray(path.read_bytes())
    content[5_000_000] ^= 1
    path.write_bytes(content[:size])
    with pytest.raises(BadInput, match=r"(damaged model|empty) file"):
        read_speech_encoder()
