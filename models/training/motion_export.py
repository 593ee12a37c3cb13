"""Export of a trained motion network: its lips amplified, in half precision, with its config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from models.face3d.closed_mouth import LipGaps
from models.face3d.face_model import FaceModel
from models.motion.audio2motion_checkpoint import VARIANT_KEYS
from models.training.motion_training_config import MotionTrainingConfig
from utils.core.config import to_dict
from utils.core.errors import BadInput
from utils.core.types import N_EXP
from utils.data.motion_dataset import MotionClip
from utils.files.atomic import atomic_path
from utils.training.training_loop import BEST_NAME, writing
from utils.weights.checkpoints import half_precision, read_weights, save_weights


def export(config: MotionTrainingConfig, directory: Path, clips: Sequence[MotionClip], face: FaceModel) -> Path:
    """Write the best checkpoint as half-precision tensors under the official names, with its config.

    ``clips``: those trained on; see ``amplified`` for config.export_gain. Raises BadInput if the folder holds another
    checkpoint, because stage 1 loads a folder's newest.
    """
    best = read_weights(config.output_dir / BEST_NAME)
    path = directory / f"model_ckpt_steps_{best['step']}.safetensors"
    for other in directory.glob("model_ckpt_steps_*"):
        if other != path:
            raise BadInput(
                "folder holds another checkpoint", other, path.name, other.name, "delete it and export again"
            )
    metadata = {"steps": str(best["step"])}
    if np.isfinite(best["score"]):
        metadata["validation_correlation"] = f"{best['score']:.3f}"
    with writing(path):
        save_weights(path, half_precision(amplified(best["network"], config.export_gain, clips, face)), metadata)
    variant = {name: value for name, value in to_dict(config.network).items() if name in VARIANT_KEYS}
    with writing(directory / "config.yaml"), atomic_path(directory / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(variant, sort_keys=False))
    return path


def amplified(
    network: Mapping[str, Tensor], gain: float, clips: Sequence[MotionClip], face: FaceModel
) -> dict[str, Tensor]:
    """The network with its last layer changed: lips open ``gain`` times as far from the clips' mean expression.

    Motion that the sound does not determine is averaged out in training, so the mouth moves too little. What is added
    is the motion that goes with an opening mouth in the clips; other motions would mostly grow in error.
    """
    basis = np.zeros(N_EXP)
    basis[: LipGaps.of(face).n] = LipGaps.of(face).middle_basis
    change = torch.eye(N_EXP, dtype=torch.float64)
    change += (gain - 1) * torch.from_numpy(np.outer(opening_motion(clips, basis), basis))
    mean = torch.from_numpy(np.concatenate([clip.expression[clip.valid] for clip in clips]).mean(axis=0)).double()
    last = next(name for name in ("vae.decoder.out_proj", "regression.output") if f"{name}.weight" in network)
    weight, bias = (network[f"{last}.{name}"].double().cpu().unflatten(0, (-1, N_EXP)) for name in ("weight", "bias"))
    scaled = dict(network)
    scaled[f"{last}.weight"] = torch.einsum("oi,mict->moct", change, weight).flatten(0, 1).float()
    scaled[f"{last}.bias"] = ((bias - mean) @ change.T + mean).flatten().float()
    return scaled


def opening_motion(clips: Sequence[MotionClip], basis: Float[np.ndarray, " 64"]) -> Float[np.ndarray, " 64"]:
    """Change of expression per opening of the lips, by linear regression over the frames of clips about their means.

    ``basis``: opening per coefficient, so that the result's product with it is 1.
    """
    motion = [clip.expression[clip.valid] - clip.expression[clip.valid].mean(axis=0) for clip in clips]
    joined = np.concatenate(motion).astype(np.float64)
    opening = joined @ basis
    return joined.T @ opening / (opening @ opening)
