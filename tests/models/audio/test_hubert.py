"""HuBERT's folder in every published form, refusals, and steps of unusual waves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.audio.hubert import HubertEncoder, mean_and_scale, standardised, wave_chunks
from tests.helpers.hubert_folder import CONFIG, PREPROCESSOR, WIDTH, official_state, random_network, write_hubert_folder
from utils.core.errors import BadInput
from utils.weights.checkpoints import save_weights

CONV = "hubert.encoder.pos_conv_embed.conv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_hubert_folder(tmp_path / "hubert")


@pytest.fixture(scope="module")
def encoder() -> HubertEncoder:
    return HubertEncoder(random_network())


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.05, 0.1, n_samples).astype(np.float32)


def renamed(state: dict[str, torch.Tensor], rename: Callable[[str], str]) -> dict[str, torch.Tensor]:
    return {rename(key): value for key, value in state.items()}


def without_prefix(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix("hubert."): value for key, value in state.items() if not key.startswith("lm_head")}


def with_new_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    new = {f"{CONV}.weight_{letter}": f"{CONV}.parametrizations.weight.original{i}" for i, letter in enumerate("gv")}
    return renamed(state, lambda key: new.get(key, key))


def normalised(wave):
    """The whole wave with zero mean and unit variance."""
    return standardised(wave, *mean_and_scale(wave))


@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("new_names", [True, False])
@pytest.mark.parametrize("file_name", ["pytorch_model.bin", "model.safetensors"])
def test_every_form_of_the_file(
    folder: Path, encoder: HubertEncoder, prefixed: bool, new_names: bool, file_name: str
) -> None:
    state = official_state(random_network())
    state = with_new_names(state) if new_names else state
    state = state if prefixed else without_prefix(state)
    (folder / "pytorch_model.bin").unlink()
    if file_name.endswith(".bin"):
        torch.save(state, folder / file_name)
    else:
        save_weights(folder / file_name, state)
    loaded = HubertEncoder.load(folder)
    assert loaded.n_channels == WIDTH
    assert loaded.network.state_dict().keys() == encoder.network.state_dict().keys()
    np.testing.assert_array_equal(loaded.encode(noise(2000)), encoder.encode(noise(2000)))


def test_weights_of_the_training_mask_may_be_there_or_not(folder: Path) -> None:
    """A config without masking makes a network without them."""
    (folder / "config.json").write_text(json.dumps(CONFIG | {"mask_time_prob": 0.0}))
    assert "masked_spec_embed" not in HubertEncoder.load(folder).network.state_dict()


def test_other_number_formats(folder: Path, encoder: HubertEncoder) -> None:
    """Half-precision files become float32; bfloat16 is used on demand, the states stay float32."""
    half = renamed({key: value.half() for key, value in official_state(random_network()).items()}, str)
    torch.save(half, folder / "pytorch_model.bin")
    expected = encoder.encode(noise(4000))
    loaded = HubertEncoder.load(folder)
    assert {p.dtype for p in loaded.network.parameters()} == {torch.float32}
    np.testing.assert_allclose(loaded.encode(noise(4000)), expected, rtol=0, atol=0.02)
    coarse = HubertEncoder.load(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in coarse.network.parameters()} == {torch.bfloat16}
    states = coarse.encode(noise(4000))
    assert states.dtype == np.float32
    np.testing.assert_allclose(states, expected, rtol=0, atol=0.15)


def test_same_wave_same_bits(encoder: HubertEncoder) -> None:
    np.testing.assert_array_equal(encoder.encode(noise(5000)), encoder.encode(noise(5000)))


@pytest.mark.parametrize("n_samples", [1, 79, 399, 400, 719, 720])
def test_very_short_waves_give_a_step(encoder: HubertEncoder, n_samples: int) -> None:
    """The reference fails under 400 samples."""
    states = encoder.encode(noise(n_samples))
    assert states.shape == (max(1, (n_samples - 80) // 320), WIDTH)
    np.testing.assert_array_equal(states, encoder.encode(np.pad(noise(n_samples), (0, max(0, 400 - n_samples)))))


def test_silence_is_finite(encoder: HubertEncoder) -> None:
    assert np.isfinite(encoder.encode(np.zeros(3000, np.float32))).all()


def test_loudness_and_offset_do_not_matter(encoder: HubertEncoder, folder: Path) -> None:
    wave = noise(3000)
    np.testing.assert_allclose(encoder.encode(0.5 * wave - 0.2), encoder.encode(wave), rtol=0, atol=1e-3)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | {"do_normalize": False}))
    as_it_is = HubertEncoder.load(folder)
    np.testing.assert_array_equal(as_it_is.encode(normalised(wave)), encoder.encode(wave))
    assert np.abs(as_it_is.encode(wave) - encoder.encode(wave)).max() > 1e-3


def test_normalisation_is_the_formula() -> None:
    """Also over several blocks, and for a wave that is mostly offset."""
    for wave in (noise(700_000), 0.5 + 1e-3 * noise(700_000)):
        exact = wave.astype(np.float64)
        exact = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-7)
        np.testing.assert_allclose(normalised(wave), exact, rtol=0, atol=1e-3)


def test_chunks_cover_every_step_once() -> None:
    """Plain twin: the samples of step s are [320 s, 320 s + 400)."""
    for n_samples in (400, 320_079, 320_080, 320_399, 320_400, 645_000, 960_080):
        wave = np.arange(n_samples, dtype=np.float64)
        starts = [first for chunk in wave_chunks(wave) for first in chunk[: len(chunk) - 399 : 320]]
        assert starts == list(range(0, n_samples - 399, 320))


def test_chunks_are_encoded_apart(encoder: HubertEncoder, monkeypatch) -> None:
    monkeypatch.setattr("models.audio.hubert.CHUNK_SAMPLES", 3200)
    wave = noise(7000)
    chunks = list(wave_chunks(normalised(wave)))
    assert [len(chunk) for chunk in chunks] == [3280, 3280, 600]
    plain = HubertEncoder(encoder.network, normalize=False)
    twin = np.concatenate([plain.encode(chunk) for chunk in chunks])
    np.testing.assert_array_equal(encoder.encode(wave), twin)


class Harmful:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (Path("/tmp/never"),)


def spoil_weights(folder: Path, change: str) -> None:
    path = folder / "pytorch_model.bin"
    state = official_state(random_network())
    key = "hubert.encoder.layers.0.attention.q_proj.weight"
    if change == "missing":
        del state[key]
    elif change == "extra":
        state["hubert.encoder.layers.7.attention.q_proj.weight"] = torch.zeros(2)
    elif change == "shape":
        state[key] = torch.zeros(WIDTH, WIDTH + 1)
    elif change == "twice":
        state[f"{CONV}.parametrizations.weight.original0"] = state[f"{CONV}.weight_g"]
    elif change == "stray":
        state["encoder.layer_norm.bias"] = torch.zeros(WIDTH)
    elif change == "another network":
        state = {"fc.weight": torch.zeros(3)}
    elif change == "code":
        state[key] = Harmful()
    torch.save(state, path)
    if change == "truncated":
        path.write_bytes(path.read_bytes()[:-3000])
    elif change == "page":
        path.write_text("<!DOCTYPE html><title>Google Drive - Quota exceeded</title>")
    elif change == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif change == "absent":
        path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"1 missing keys such as encoder\.layers\.0\.attention\.q_proj\.weight"),
        ("extra", r"1 unexpected keys such as encoder\.layers\.7\.attention\.q_proj\.weight"),
        ("shape", r"q_proj\.weight has another shape .*expected \(32, 32\), found \(32, 33\)"),
        ("twice", r"each weight once, found also .*original0"),
        ("stray", r"each weight once, found also encoder\.layer_norm\.bias"),
        ("another network", r"weights of another network .*fc\.weight"),
        ("code", "unsafe checkpoint, not opened"),
        ("truncated", "unreadable checkpoint"),
        ("page", "an HTML page"),
        ("pointer", "a Git LFS pointer"),
        ("absent", r"expected model\.safetensors or pytorch_model\.bin, found neither"),
    ],
)
def test_unusable_weights(folder: Path, change: str, message: str) -> None:
    spoil_weights(folder, change)
    with pytest.raises(BadInput, match=message) as error:
        HubertEncoder.load(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", None, "model config missing"),
        ("config.json", "<html>", "unreadable model config"),
        ("config.json", json.dumps(CONFIG | {"model_type": "wav2vec2"}), "model_type wav2vec2, not hubert"),
        ("config.json", "{}", "model_type None, not hubert"),
        ("config.json", json.dumps(CONFIG | {"hidden_size": "wide"}), "'hidden_size' expected int, got str"),
        ("config.json", json.dumps(CONFIG | {"hidden_size": 30}), "divisible"),
        ("config.json", json.dumps(CONFIG | {"num_attention_heads": 5}), "divisible by num_heads"),
        ("config.json", json.dumps(CONFIG | {"conv_dim": [8, 8]}), "convolutional layers is incorrect"),
        ("config.json", json.dumps(CONFIG | {"conv_stride": [5, 2, 2, 2, 2, 2, 1]}), "one step per 160 samples"),
        ("config.json", json.dumps(CONFIG | {"hidden_size": 16}), "has another shape"),
        ("config.json", json.dumps(CONFIG | {"num_hidden_layers": 2}), r"missing keys such as encoder\.layers\.1"),
        ("preprocessor_config.json", None, "preprocessor_config"),
        ("preprocessor_config.json", "not JSON", "unreadable model config"),
        ("preprocessor_config.json", json.dumps(PREPROCESSOR | {"sampling_rate": 8000}), "sampling_rate 16000"),
        ("preprocessor_config.json", json.dumps(PREPROCESSOR | {"do_normalize": "yes"}), "do_normalize true or false"),
    ],
)
def test_unusable_settings(folder: Path, name: str, text: str | None, message: str) -> None:
    path = folder / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(BadInput, match=message) as error:
        HubertEncoder.load(folder)
    assert str(folder) in str(error.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere"):
        HubertEncoder.load(tmp_path / "nowhere")
