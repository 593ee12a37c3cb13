"""HuBERT: waveform to the states of its last layer, 50 per second.

Built on transformers' own HubertModel in any size. It opens the folder that Hugging Face ships for
facebook/hubert-large-ls960-ft (arXiv 2106.07447), whose weights file also holds the head of its speech recogniser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from models.layers.model_config import build_described, read_model_config
from utils.core.errors import BadInput
from utils.core.types import SAMPLE_RATE, SAMPLES_PER_FEATURE
from utils.weights.checkpoints import load_strict, read_weights
from utils.weights.official_files import fetch_advice

RECEPTIVE_FIELD = 400  # samples of one step before attention: kernels 10, 3, 3, 3, 3, 2, 2
STRIDE = SAMPLES_PER_FEATURE
OVERLAP = RECEPTIVE_FIELD - STRIDE  # samples shared by neighbouring steps
CHUNK_STEPS = 1000  # steps that attend to each other: 20 s
CHUNK_SAMPLES = CHUNK_STEPS * STRIDE
VARIANCE_FLOOR = 1e-7  # transformers' Wav2Vec2FeatureExtractor adds it to the variance

_WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin")
_PREFIX = "hubert."
_RECOGNISER_KEYS = ("lm_head.weight", "lm_head.bias")
_MASK_KEY = "masked_spec_embed"  # replaces masked steps in training
# torch 1's names of a weight-normed convolution, as the published file has them
_WEIGHT_NORM_NAMES = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


class HubertEncoder:
    """HuBERT and its preprocessing of waves, ready for inference."""

    def __init__(self, network: nn.Module, normalize: bool = True) -> None:
        self.network = network.eval()
        self.normalize = normalize

    @classmethod
    def load(
        cls, directory: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> HubertEncoder:
        """Open a Hugging Face folder: config.json, preprocessor_config.json, model.safetensors or pytorch_model.bin.

        Raises BadInput if a file is missing or unusable, or if any weight is missing, unexpected or misshapen.
        """
        normalize = _read_preprocessor(directory / "preprocessor_config.json")
        with torch.device("meta"):
            network = build_described(build_hubert, directory / "config.json").to(dtype)
        path = weights_path(directory)
        load_strict(network, _network_state(read_weights(path), network, path), path)
        return cls(network.to(device), normalize)

    @property
    def n_channels(self) -> int:
        """Width of a state: 1024 in the large network."""
        return int(self.network.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def encode(self, wave: Float[np.ndarray, " n"]) -> Float[np.ndarray, "t c"]:
        """Last hidden states of a 16-kHz mono wave in [-1, 1): float32, (n - 80) // 320 steps.

        Chunks of 1000 steps are encoded separately, so that memory does not grow with the square of the length. A wave
        under one step is filled up with zeros to 400 samples (the reference fails on it).
        """
        return np.concatenate(list(self.encode_chunks(wave)))

    def encode_chunks(self, wave: Float[np.ndarray, " n"]) -> Iterator[Float[np.ndarray, "t c"]]:
        """The steps of ``encode`` chunk by chunk, for long waves."""
        if len(wave) < RECEPTIVE_FIELD:
            wave = np.pad(wave, (0, RECEPTIVE_FIELD - len(wave)))
        level = mean_and_scale(wave) if self.normalize else None
        weight = next(self.network.parameters())
        for chunk in wave_chunks(wave):
            samples = chunk if level is None else standardised(chunk, *level)
            with torch.inference_mode():
                hidden = self.network(torch.from_numpy(samples)[None].to(weight)).last_hidden_state
            yield hidden[0].float().cpu().numpy()


def n_states(n_samples: int) -> int:
    """Number of steps that ``encode`` gives."""
    return (max(n_samples, RECEPTIVE_FIELD) - OVERLAP) // STRIDE


def wave_chunks(wave: Float[np.ndarray, " n"]) -> Iterator[Float[np.ndarray, " m"]]:
    """Pieces of a wave, each with the samples that its last step shares with the next piece's first.

        |-------- 320 000 --------|-------- 320 000 --------|- rest -|
        [ chunk 0 . . . . . . . . . 80 ]
                                  [ chunk 1 . . . . . . . . . 80 ]
                                                            [ . . .  ]   only if it has 400 samples

    As the network makes (m - 80) // 320 steps of m samples, the chunks' steps add up to (n - 80) // 320; the reference
    cuts or pads to that number, which is never needed.
    """
    for start in range(0, len(wave), CHUNK_SAMPLES):
        chunk = wave[start : start + CHUNK_SAMPLES + OVERLAP]
        if len(chunk) >= RECEPTIVE_FIELD:
            yield chunk


def standardised(wave: Float[np.ndarray, " n"], mean: np.float32, scale: np.float32) -> Float[np.ndarray, " n"]:
    shifted: np.ndarray = (wave.astype(np.float32) - mean) * scale
    return shifted


def mean_and_scale(wave: Float[np.ndarray, " n"]) -> tuple[np.float32, np.float32]:
    mean = np.mean(wave, dtype=np.float64)
    energy = 0.0
    for start in range(0, len(wave), CHUNK_SAMPLES):  # so that a long wave is never held in double precision
        block = wave[start : start + CHUNK_SAMPLES].astype(np.float64)
        energy += float(np.square(block - mean).sum())
    scale = 1 / np.sqrt(energy / len(wave) + VARIANCE_FLOOR)
    return np.float32(mean), np.float32(scale)


def build_hubert(config: Mapping[str, Any]) -> nn.Module:
    """transformers' HubertModel; raises BadInput or ValueError for values that describe no HuBERT at 50 Hz."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import HubertConfig, HubertModel

    if config.get("model_type") != "hubert":
        raise ValueError(f"model_type {config.get('model_type')}, not hubert")
    try:
        sizes = HubertConfig.from_dict(dict(config))
    except StrictDataclassError as error:
        raise ValueError(str(error).splitlines()[-1].strip()) from error
    field, stride = 1, 1
    for kernel_size, step in zip(sizes.conv_kernel, sizes.conv_stride, strict=True):
        field += (kernel_size - 1) * stride
        stride *= step
    if (field, stride) != (RECEPTIVE_FIELD, STRIDE):
        raise ValueError(f"one step per {stride} samples from {field}, not per {STRIDE} from {RECEPTIVE_FIELD}")
    sizes._attn_implementation = "sdpa"  # repeatable on a CPU
    return HubertModel(sizes)


