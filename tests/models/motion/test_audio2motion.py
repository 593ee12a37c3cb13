"""Building, loading and running the audio2motion networks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.audio.audio_features import SpeechFeatures
from models.motion import flow
from models.motion.audio2motion import Audio2MotionConfig, MotionInputs, build_audio2motion
from models.motion.audio2motion_checkpoint import load_audio2motion
from models.motion.flow import FlowVAESizes
from models.motion.regression import RegressionSizes
from utils.core.errors import BadInput
from utils.weights.checkpoints import half_precision, save_weights

SMALL = FlowVAESizes(
    hidden=16, latent=4, kernel_size=3, n_encoder_layers=2, n_decoder_layers=1, flow_hidden=8, n_flow_layers=3
)
PLAIN = Audio2MotionConfig("mfcc", False, False, False, cond_channels=12, sizes=SMALL)
PITCH = Audio2MotionConfig("hubert", True, True, False, cond_channels=12, sizes=SMALL)
EYE = replace(PITCH, use_mouth_amp_embed=False, use_eye_amp_embed=True, sizes=replace(SMALL, n_couplings=2))
STATES = replace(PLAIN, audio_type="whisper", audio_components=5)
ENSEMBLE = replace(STATES, regression=RegressionSizes(2, 6, 2), cond_channels=128, sizes=FlowVAESizes())
CONFIGS = [PLAIN, PITCH, EYE, STATES]


def speech(n_steps: int = 48, n_channels: int = 13) -> SpeechFeatures:
    rng = np.random.default_rng(0)
    f0 = rng.uniform(80, 300, n_steps).astype(np.float32)
    return SpeechFeatures(rng.normal(size=(n_steps, n_channels)).astype(np.float32), f0)


def save_checkpoint(folder: Path, config: Audio2MotionConfig, steps: int = 1) -> Path:
    path = folder / f"model_ckpt_steps_{steps}.ckpt"
    torch.save({"state_dict": {"model": build_audio2motion(config).state_dict()}}, path)
    return path


@pytest.mark.parametrize("config", [*CONFIGS, ENSEMBLE])
def test_sizes_are_read_off_the_weights(tmp_path: Path, config: Audio2MotionConfig) -> None:
    assert load_audio2motion(save_checkpoint(tmp_path, config)).config == config


def test_components_are_uncorrelated_with_mean_0_and_deviation_1() -> None:
    """And they are those of most variance, whatever the states' means and scales."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(500, 5, generator=generator) * torch.tensor([9.0, 7.0, 5.0, 3.0, 2.0])
    states = hidden @ torch.randn(5, 768, generator=generator) + 0.01 * torch.randn(500, 768, generator=generator) + 4
    network = build_audio2motion(STATES).eval()
    network.audio_projection.fit(states)
    found = network.components(states[None])[0]
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(5), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(found.T), torch.eye(5), atol=1e-3, rtol=0)
    residual = hidden - hidden.mean(dim=0) - found @ torch.linalg.lstsq(found, hidden - hidden.mean(dim=0)).solution
    assert residual.abs().max() < 0.01


def test_dropout_blanks_components_in_training_alone() -> None:
    network = build_audio2motion(replace(STATES, audio_dropout=0.5))
    audio = torch.randn(1, 64, 768, generator=torch.Generator().manual_seed(0))
    assert 0.3 < (network.train().components(audio) == 0).float().mean() < 0.7
    assert (network.eval().components(audio) != 0).all()


def test_a_projection_of_other_dimensions_is_named(tmp_path: Path) -> None:
    state = build_audio2motion(STATES).state_dict()
    state["audio_projection.weight"] = state["audio_projection.weight"][0]
    torch.save(state, tmp_path / "weights.ckpt")
    with pytest.raises(BadInput, match=r"audio_projection.weight has another shape .*: expected two dimensions"):
        load_audio2motion(tmp_path / "weights.ckpt")


@pytest.mark.parametrize("flat", [True, False])
def test_containers(tmp_path: Path, flat: bool) -> None:
    state = build_audio2motion(PLAIN).state_dict()
    content = {"state_dict": {f"model.{key}": value for key, value in state.items()}} if flat else state
    path = tmp_path / "weights.ckpt"
    torch.save(content, path)
    loaded = load_audio2motion(path).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_a_folder_means_its_newest_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, PLAIN, steps=9)
    newest = build_audio2motion(PITCH)
    save_weights(tmp_path / "model_ckpt_steps_10.safetensors", half_precision(newest.state_dict()))
    loaded = load_audio2motion(tmp_path)
    assert loaded.config == PITCH
    torch.testing.assert_close(loaded.cond_proj.weight, newest.cond_proj.weight, rtol=1e-3, atol=1e-4)
    assert loaded.cond_proj.weight.dtype == torch.float32


def test_config_beside_the_weights_confirms_them(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, PITCH)
    config = tmp_path / "config.yaml"
    config.write_text("audio_type: mfcc\nuse_pitch: true\nuse_mouth_amp_embed: true\n")
    with pytest.raises(BadInput, match="13 channels for audio_type mfcc, found 1024"):
        load_audio2motion(path)
    config.write_text("audio_type: hubert\nuse_pitch: false\n")
    with pytest.raises(BadInput, match="use_pitch"):
        load_audio2motion(path)
    config.write_text("audio_type: hubert\nuse_pitch: true\nuse_eye_amp_embed: true\n")
    with pytest.raises(BadInput, match="use_mouth_amp_embed"):
        load_audio2motion(path)
    config.write_text("audio_type: hubert\nuse_pitch: true\nuse_mouth_amp_embed: true\nlr: 0.0005\n")
    assert load_audio2motion(path).config == PITCH


