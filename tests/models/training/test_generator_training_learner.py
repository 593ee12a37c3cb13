"""Steps of generator training: gradients, accumulation, precision, refiner, export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

import train_joygen
from models.generation.latent_codec import LatentCodec, build_vae
from models.training.generator_training_learner import GeneratorLearner
from models.training.generator_training_model import predict
from models.training.generator_training_setup import build_accelerator
from tests.helpers.training_data import SIZE, UNET_CONFIG, VAE_CONFIG, write_clip, write_config, write_networks
from utils.core.errors import BadInput
from utils.data.dataset import TrainingBatches, join_batches
from utils.imaging.images import to_signed
from utils.weights.checkpoints import save_weights


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning")
    for name in ("a", "b", "c"):
        write_clip(folder / "data", name, has_audio=name != "c")
    write_networks(folder)
    write_config(folder)
    return folder


def build(workspace: Path, *overrides: str) -> tuple[GeneratorLearner, TrainingBatches]:
    config = train_joygen.parse_config(["--config", str(workspace / "config.yaml"), *overrides])
    learner = GeneratorLearner(config, build_accelerator(config))
    return learner, learner.training


def learned(learner: GeneratorLearner) -> list[torch.nn.Parameter]:
    return [parameter for parameter in learner.plain_model.parameters() if parameter.requires_grad]


def gradients(learner: GeneratorLearner, number: int, batch) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(learner.losses(learner.predict(number, batch), batch)["total"], learned(learner))


def keep_gradients(learner: GeneratorLearner) -> None:
    learner.optimizer.step = lambda: None
    learner.optimizer.zero_grad = lambda: None


@pytest.mark.parametrize("n_parts", [2, 3])
def test_accumulated_gradients_are_those_of_the_joint_batch(workspace, n_parts):
    learner, batches = build(workspace, f"opti.gradient_accumulation_steps={n_parts}", "opti.max_grad_norm=1e9")
    parts = [batches[i] for i in range(n_parts)]
    joint = gradients(learner, 0, join_batches(parts))
    keep_gradients(learner)
    learner.update(list(enumerate(parts)), 0.0)
    for parameter, expected in zip(learned(learner), joint, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


def test_every_learned_weight_gets_a_gradient(workspace):
    learner, batches = build(workspace)
    learner.losses(learner.predict(0, batches[0]), batches[0])["total"].backward()
    assert [name for name, p in learner.plain_model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(parameter.grad is None for parameter in learner.codec.vae.parameters())


def test_depth_reaches_the_network(workspace):
    """Upstream swallows an error here and trains with black depth images.

    Over many batches the share of items with a depth image is the configured one, their latents differ from those of
    a black image, and the loss depends on them and on no others.
    """
    share = 0.5
    learner, batches = build(workspace, f"dataset.augment.depth={share}", "opti.max_steps=40")
    depths = torch.cat([batches[i].depths for i in range(len(batches))])
    shown = (depths > 0).flatten(1).any(dim=1).float().numpy()
    deviation = np.sqrt(share * (1 - share) / len(shown))
    assert abs(shown.mean() - share) < 3 * deviation
    assert depths[depths > 0].float().std() > 1  # a relief, not a constant

    seen = []

    def watch(_module, inputs):
        seen.append(inputs[0].requires_grad_().clone())
        seen[0].retain_grad()
        return seen[0], *inputs[1:]

    learner.plain_model.generator.register_forward_pre_hook(watch)
    batch = next(b for b in (batches[i] for i in range(40)) if 0 < (b.depths > 0).flatten(1).any(dim=1).sum() < 4)
    learner.losses(learner.predict(0, batch), batch)["total"].backward()
    channels = slice(2 * learner.codec.channels, None)
    with torch.no_grad():
        black = learner.codec.encode(torch.full((1, 3, SIZE, SIZE), -1.0))
    contrast = (seen[0].detach()[:, channels] - black).abs().amax(dim=(1, 2, 3))
    has_depth = (batch.depths > 0).flatten(1).any(dim=1)
    assert contrast[has_depth].min() > 0.01 and contrast[~has_depth].max() < 1e-5
    assert seen[0].grad[:, channels].abs().amax(dim=(1, 2, 3)).min() > 0


def test_decoding_a_part_of_the_batch(workspace):
    learner, batches = build(workspace, "loss.mouth=1.0")
    batch, weights = batches[0], learner.config.loss
    whole = predict(learner.model, learner.codec, batch).losses(weights)
    part = predict(learner.model, learner.codec, batch, n_decoded=2).losses(weights)
    assert part.latent == whole.latent and part.pixel != whole.pixel


N_OVERFIT_STEPS = 250
FULL_SIZE_VAE = VAE_CONFIG | {
    "block_out_channels": [16],
    "down_block_types": ["DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D"],
}


def test_overfits_eight_samples(workspace, tmp_path):
    """The loss falls to a tenth within 250 steps, with a tiny VAE that was fitted to the samples' images before."""
    (tmp_path / "unet.json").write_text(json.dumps(UNET_CONFIG | {"block_out_channels": [32, 32]}))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps(FULL_SIZE_VAE))
    torch.manual_seed(0)
    save_weights(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", build_vae(FULL_SIZE_VAE).state_dict())
    networks = (f"vae_path={tmp_path / 'vae'}", f"unet_config_file={tmp_path / 'unet.json'}")
    schedule = (f"opti.max_steps={N_OVERFIT_STEPS}", "opti.lr=5e-3", "opti.min_lr=1e-5", "opti.use_ema=false")
    learner, batches = build(workspace, *networks, *schedule, "dataset.batch_size=8", "dataset.img_size=16")
    batch = batches[0]
    assert len(batch.targets) == 8
    fit_vae(learner.codec, to_signed(torch.cat((batch.targets, batch.references))))
    first = learner.losses(learner.predict(0, batch), batch)["total"].item()
    for step in range(N_OVERFIT_STEPS):
        learner.update([(0, batch)], step / N_OVERFIT_STEPS)
    assert learner.losses(learner.predict(0, batch), batch)["total"].item() < first / 10


def fit_vae(codec: LatentCodec, images: torch.Tensor, n_steps: int = 150) -> None:
    """Fit a random VAE to the images."""
    optimizer = torch.optim.Adam(codec.vae.requires_grad_(True).parameters(), 1e-2)
    for step in range(n_steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / n_steps)
        latents = codec.vae.encode(images).latent_dist.mode()
        loss = (codec.vae.decode(latents).sample - images).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    codec.vae.requires_grad_(False)
    codec.scale = 1 / latents.std().item()


def test_posterior_draws_follow_the_batch_number(workspace):
    learner, batches = build(workspace, "sample_posterior=true")
    targets = [learner.predict(number, batches[0]).target_latents for number in (0, 0, 1)]
    assert torch.equal(targets[0], targets[1]) and not torch.equal(targets[0], targets[2])


def test_gradient_checkpointing_computes_again_and_changes_nothing(workspace):
    found, n_calls = [], []
    for switch in ("false", "true"):
        learner, batches = build(workspace, f"gradient_checkpointing={switch}")
        calls = []
        blocks = (learner.plain_model.generator.unet.down_blocks[0].resnets[0], learner.codec.vae.decoder.up_blocks[0])
        for block in blocks:
            block.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        found.append(gradients(learner, 0, batches[0]))
        n_calls.append(len(calls))
    assert n_calls == [2, 4]
    assert all(torch.equal(plain, again) for plain, again in zip(*found, strict=True))


@pytest.mark.filterwarnings("default")  # the compiler's own
def test_compile_switch_reaches_torch_compile(workspace):
    from torch._dynamo.utils import counters

    plain, batches = build(workspace)
    expected = plain.predict(0, batches[0]).latents
    counters.clear()
    learner, _ = build(workspace, "compile=true", "compile_backend=eager")
    found = learner.predict(0, batches[0]).latents
    assert counters["stats"]["unique_graphs"] >= 1
    torch.testing.assert_close(found, expected)
    assert learner.plain_model.state_dict().keys() == plain.plain_model.state_dict().keys()
    learner.update([(0, batches[0])], 0.0)


def test_compiler_that_is_missing_is_named(workspace, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BadInput, match=r"C\+\+ compiler.*no-such-compiler"):
        build(workspace, "compile=true")


def test_bfloat16_learns(workspace):
    learner, batches = build(workspace, "mixed_precision=bf16", "vae_precision=bfloat16")
    first = learner.update([(0, batches[0])], 0.0)["total"]
    for _ in range(20):
        last = learner.update([(0, batches[0])], 0.0)["total"]
    assert last < 0.95 * first
    assert {parameter.dtype for parameter in learned(learner)} == {torch.float32}


def test_images_are_signed_once(workspace):
    codec = LatentCodec.load(workspace / "vae")
    black = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(codec.encode(to_signed(black)), codec.encode(torch.full((1, 3, SIZE, SIZE), -1.0)))


REFINER = (
    f"refiner={{size: {2 * SIZE}, channels: [8, 8], patch: 4}}",
    f"dataset.fine_size={2 * SIZE}",
    "dataset.reference=composed",
)


def test_a_refiner_learns_with_the_generator_or_alone(workspace):
    learner, batches = build(workspace, *REFINER)
    batch = batches[0]
    assert batch.targets.shape[-1] == batch.references.shape[-1] == 2 * SIZE and batch.depths.shape[-1] == SIZE
    prediction = learner.predict(0, batch)
    assert prediction.images.shape[-1] == SIZE and prediction.best_images.shape == prediction.fine_images.shape
    refiner = learner.plain_model.refiner
    learner.update([(0, batch)], 0.0)  # the last layer, initially 0, now passes gradients
    learner.losses(learner.predict(0, batch), batch)["total"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in refiner.parameters())
    assert learner.plain_model.generator.unet.conv_in.weight.grad.any()
    AcceleratorState._reset_state(reset_partial_state=True)
    alone, _ = build(workspace, *REFINER, "trained_blocks=none", "train_audio_encoder=false")
    names = {name.split(".")[0] for name, p in alone.plain_model.named_parameters() if p.requires_grad}
    assert names == {"refiner"}


def test_what_is_exported_can_be_started_from(workspace, tmp_path):
    learner, batches = build(workspace, *REFINER)
    learner.update([(0, batches[0])], 0.0)
    learner.plain_model.export(tmp_path, half=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    again, _ = build(workspace, *REFINER[1:], f"refiner_resume_dir={tmp_path / 'refiner'}")
    for name, weights in learner.plain_model.refiner.state_dict().items():
        assert torch.equal(again.plain_model.refiner.state_dict()[name], weights)


@pytest.mark.parametrize("without", [1, 2])
def test_a_refiner_needs_its_pictures(workspace, without):
    overrides = [override for index, override in enumerate(REFINER) if index != without]
    with pytest.raises(BadInput, match="refiner without its pictures"):
        build(workspace, *overrides)
