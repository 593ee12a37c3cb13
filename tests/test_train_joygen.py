from __future__ import annotations

from pathlib import Path

import pytest
import torch

import train_joygen
from models.generator import Generator
from models.joint_model import joint_losses
from models.latent_codec import LatentCodec
from models.whisper_encoder import WhisperEncoder
from tests.training_data import SIZE, write_clip, write_config, write_networks
from utils.checkpoints import read_weights
from utils.errors import BadInput, StageFailure
from utils.images import to_signed
from utils.store import read_rgb

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Data, networks and config of a tiny training."""
    folder = tmp_path_factory.mktemp("training")
    for name in ("a", "b", "c", "held_out"):
        write_clip(folder / "data", name, has_audio=name != "c")
    write_networks(folder)
    write_config(folder)
    (folder / "val.txt").write_text("held_out\n")
    return folder


def train(workspace: Path, run_dir: Path, *overrides: str) -> dict:
    train_joygen.main(["--config", str(workspace / "config.yaml"), f"checkpoint_dir={run_dir}", *overrides])
    return read_weights(run_dir / "last.pt")


def build_trainer(workspace: Path, *overrides: str) -> train_joygen.Trainer:
    config = train_joygen.parse_config(["--config", str(workspace / "config.yaml"), *overrides])
    return train_joygen.Trainer(config, train_joygen.build_accelerator(config))


def assert_same(first: dict, second: dict) -> None:
    for part in ("model", "average"):
        assert first[part].keys() == second[part].keys()
        assert all(torch.equal(value, second[part][key]) for key, value in first[part].items())
    assert first["step"] == second["step"]


def test_what_a_training_leaves(workspace, tmp_path):
    validation = (f"dataset.val_file={workspace / 'val.txt'}", "checkpoint_validation_interval=2")
    state = train(workspace, tmp_path, *validation, "checkpoint_save_interval=3", "export_half=true")
    assert state["step"] == 4
    generator = Generator.load(tmp_path / "final" / "unet")
    assert WhisperEncoder.load(tmp_path / "final" / "whisper.pt").dims.n_audio_ctx == 20
    key = "unet.conv_in.weight"
    stored = state["average"][f"generator.{key}"]
    assert torch.equal(generator.state_dict()[key], stored.half().float())
    assert (tmp_path / "step_00000003" / "unet" / "config.json").is_file()
    sheet = read_rgb(tmp_path / "validation_00000002.png")
    assert sheet.shape[0] == 5 * SIZE and sheet.shape[1] % SIZE == 0
    masked, depth = sheet[SIZE : 2 * SIZE], sheet[4 * SIZE :]
    assert masked[: SIZE // 2].any() and not masked[SIZE // 2 :].any() and depth.any()


def test_continued_training_is_the_same_bit_for_bit(workspace, tmp_path):
    straight = train(workspace, tmp_path / "straight", "sample_posterior=true")
    trainer = build_trainer(workspace, f"checkpoint_dir={tmp_path / 'halves'}", "sample_posterior=true")
    batches = iter(trainer._loader())
    for step in range(2):
        trainer._optimizer_step([next(batches)], step / 4)
    trainer.save()
    assert_same(train(workspace, tmp_path / "halves", "sample_posterior=true"), straight)


def test_accumulated_gradients_equal_a_larger_batch(workspace):
    twin = build_trainer(workspace)
    parts = [twin.training[0], twin.training[1]]
    gradients = []
    for part in parts:
        losses = twin._losses(part)
        gradients.append(torch.autograd.grad(losses.total, _learned(twin)))
    trainer = build_trainer(workspace, "opti.gradient_accumulation_steps=2", "opti.max_grad_norm=1e9")
    trainer.optimizer.step = lambda: None  # keep the gradients
    trainer.optimizer.zero_grad = lambda: None
    trainer._optimizer_step(parts, 0.0)
    for parameter, first, second in zip(_learned(trainer), *gradients, strict=True):
        torch.testing.assert_close(parameter.grad, (first + second) / 2, rtol=1e-4, atol=1e-6)


def _learned(trainer: train_joygen.Trainer) -> list[torch.nn.Parameter]:
    return [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]


def test_depth_reaches_the_network(workspace):
    """Upstream swallows an error here and trains with black depth images."""
    trainer = build_trainer(workspace, "dataset.augment.depth=1.0")
    seen = []
    trainer.model.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    trainer._losses(trainer.training[0])
    depth_latents = seen[0][:, 2 * trainer.codec.channels :]
    with torch.no_grad():
        black = trainer.codec.encode(torch.full((1, 3, SIZE, SIZE), -1.0))
    lower = slice(depth_latents.shape[2] // 2 + 1, None)
    assert (depth_latents - black)[:, :, lower].abs().amax(dim=(1, 2, 3)).min() > 0.01


def test_every_learned_weight_gets_a_gradient(workspace):
    trainer = build_trainer(workspace)
    trainer._losses(trainer.training[0]).total.backward()
    without = [name for name, p in trainer.model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(parameter.grad is None for parameter in trainer.codec.vae.parameters())


def test_decoding_a_part_of_the_batch(workspace):
    trainer = build_trainer(workspace, "loss.mouth=1.0")
    batch, weights = trainer.training[0], trainer.config.loss
    whole = joint_losses(trainer.model, trainer.codec, batch, weights)
    part = joint_losses(trainer.model, trainer.codec, batch, weights, n_decoded=2)
    assert part.latent == whole.latent and part.pixel != whole.pixel


def test_frozen_encoder_is_neither_learned_nor_exported(workspace, tmp_path):
    encoder_path = tmp_path / "whisper.pt"
    trainer = build_trainer(workspace)
    trainer.model.audio_encoder.save(encoder_path)
    options = ("train_audio_encoder=false", "audio_encoder=null", f"whisper_model_path={encoder_path}")
    state = train(workspace, tmp_path / "run", *options)
    stored = WhisperEncoder.load(encoder_path).state_dict()
    assert all(torch.equal(state["model"][f"audio_encoder.{key}"], value) for key, value in stored.items())
    assert not (tmp_path / "run" / "final" / "whisper.pt").exists()


def test_training_starts_from_given_weights(workspace, tmp_path):
    trainer = build_trainer(workspace, "seed=3")
    trainer.export(tmp_path)
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    other = build_trainer(workspace, f"unet_resume_file={path}")
    assert torch.equal(other.model.generator.unet.conv_in.weight, trainer.model.generator.unet.conv_in.weight)


def test_time_budget(workspace, tmp_path):
    state = train(workspace, tmp_path, "opti.max_minutes=0.00001", "opti.max_steps=1000")
    assert state["step"] == 1


def test_overfits_one_batch(workspace):
    trainer = build_trainer(workspace, "opti.lr=5e-3", "opti.use_ema=false")
    batch = trainer.training[0]
    first = trainer._losses(batch).total.item()
    for _ in range(40):
        trainer._optimizer_step([batch], spent=0.0)
    assert trainer._losses(batch).total.item() < 0.7 * first


def test_training_of_another_network_is_not_continued(workspace, tmp_path):
    train(workspace, tmp_path, "opti.max_steps=1")
    with pytest.raises(BadInput, match=r"training of another network.*last\.pt"):
        train(workspace, tmp_path, "audio_encoder.n_audio_layer=2")


def test_loss_that_is_not_finite_names_its_batch(workspace):
    trainer = build_trainer(workspace)
    torch.nn.init.constant_(trainer.model.generator.unet.conv_out.bias, float("nan"))
    batch = trainer.training[0]
    with pytest.raises(StageFailure, match=f"not finite at step 0, batch {batch.names[0]}"):
        trainer._optimizer_step([batch], 0.0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("opti.learning_rate=1", "unknown config key"),
        ("audio_encoder=null", "audio encoder not clear"),
        ("dataset.root_dir=nowhere", "no training clips"),
        ("vae_path=nowhere", "model config missing"),
        ("audio_encoder.n_audio_state=8", "do not fit"),
    ],
)
def test_bad_configs_are_named(workspace, tmp_path, override, message):
    with pytest.raises(BadInput, match=message):
        train(workspace, tmp_path, override)


@pytest.mark.parametrize("name", ["joygen", "joygen_mini"])
def test_configs_of_the_repository(name):
    config = train_joygen.parse_config(["--config", str(REPOSITORY / "config" / f"{name}.yaml")])
    assert config.unet_config_file.parts[-2] == "config"
    if name == "joygen":
        assert (config.loss.latent, config.loss.pixel, config.loss.gradient, config.loss.mouth) == (1, 2, 0, 0)
        assert (config.opti.lr, config.opti.min_lr, config.opti.betas) == (1e-5, 5e-6, (0.9, 0.99))
        assert (config.dataset.augment.depth, config.dataset.augment.depth_shift) == (0.5, 0.02)


def test_images_are_signed_once(workspace):
    codec = LatentCodec.load(workspace / "vae")
    black = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(codec.encode(to_signed(black)), codec.encode(torch.full((1, 3, SIZE, SIZE), -1.0)))
