"""Validation of the generator on held-out clips: PSNR, L1 and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.generation.latent_codec import LatentCodec, hide_lower_half
from models.generation.refiner import resize_images
from models.training.generator_training_model import GeneratorTrainingModel, predict
from utils.data.dataset import Batch, TrainingBatches
from utils.imaging.images import to_bytes, to_signed
from utils.training.losses import lower_half, lower_half_psnr

SHEET_COLUMNS = 12


@dataclass(frozen=True)
class Validation:
    """Means over the lower halves; ``sheet`` is RGB, its rows reference, masked, target, prediction and depth."""

    psnr: float  # dB
    reference_psnr: float  # dB, of the reference frames, that is another mouth of the clip
    l1: float
    sheet: UInt8[np.ndarray, "h w 3"]


@torch.no_grad()
def validate(
    model: GeneratorTrainingModel,
    codec: LatentCodec,
    batches: TrainingBatches,
    stride: int,
    autocast: Callable[[], AbstractContextManager[None]],
) -> Validation:
    """stride: the contact sheet shows every stride-th item, such as one per clip."""
    ratios, floors, distances, columns = [], [], [], []
    for index in range(len(batches)):
        batch = batches[index].to(codec.device)
        with autocast():
            prediction = predict(model, codec, batch)
        images, targets = prediction.best_images.float(), prediction.fine_images
        ratios.append(lower_half_psnr(images, targets))
        floors.append(lower_half_psnr(to_signed(batch.references), targets))
        distances.append(lower_half(images - targets).abs().mean())
        columns.append(sheet_columns(batch, images, stride))
    images = torch.cat(columns, dim=1)[:, :SHEET_COLUMNS]
    return Validation(
        torch.cat(ratios).mean().item(),
        torch.cat(floors).mean().item(),
        torch.stack(distances).mean().item(),
        images.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).cpu().numpy(),
    )


def sheet_columns(batch: Batch, images: Float[Tensor, "b 3 h w"], stride: int) -> UInt8[Tensor, "5 n 3 h w"]:
    """The five images of every ``stride``-th item."""
    targets = to_signed(batch.targets)
    depths = resize_images(to_signed(batch.depths), targets.shape[-1])
    rows = (
        batch.references,
        to_bytes(hide_lower_half(targets)),
        batch.targets,
        to_bytes(images),
        to_bytes(depths).expand(-1, 3, -1, -1),
    )
    return torch.stack([row[::stride] for row in rows])
