"""A Whisper-tiny encoder and Silero's voice activity detector, which come inside the wheel pipecat-ai.

The encoder is part of smart-turn v3.2 (a network that tells whether a speaker has finished; trained on 23 languages).
Its matrices are int8 with one scale per output channel. The detector's file holds one network for 8 kHz and one for
16 kHz, as the branches of a condition. The package is never imported.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.weights.onnx_file import OnnxGraph, parse_onnx
from utils.weights.wheels import Wheel

ENCODER_PATH = Path("pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx")
DETECTOR_PATH = Path("pipecat/audio/vad/data/silero_vad.onnx")
N_POSITIONS, N_HEADS = 400, 6  # 8 s at 50 Hz; heads of every block
WHEEL = Wheel(
    "pipecat-ai",
    "1.14.0",
    "speech networks",
    {
        ENCODER_PATH: "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
        DETECTOR_PATH: "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    },
)
_PREFIX = "inner.encoder."
_DEQUANTISED = "_DequantizeLinear_Output"

# transformers' names of Whisper's parts and openai-whisper's, replaced in this order
_RENAMED = (
    ("layers.", "blocks."),
    ("self_attn_layer_norm", "attn_ln"),
    ("final_layer_norm", "mlp_ln"),
    ("layer_norm", "ln_post"),
    ("self_attn.q_proj", "attn.query"),
    ("self_attn.k_proj", "attn.key"),
    ("self_attn.v_proj", "attn.value"),
    ("self_attn.out_proj", "attn.out"),
    ("fc1", "mlp.0"),
    ("fc2", "mlp.2"),
    ("embed_positions.weight", "positional_embedding"),
)

_DETECTOR_PREFIX = "If_0_then_branch__Inline_0__"  # of the branch for 16 kHz
_DETECTOR_RENAMED = (
    ("stft.forward_basis_buffer", "spectrum.weight"),
    (".reparam_conv", ""),
    ("decoder.decoder.2", "decision"),
    ("decoder.rnn", "memory"),
    ("_ih", "_ih_l0"),
    ("_hh", "_hh_l0"),
)


def wheel_file(name: Path) -> Path:
    """A file of the installed wheel. Raises BadInput for a missing, damaged or other version."""
    return WHEEL.file(name)


def read_speech_encoder() -> dict[str, Tensor]:
    """The encoder's 67 tensors as float32, under openai-whisper's names ("conv1.weight", "blocks.0.attn.query.weight").

    Raises BadInput as wheel_file does.
    """
    return whisper_state(parse_onnx(wheel_file(ENCODER_PATH).read_bytes()))


def read_speech_detector() -> dict[str, Tensor]:
    """The 15 tensors of the detector for 16 kHz as float32, under the names of models/audio/speech_detector.py.

    Raises BadInput as wheel_file does.
    """
    stored = parse_onnx(wheel_file(DETECTOR_PATH).read_bytes()).tensors
    names = {name: name.removeprefix(_DETECTOR_PREFIX) for name in stored if name.startswith(_DETECTOR_PREFIX)}
    return {
        _renamed(short, _DETECTOR_RENAMED): torch.tensor(stored[name])
        for name, short in names.items()
        if stored[name].dtype == np.float32 and "/" not in short  # others are constants of operations
    }


def whisper_state(graph: OnnxGraph) -> dict[str, Tensor]:
    """Dequantise the encoder of a graph that torch.onnx exported and ONNX Runtime quantised.

    Vectors and convolutions keep their names. A MatMul has none: its matrix [in, out] belongs to the layer whose bias
    the next Add takes. The one without a bias is the key projection, which reads what the query projection reads.
    """
    state = {name: array for name, array in graph.tensors.items() if name.startswith(_PREFIX) and _is_whole(name)}
    for layer in ("conv1", "conv2"):
        for part, scale_name in (("weight", "weight_scale"), ("bias", "bias_quantized_scale")):
            name = f"{_PREFIX}{layer}.{part}"
            scales = graph.tensors[f"{_PREFIX}{layer}.{scale_name}"]
            state[name] = _dequantised(graph.tensors[f"{name}_quantized"], scales)
    for layer, matrix in _matrices(graph).items():
        stored, scale = (graph.tensors[f"{matrix}_{part}"] for part in ("quantized", "scale"))
        state[f"{layer}.weight"] = _dequantised(stored.T, scale)
    return {_renamed(name.removeprefix(_PREFIX), _RENAMED): torch.tensor(array) for name, array in state.items()}


def _is_whole(name: str) -> bool:
    """Whether a tensor is stored as float32, not as integers and their scale."""
    return not name.endswith(("_quantized", "_scale", "_zero_point"))


def _dequantised(stored: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32 from integers [out, ...] and one scale per output channel; zero points are 0."""
    return stored.astype(np.float32) * scale.reshape(-1, *[1] * (stored.ndim - 1))


def _matrices(graph: OnnxGraph) -> dict[str, str]:
    """Name of the stored matrix by layer."""
    owner = {  # layer by the tensor to which its bias is added
        value.removesuffix(_DEQUANTISED): bias.removesuffix(".bias")
        for node in graph.nodes
        if node.kind == "Add"
        for value, bias in (node.inputs, node.inputs[::-1])
        if bias.startswith(_PREFIX) and bias.endswith(".bias")
    }
    products = [node for node in graph.nodes if node.kind == "MatMul" and node.inputs[1].endswith(_DEQUANTISED)]
    layers = {owner[node.outputs[0]]: node for node in products if node.outputs[0] in owner}
    queries = {node.inputs[0]: layer for layer, node in layers.items() if layer.endswith("q_proj")}
    for node in products:
        if node.inputs[0] in queries and node.outputs[0] not in owner:
            layers[queries[node.inputs[0]].replace("q_proj", "k_proj")] = node
    return {layer: node.inputs[1].removesuffix(_DEQUANTISED) for layer, node in layers.items()}


def _renamed(name: str, parts: tuple[tuple[str, str], ...]) -> str:
    for part, other in parts:
        name = name.replace(part, other)
    return name
