"""Checkpoints of audio2motion networks: variant and sizes are read off the weights and checked against config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.audio.audio_features import AUDIO_DIMS
from models.motion.audio2motion import Audio2Motion, Audio2MotionConfig, build_audio2motion
from models.motion.flow import FlowVAESizes
from models.motion.regression import RegressionSizes
from utils.core.config import parse_yaml
from utils.core.errors import BadInput
from utils.core.types import N_EXP
from utils.weights.checkpoints import load_strict, newest_checkpoint, read_weights
from utils.weights.official_files import fetch_advice

VARIANT_KEYS = ("audio_type", "use_pitch", "use_mouth_amp_embed", "use_eye_amp_embed")  # of the file below
_CONFIG_NAME = "config.yaml"
_PROJECTION = "audio_projection.weight"
_REGRESSION = "regression.input.weight"


def load_audio2motion(path: Path, device: torch.device | str = "cpu") -> Audio2Motion:
    """Load a checkpoint file, or the newest ``model_ckpt_steps_*`` of a folder, ready for inference.

    Sizes follow from the weights, the variant is checked against ``config.yaml`` beside them. Raises BadInput if the
    two disagree, if the file is missing or unsafe, or if any weight is missing, unexpected or of another shape.
    """
    weights_path = newest_checkpoint(path) if path.is_dir() else path
    state = official_state(read_weights(weights_path), weights_path)
    config = _confirmed(_config_of(state, weights_path), state, weights_path)
    network = build_audio2motion(config, _audio_dim(state))
    load_strict(network, state, weights_path)
    return network.eval().to(device)


def official_state(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The network's tensors from any known container.

    ``{"state_dict": {"model": {...}}}``, ``{"state_dict": {"model.<key>": ...}}``, or the bare keys.
    """
    state: Any = content.get("state_dict", content)
    state = state.get("model", state) if isinstance(state, Mapping) else {}
    tensors = {key.removeprefix("model."): value for key, value in state.items() if isinstance(value, Tensor)}
    is_flow = "mel_encoder.0.weight" in tensors and "vae.encoder.pre_net.0.weight" in tensors
    if not is_flow and _REGRESSION not in tensors:
        found = f"{len(tensors)} tensors such as {', '.join(sorted(tensors)[:3])}" if tensors else "no tensors"
        raise BadInput("not an audio2motion checkpoint", path, "mel_encoder and vae weights", found, fetch_advice(path))
    return tensors


def _config_of(state: Mapping[str, Tensor], path: Path) -> Audio2MotionConfig:
    """Read variant and sizes off names and shapes."""

    def shape(key: str, n_dims: str = "three") -> torch.Size:
        if key not in state:
            raise BadInput("weights of another network", path, f"a tensor {key}", "none", fetch_advice(path))
        if state[key].dim() != {"two": 2, "three": 3}[n_dims]:
            found = str(tuple(state[key].shape))
            raise BadInput(f"weight {key} has another shape", path, f"{n_dims} dimensions", found, fetch_advice(path))
        return state[key].shape

    def count(prefix: str, suffix: str = ".bias") -> int:
        return sum(key.startswith(prefix) and key.endswith(suffix) for key in state)

    if _PROJECTION in state:
        shape(_PROJECTION, n_dims="two")
    if _REGRESSION in state:
        first, last = shape(_REGRESSION), shape("regression.output.weight")
        return _regression_config(first, last, count("regression.layers."), state)
    latent, hidden, stride = shape("vae.decoder.pre_net.0.weight")
    flow_hidden, _, flow_kernel_size = shape("vae.prior_flow.flows.0.enc.in_layers.0.weight_v")
    cond_channels, n_read, _ = shape("mel_encoder.0.weight")
    return Audio2MotionConfig(
        audio_type=_audio_type(state),
        use_pitch="pitch_embed.weight" in state,
        use_mouth_amp_embed="mouth_amp_embed" in state,
        use_eye_amp_embed="eye_amp_embed" in state,
        cond_channels=cond_channels,
        audio_components=n_read if _PROJECTION in state else Audio2MotionConfig.audio_components,
        sizes=FlowVAESizes(
            hidden=hidden,
            latent=latent,
            kernel_size=shape("vae.encoder.wn.in_layers.0.weight_v")[2],
            n_encoder_layers=count("vae.encoder.wn.in_layers."),
            n_decoder_layers=count("vae.decoder.wn.in_layers."),
            flow_hidden=flow_hidden // 2,
            flow_kernel_size=flow_kernel_size,
            n_flow_layers=count("vae.prior_flow.flows.0.enc.in_layers."),
            n_couplings=count("vae.prior_flow.flows.", ".pre.bias"),
            stride=stride,
        ),
    )


def _regression_config(
    first: torch.Size, last: torch.Size, n_layers: int, state: Mapping[str, Tensor]
) -> Audio2MotionConfig:
    members = max(1, last[0] // N_EXP)
    return Audio2MotionConfig(
        audio_type=_audio_type(state),
        use_pitch=False,
        use_mouth_amp_embed=False,
        audio_components=first[1] if _PROJECTION in state else Audio2MotionConfig.audio_components,
        regression=RegressionSizes(members, first[0] // members, n_layers),
    )


def _audio_dim(state: Mapping[str, Tensor]) -> int:
    """Channels of the features."""
    return next(state[key].shape[1] for key in (_PROJECTION, _REGRESSION, "mel_encoder.0.weight") if key in state)


def _audio_type(state: Mapping[str, Tensor]) -> str:
    """Told by the number of channels; HuBERT comes in several widths."""
    if _PROJECTION in state:
        return "whisper"
    channels = {dim: name for name, dim in AUDIO_DIMS.items() if name != "whisper"}
    return channels.get(_audio_dim(state), "hubert")


def _confirmed(found: Audio2MotionConfig, state: Mapping[str, Tensor], weights_path: Path) -> Audio2MotionConfig:
    """The config read off the weights, checked against the config.yaml beside them, if there is one."""
    config_path = weights_path.parent / _CONFIG_NAME
    if not config_path.is_file():
        return found
    stated = read_variant(config_path)
    audio_dim = _audio_dim(state)
    if stated["audio_type"] != found.audio_type:
        expected = f"{AUDIO_DIMS[stated['audio_type']]} channels for audio_type {stated['audio_type']}"
        raise BadInput("checkpoint and config.yaml disagree", weights_path, expected, f"{audio_dim} channels")
    names = ["use_pitch"] + (["use_mouth_amp_embed", "use_eye_amp_embed"] if found.use_pitch else [])
    for name in names:
        if stated[name] != getattr(found, name):
            advice = f"keep checkpoint and {_CONFIG_NAME} of the same training together"
            raise BadInput(
                "checkpoint and config.yaml disagree", weights_path, f"{name}: {stated[name]}", "the opposite", advice
            )
    return found


def read_variant(config_path: Path) -> dict[str, Any]:
    """The four keys of a training's config.yaml that name the variant.

    Defaults of absent keys are the reference's: HuBERT, all else off.
    """
    try:
        text = config_path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput("unreadable config", config_path, "YAML", str(error)) from error
    content = parse_yaml(text, config_path)
    if not isinstance(content, Mapping):
        raise BadInput("unreadable config", config_path, "a mapping of keys", type(content).__name__)
    audio_type = content.get("audio_type", "hubert")
    if not isinstance(audio_type, str) or audio_type not in AUDIO_DIMS:
        raise BadInput("unknown audio_type", config_path, " or ".join(AUDIO_DIMS), str(audio_type))
    return {"audio_type": audio_type} | {name: bool(content.get(name, False)) for name in VARIANT_KEYS[1:]}