def _read_preprocessor(path: Path) -> bool:
    """Whether waves are normalised; raises BadInput for another sample rate."""
    content = read_model_config(path)
    rate, normalize = content.get("sampling_rate", SAMPLE_RATE), content.get("do_normalize", True)
    if rate != SAMPLE_RATE:
        raise BadInput("HuBERT for another sample rate", path, f"sampling_rate {SAMPLE_RATE}", str(rate))
    if not isinstance(normalize, bool):
        raise BadInput("unusable HuBERT settings", path, "do_normalize true or false", str(normalize))
    return normalize


def weights_path(directory: Path) -> Path:
    """The weights of a Hugging Face folder, model.safetensors before pytorch_model.bin. Raises BadInput for neither."""
    for name in _WEIGHT_NAMES:
        if (directory / name).is_file():
            return directory / name
    raise BadInput("weights missing", directory, " or ".join(_WEIGHT_NAMES), "neither", fetch_advice(directory))


def _network_state(stored: Mapping[str, Any], network: nn.Module, path: Path) -> dict[str, Any]:
    """The stored tensors under the network's own names.

    A recogniser's file has the prefix "hubert." and a head; old files use torch 1's names for the two parts of the
    weight-normed convolution. Raises BadInput for a duplicate tensor.
    """
    prefix = _PREFIX if any(key.startswith(_PREFIX) for key in stored) else ""
    expects_mask = _MASK_KEY in network.state_dict()
    state: dict[str, Any] = {}
    for key, value in stored.items():
        if prefix and key in _RECOGNISER_KEYS:
            continue
        owner, _, last = key.removeprefix(prefix).rpartition(".")
        name = f"{owner}.{_WEIGHT_NORM_NAMES.get(last, last)}" if owner else last
        if name == _MASK_KEY and not expects_mask:
            continue
        if name in state or not key.startswith(prefix):
            raise BadInput("weights of another network", path, "each weight once", f"also {key}", fetch_advice(path))
        state[name] = value
    return state
