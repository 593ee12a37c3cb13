"""Both audio2motion networks against the reference's numbers, on weights filled by rule."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from models.audio.audio_features import SpeechFeatures, speech_features
from models.motion.audio2motion import Audio2Motion, MotionInputs
from models.motion.audio2motion_checkpoint import load_audio2motion

NETWORKS = ["a2m_pitch", "a2m_pitch_eye", "a2m_mfcc"]


@pytest.fixture(scope="module")
def load_filled(filled, manifest, tmp_path_factory):
    """Build a network through its checkpoint loader, in the official container."""

    def load(name: str) -> Audio2Motion:
        path = tmp_path_factory.mktemp(name) / "model_ckpt_steps_400000.ckpt"
        torch.save({"state_dict": {"model": filled(name)}, "global_step": 400000}, path)
        return load_audio2motion(path)

    return load


@pytest.fixture(scope="module", params=NETWORKS)
def recorded(request, load_filled, parity) -> tuple[Audio2Motion, dict[str, Tensor]]:
    arrays = parity(request.param)
    tensors = {key: torch.from_numpy(arrays[key]).float() for key in arrays if arrays[key].dtype.kind in "fi"}
    tensors["grads"] = dict(zip(arrays["grad_keys"], arrays["grad_norms"], strict=True))
    return load_filled(request.param), tensors


def inputs_of(tensors: dict[str, Tensor]) -> MotionInputs:
    """The plain network's recordings hold sound only."""
    if "in_f0" not in tensors:
        return MotionInputs(tensors["in_audio"])
    blink = tensors["in_blink"].long()
    return MotionInputs(tensors["in_audio"], tensors["in_f0"], blink, tensors["in_mouth_amp"], tensors["in_eye_amp"])


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=5e-5, atol=5e-5)


@pytest.mark.parametrize(("key", "temperature"), [("infer_t0", 0.0), ("infer_t02", 0.2), ("infer_t1", 1.0)])
@torch.no_grad()
def test_inference(recorded, key: str, temperature: float) -> None:
    network, tensors = recorded
    motion = network.sample(inputs_of(tensors), tensors["in_noise_prior"] * temperature)
    assert_close(motion * tensors["in_y_mask"][..., None], tensors[key])


@torch.no_grad()
def test_inference_defaults(recorded) -> None:
    """No blink, amplitudes 0.4."""
    network, tensors = recorded
    inputs = MotionInputs(tensors["in_audio"], tensors.get("in_f0"))
    motion = network.sample(inputs, torch.zeros_like(tensors["in_noise_prior"]))
    assert_close(motion * tensors["in_y_mask"][..., None], tensors.get("infer_defaults_t0", tensors["infer_t0"]))


@torch.no_grad()
def test_training_path(recorded) -> None:
    network, tensors = recorded
    result = network(inputs_of(tensors), tensors["in_y"], tensors["in_y_mask"], tensors["in_noise_posterior"])
    assert_close(result.output, tensors["train_x_recon"])
    assert_close(result.kl, tensors["train_loss_kl"].squeeze())
    for actual, name in ((result.mean, "m_q"), (result.log_std, "logs_q"), (result.prior_latent, "z_p")):
        assert_close(actual.transpose(1, 2), tensors[f"train_{name}"])


def test_gradients(recorded) -> None:
    """Training mode: batch statistics include the padded steps."""
    network, tensors = recorded
    network = copy.deepcopy(network).train()
    mask, target = tensors["in_y_mask"], tensors["in_y"]
    result = network(inputs_of(tensors), target, mask, tensors["in_noise_posterior"])
    loss = (result.output - target).square().sum() / mask.sum() / 64 + 0.02 * result.kl
    loss.backward()
    assert_close(result.output, tensors["bn_train_x_recon"])
    assert_close(loss, tensors["bn_train_loss"].squeeze())
    parameters = dict(network.named_parameters())
    for key, norm in tensors["grads"].items():
        assert parameters[key].grad.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-8), key


def test_speech_to_motion_mfcc(load_filled, parity) -> None:
    """Waveform to coefficients through the very functions of the entry script."""
    expected = parity("a2m_end_to_end")
    features = speech_features(expected["in_wav_int16"].astype(np.float32) / 32768, "mfcc")
    np.testing.assert_allclose(features.audio, expected["mfcc_audio_in"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(features.f0, expected["mfcc_f0_in"][0], rtol=0, atol=1e-3)
    assert_motion(load_filled("a2m_mfcc"), features, expected, "mfcc")


def test_features_to_motion_hubert(load_filled, parity) -> None:
    """From the recorded HuBERT states on."""
    expected = parity("a2m_end_to_end")
    features = SpeechFeatures(expected["hubert_audio_in"], expected["hubert_f0_in"][0])
    assert_motion(load_filled("a2m_pitch_tiny64"), features, expected, "hubert")


def assert_motion(network: Audio2Motion, features: SpeechFeatures, expected, kind: str) -> None:
    for key, temperature in (("t02", 0.2), ("t00", 0.0)):
        motion = network.predict(features, seed=0, temperature=temperature, mouth_amp=0.45)
        np.testing.assert_allclose(motion, expected[f"{kind}_exp_{key}"], rtol=0, atol=2e-4)
    assert len(motion) == expected[f"{kind}_lengths"][2]


def test_noise_is_sampled_on_the_cpu(parity) -> None:
    expected = parity("a2m_end_to_end")["mfcc_noise_seed0"]
    noise = torch.randn(*expected.shape, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(noise.numpy(), expected)
