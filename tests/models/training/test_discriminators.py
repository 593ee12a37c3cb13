"""Losses beyond the reference: patch discriminator and sync discriminator."""

from __future__ import annotations

import pytest
import torch

from models.training.discriminators import Discriminators, LowerFaces, SyncDiscriminator
from utils.core.errors import BadInput

N_MELS, N_COLUMNS = 8, 20


def faces(n: int = 4, seed: int = 0, n_clips: int = 2) -> LowerFaces:
    generator = torch.Generator().manual_seed(seed)
    return LowerFaces(
        torch.rand(n, 3, 16, 32, generator=generator) * 2 - 1,
        torch.randn(n, N_MELS, N_COLUMNS, generator=generator),
        torch.arange(n) * n_clips // n,
        torch.ones(n, dtype=torch.bool),
    )


def replaced(faces: LowerFaces, **parts: torch.Tensor) -> LowerFaces:
    return LowerFaces(**(vars(faces) | parts))


def test_hinge_losses():
    """At scores of 0 each side costs 1; the generator's loss is the negative score."""
    discriminators = Discriminators(N_MELS, with_patches=True, with_sync=False)
    torch.nn.init.zeros_(discriminators.patches.layers[-1].weight)
    torch.nn.init.constant_(discriminators.patches.layers[-1].bias, 0.25)
    assert discriminators(faces(), faces(seed=1))["discriminator"].item() == pytest.approx(0.75 + 1.25)
    assert discriminators.judge(faces())["adversarial"].item() == pytest.approx(-0.25)


def test_discriminators_learn_and_judge_apart():
    """Their own losses give the generated images no gradient, the generator's losses give their weights none."""
    discriminators = Discriminators(N_MELS, with_patches=True, with_sync=True)
    generated = faces(seed=1)
    generated.images.requires_grad_()
    torch.stack([*discriminators(faces(), generated).values()]).sum().backward()
    assert generated.images.grad is None
    assert all(parameter.grad is not None for parameter in discriminators.parameters())
    discriminators.zero_grad()
    torch.stack([*discriminators.judge(generated).values()]).sum().backward()
    assert generated.images.grad.abs().sum() > 0
    assert all(parameter.grad is None and parameter.requires_grad for parameter in discriminators.parameters())


def test_discriminator_learns_to_tell_real_from_generated():
    discriminators = Discriminators(N_MELS, with_patches=True, with_sync=False)
    optimizer = torch.optim.Adam(discriminators.parameters(), 1e-3)
    for step in range(30):
        real, generated = faces(seed=2 * step), faces(seed=2 * step + 1)
        loss = discriminators(real, replaced(generated, images=0.5 * generated.images))["discriminator"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5


def test_sync_discriminator_learns_which_sound_belongs_to_which_mouth():
    """The sound encodes the mouth's brightness; new pairs are matched far better than by chance."""
    discriminator = SyncDiscriminator(N_MELS)
    optimizer = torch.optim.Adam(discriminator.parameters(), 2e-3)

    def pairs(seed: int) -> LowerFaces:
        made = faces(16, seed)
        opening = torch.rand(16, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        images = 0.3 * made.images
        images[:, :, 4:12, 8:24] += opening[:, None, None, None]
        return replaced(made, images=images, sound=0.3 * made.sound + opening[:, None, None])

    chance = torch.tensor(8.0).log()  # eight frames of each clip
    for step in range(60):
        loss = discriminator(pairs(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        test = pairs(1000)
        right, wrong = discriminator(test), discriminator(replaced(test, sound=test.sound.roll(3, dims=0)))
    assert right < 0.6 * chance < chance < wrong


def test_sync_compares_within_a_clip_only():
    """Images and sounds of other clips do not change the result."""
    discriminator = SyncDiscriminator(N_MELS)
    both, first = faces(4), faces(4)
    alone = LowerFaces(first.images[:2], first.sound[:2], first.clips[:2], first.has_audio[:2])
    has_audio = torch.tensor([True, True, False, False])
    torch.testing.assert_close(discriminator(replaced(both, has_audio=has_audio)), discriminator(alone))


def test_clips_without_sound_do_not_count():
    silent = replaced(faces(), has_audio=torch.zeros(4, dtype=torch.bool))
    loss = SyncDiscriminator(N_MELS)(silent)
    assert loss == 0 and loss.requires_grad


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("dataset.frames_per_clip=1",), "compares the frames of a clip"),
        (("decode_batch=2",), "compares the frames of a clip"),
    ],
)
def test_sync_needs_several_frames_per_clip(tmp_path, overrides, message):
    import train_joygen
    from models.training.generator_training_setup import build_discriminators
    from tests.helpers.training_data import write_config

    path = write_config(tmp_path)
    config = train_joygen.parse_config(["--config", str(path), "loss.sync=1", *overrides])
    with pytest.raises(BadInput, match=message):
        build_discriminators(config, "no", N_MELS)
    with pytest.raises(BadInput, match="found fp16"):
        build_discriminators(config, "fp16", N_MELS)