@pytest.mark.parametrize(
    "text",
    ["audio_type: [", "- a list", "audio_type: wav2vec", "audio_type: [mfcc]", "audio_type: 2020-13-45", "[" * 2000],
)
def test_unusable_config(tmp_path: Path, text: str) -> None:
    path = save_checkpoint(tmp_path, PLAIN)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"config\.yaml"):
        load_audio2motion(path)


def test_unusable_weights(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="missing"):
        load_audio2motion(tmp_path / "none.ckpt")
    with pytest.raises(BadInput, match="no checkpoint"):
        load_audio2motion(tmp_path)
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"fc.weight": torch.zeros(2)}}, path)
    with pytest.raises(BadInput, match="not an audio2motion checkpoint"):
        load_audio2motion(path)
    torch.save({"state_dict": 3}, path)
    with pytest.raises(BadInput, match="not an audio2motion checkpoint"):
        load_audio2motion(path)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    state = build_audio2motion(PLAIN).state_dict()
    path = tmp_path / "weights.ckpt"
    del state["vae.encoder.out_proj.bias"]
    torch.save(state, path)
    with pytest.raises(BadInput, match=r"vae\.encoder\.out_proj\.bias"):
        load_audio2motion(path)


@pytest.mark.parametrize(
    "name",
    [
        "vae.decoder.pre_net.0.weight",
        "vae.prior_flow.flows.0.enc.in_layers.0.weight_v",
        "vae.encoder.wn.in_layers.0.weight_v",
        "mel_encoder.0.weight",
    ],
)
def test_a_weight_of_fewer_dimensions_is_named(tmp_path: Path, name: str) -> None:
    state = build_audio2motion(PLAIN).state_dict()
    state[name] = state[name][..., 0]
    path = tmp_path / "weights.ckpt"
    torch.save(state, path)
    with pytest.raises(BadInput, match=f"weight {re.escape(name)} has another shape .*three dimensions"):
        load_audio2motion(path)


@pytest.mark.parametrize("config", CONFIGS)
def test_prediction(config: Audio2MotionConfig) -> None:
    network = build_audio2motion(config).eval()
    features = speech(n_channels=network.audio_dim)
    motion = network.predict(features, seed=3, temperature=0.5)
    assert motion.shape == (24, 64)
    assert motion.dtype == np.float32
    np.testing.assert_array_equal(network.predict(features, seed=3, temperature=0.5), motion)
    assert np.abs(network.predict(features, seed=4, temperature=0.5) - motion).max() > 0


@pytest.mark.parametrize("config", CONFIGS)
def test_long_motion_is_made_in_blocks(monkeypatch, config: Audio2MotionConfig) -> None:
    torch.manual_seed(0)
    network = build_audio2motion(config, audio_dim=13).eval()
    for coupling in network.vae.prior_flow.flows[::2]:
        torch.nn.init.normal_(coupling.post.weight)  # otherwise the flow does nothing
    features = speech(n_steps=824)
    whole = network.predict(features, temperature=1.0)
    monkeypatch.setattr(flow, "BLOCK_FRAMES", 40)
    np.testing.assert_allclose(network.predict(features, temperature=1.0), whole, rtol=0, atol=1e-5)
    assert len(list(flow.motion_blocks(103, config.sizes))) == 11
    monkeypatch.setattr(flow, "reach_in_latent_steps", lambda _: 1)
    assert np.abs(network.predict(features, temperature=1.0) - whole).max() > 1e-3


def test_an_ensemble_gives_its_members_mean_in_blocks_of_any_length(monkeypatch) -> None:
    network = build_audio2motion(ENSEMBLE).eval()
    features = speech(n_steps=824, n_channels=768)
    with torch.inference_mode():
        members = network(MotionInputs(torch.from_numpy(features.audio)[None]))[0]
    whole = network.predict(features, seed=1, temperature=1.0)
    assert not torch.equal(*members)
    np.testing.assert_allclose(whole, members.mean(dim=0), rtol=0, atol=1e-5)
    monkeypatch.setattr(flow, "BLOCK_FRAMES", 40)
    np.testing.assert_allclose(network.predict(features, seed=2), whole, rtol=0, atol=1e-5)


def test_members_do_not_share_hidden_channels() -> None:
    """A change of one member's weights leaves the other as it is."""
    network = build_audio2motion(ENSEMBLE).eval()
    inputs = MotionInputs(torch.randn(1, 48, 768, generator=torch.Generator().manual_seed(0)))
    before = network(inputs).detach()
    with torch.no_grad():
        for layer in (network.regression.input, *network.regression.layers, network.regression.output):
            layer.weight[: len(layer.weight) // 2] += 1
    after = network(inputs).detach()
    assert not torch.equal(after[:, 0], before[:, 0])
    torch.testing.assert_close(after[:, 1], before[:, 1])


def test_temperature_zero_ignores_the_seed() -> None:
    network = build_audio2motion(PLAIN).eval()
    still = [network.predict(speech(), seed, temperature=0.0) for seed in (0, 1)]
    np.testing.assert_array_equal(*still)


@torch.no_grad()
def test_inputs_of_each_variant() -> None:
    audio, f0 = torch.randn(1, 16, 13), torch.full((1, 16), 200.0)
    blink, amplitude = torch.ones(1, 16, 1).long(), torch.ones(1, 1)
    bare, full = MotionInputs(audio), MotionInputs(audio, f0, blink, amplitude, amplitude)
    plain = build_audio2motion(PLAIN).eval()
    torch.testing.assert_close(plain.condition(bare), plain.condition(full))
    pitch = build_audio2motion(replace(EYE, audio_type="mfcc", use_mouth_amp_embed=True)).eval()
    for name in ("f0", "blink", "mouth_amp", "eye_amp"):
        assert not torch.equal(pitch.condition(full), pitch.condition(replace(full, **{name: None}))), name
