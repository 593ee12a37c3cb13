from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.audio.speech_encoder import SpeechEncoder
from models.audio.whisper_encoder import EncoderDims, WhisperEncoder
from models.generation.generator import Generator, build_unet, positional_encoding
from models.layers.model_config import read_model_config
from models.training.generator_training_model import GeneratorTrainingModel
from tests.helpers.training_data import UNET_CONFIG
from utils.core.errors import BadInput
from utils.weights.checkpoints import read_weights, save_weights

REPOSITORY = Path(__file__).resolve().parents[3]
DIMS = EncoderDims(n_audio_state=16, n_audio_head=2, n_audio_layer=1, n_audio_ctx=20)


@pytest.fixture(scope="module")
def generator():
    return Generator.create(UNET_CONFIG).eval()


@pytest.fixture
def latents():
    return torch.randn(2, 12, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def audio():
    return torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(1))


def test_positional_encoding():
    table = positional_encoding(3, 4)
    angle = torch.tensor(2.0)
    expected = torch.stack([angle.sin(), angle.cos(), (angle / 100).sin(), (angle / 100).cos()])
    torch.testing.assert_close(table[2], expected)
    assert table[0].tolist() == [0, 1, 0, 1]


@torch.no_grad()
def test_every_input_matters(generator, latents, audio):
    face = generator(latents, audio)
    assert face.shape == (2, 4, 8, 8)
    for channel in (0, 4, 8):
        changed = latents.clone()
        changed[:, channel] += 1
        assert not torch.allclose(generator(changed, audio), face)
    assert not torch.allclose(generator(latents, audio + 1), face)
    assert not torch.allclose(generator(latents, audio.flip(1)), face)  # order, through the positions


@torch.no_grad()
def test_items_of_a_batch_do_not_mix(generator, latents, audio):
    alone = generator(latents[:1], audio[:1])
    torch.testing.assert_close(generator(latents, audio)[:1], alone, rtol=1e-4, atol=1e-5)


def test_same_seed_same_weights():
    first, second, other = (Generator.create(UNET_CONFIG, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    Generator.create(UNET_CONFIG)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("half", [False, True])
def test_save_and_load(generator, tmp_path, half):
    generator.save(tmp_path, half)
    loaded = Generator.load(tmp_path).state_dict()
    for key, value in generator.state_dict().items():
        assert torch.equal(loaded[key], value.half().float() if half else value)


def test_names_of_a_multi_process_training(generator, tmp_path):
    path = tmp_path / "unet.pth"
    torch.save({f"module.{key}": value + 1 for key, value in generator.unet.state_dict().items()}, path)
    other = Generator.create(UNET_CONFIG)
    other.load_unet(path)
    assert torch.equal(other.unet.conv_in.weight, generator.unet.conv_in.weight + 1)


def test_weights_of_another_shape_are_refused(generator, tmp_path):
    generator.save(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    state = read_weights(path)
    state["conv_in.weight"] = torch.zeros(16, 8, 3, 3)
    save_weights(path, state)
    with pytest.raises(BadInput, match=r"conv_in\.weight.*\(16, 12, 3, 3\).*\(16, 8, 3, 3\)"):
        Generator.load(tmp_path)


def test_mini_config_belongs_to_its_yaml():
    import yaml

    config = read_model_config(REPOSITORY / "config" / "unet_mini.json")
    training = yaml.safe_load((REPOSITORY / "config" / "joygen_mini.yaml").read_text())
    with torch.device("meta"):
        unet = build_unet(config)
    assert unet.config.in_channels == 3 * unet.config.out_channels
    assert training["whisper_model_path"] is None and unet.config.cross_attention_dim == SpeechEncoder.width
    assert sum(parameter.numel() for parameter in unet.parameters()) < 20e6


@pytest.fixture
def joint_input():
    rng = torch.Generator().manual_seed(2)
    return {
        "latents": torch.randn(4, 12, 8, 8, generator=rng),
        "log_mel": torch.randn(2, 80, 40, generator=rng),
        "rows": torch.arange(10).repeat(4, 1),
        "has_audio": torch.tensor([True, True]),
    }


def test_joint_model_cuts_windows_from_the_right_clip(generator, joint_input):
    encoder = WhisperEncoder.create(DIMS)
    model = GeneratorTrainingModel(generator, encoder, train_audio_encoder=True).eval()
    joint_input["rows"] = joint_input["rows"] + torch.tensor([0, 3, 5, 10])[:, None]
    with torch.no_grad():
        predicted = model(**joint_input).latents
        states = encoder(joint_input["log_mel"])
        for item, (clip, start) in enumerate([(0, 0), (0, 3), (1, 5), (1, 10)]):
            window = states[clip, start : start + 10].flatten(0, 1)[None]
            expected = generator(joint_input["latents"][item : item + 1], window)
            torch.testing.assert_close(predicted[item : item + 1], expected, rtol=1e-4, atol=1e-5)


def test_joint_model_gives_zero_windows_without_sound(generator, joint_input):
    model = GeneratorTrainingModel(generator, WhisperEncoder.create(DIMS), train_audio_encoder=True).eval()
    joint_input["has_audio"] = torch.tensor([True, False])
    with torch.no_grad():
        silent = generator(joint_input["latents"][2:], torch.zeros(2, 20, 16))
        torch.testing.assert_close(model(**joint_input).latents[2:], silent, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trains", [True, False])
def test_joint_model_trains_the_encoder_only_if_asked(joint_input, trains):
    model = GeneratorTrainingModel(
        Generator.create(UNET_CONFIG), WhisperEncoder.create(DIMS), train_audio_encoder=trains
    )
    model(**joint_input).latents.square().mean().backward()
    gradient = model.audio_encoder.encoder.conv1.weight.grad
    assert (gradient is not None and gradient.abs().sum() > 0) if trains else gradient is None
    assert model.generator.unet.conv_in.weight.grad.abs().sum() > 0


def test_joint_model_takes_windows_of_the_speech_encoder(joint_input):
    generator = Generator.create(UNET_CONFIG | {"cross_attention_dim": SpeechEncoder.width}).eval()
    model = GeneratorTrainingModel(generator, None, train_audio_encoder=False).eval()
    windows = torch.randn(4, 20, SpeechEncoder.width, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = model(**joint_input, windows=windows).latents
        torch.testing.assert_close(found, generator(joint_input["latents"], windows))
    with pytest.raises(ValueError, match="no audio encoder"):
        model(**joint_input)


def test_joint_model_refuses_parts_that_do_not_fit(generator):
    with pytest.raises(BadInput, match="cross_attention_dim 16, found states of 8"):
        GeneratorTrainingModel(generator, WhisperEncoder.create(EncoderDims(8, 2, 1, 20)), train_audio_encoder=True)
