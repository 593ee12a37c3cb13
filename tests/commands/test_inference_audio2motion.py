"""Stage 1's script: output, repeatability, and one line for unusable input."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

import inference_audio2motion
from models.face3d.closed_mouth import LipGaps
from models.face3d.face_model import FaceModel
from models.motion.audio2motion import Audio2MotionConfig, build_audio2motion
from models.motion.flow import FlowVAESizes
from tests.helpers.hubert_folder import WIDTH, write_hubert_folder
from tests.helpers.motion_world import save_face_model
from tests.helpers.sounds import hiss, music
from tests.helpers.sounds import speech as spoken
from utils.core.errors import BadInput
from utils.weights import packs

SMALL = FlowVAESizes(hidden=16, latent=4, n_encoder_layers=1, n_decoder_layers=1, flow_hidden=8, n_flow_layers=1)
N_SAMPLES = 32_000


def write_speech(path: Path, n_samples: int = N_SAMPLES, sound: np.ndarray | None = None) -> Path:
    samples = np.random.default_rng(0).integers(-3000, 3000, n_samples).astype("<i2")
    if sound is not None:
        samples = (32767 * sound).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples.tobytes())
    return path


def write_network(
    folder: Path, audio_type: str = "mfcc", use_pitch: bool = False, audio_dim: int | None = None
) -> Path:
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    config = Audio2MotionConfig(audio_type, use_pitch, True, False, cond_channels=12, sizes=SMALL)
    network = build_audio2motion(config, audio_dim)
    torch.save({"state_dict": {"model": network.state_dict()}}, folder / "model_ckpt_steps_1.ckpt")
    (folder / "config.yaml").write_text(
        f"audio_type: {audio_type}\nuse_pitch: {use_pitch}\nuse_mouth_amp_embed: true\nuse_eye_amp_embed: false\n"
    )
    return folder


@pytest.fixture
def stage(tmp_path: Path, monkeypatch):
    """Runs the script with small networks instead of a pack, and returns its result folder.

    The speech is noise, so --silence is off unless said otherwise (None: not given).
    """
    save_face_model(tmp_path / "face_model.safetensors")
    parts = {"audio2motion": write_network(tmp_path / "network"), "face_model": tmp_path / "face_model.safetensors"}
    unused = dict.fromkeys(("whisper", "vae", "unet"), tmp_path)
    monkeypatch.setattr(packs, "mini_pack", lambda: packs.Pack("mini test", 128, **parts, **unused))

    def run(*arguments: object, silence: str | None = "off") -> Path:
        texts = ["--gpu_id", "-1", "--result_dir", str(tmp_path / "results"), *map(str, arguments)]
        texts += ["--silence", silence] if silence else []
        inference_audio2motion.main(texts)
        return tmp_path / "results"

    return run


def test_motion_file(stage, tmp_path: Path, capsys) -> None:
    speech = write_speech(tmp_path / "my speech (1).wav")
    motion = np.load(stage("--drv_aud", speech) / "my speech (1).npy")
    assert motion.shape == (52, 64)  # 101 MFCC steps, padded to 104, halved
    assert motion.dtype == np.float32
    output = capsys.readouterr().out
    assert "weights: mini test" in output
    assert "my speech (1).npy: 52 frames" in output


@pytest.mark.parametrize(
    ("name", "expected"), [("motion.npy", "motion.npy"), ("motion", "motion.npy"), ("a.b", "a.b.npy")]
)
def test_result_name(stage, tmp_path: Path, name: str, expected: str) -> None:
    results = stage("--drv_aud", write_speech(tmp_path / "speech.wav"), "--exp_file", name)
    assert [path.name for path in results.iterdir()] == [expected]


def test_same_seed_same_bytes(stage, tmp_path: Path) -> None:
    speech = write_speech(tmp_path / "speech.wav")
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        results = stage("--drv_aud", speech, "--seed", seed, "--exp_file", name)
    assert (results / "one.npy").read_bytes() == (results / "two.npy").read_bytes()
    assert (results / "one.npy").read_bytes() != (results / "other.npy").read_bytes()


def test_amplitude_and_temperature_reach_the_network(stage, tmp_path: Path) -> None:
    speech, network = write_speech(tmp_path / "speech.wav"), write_network(tmp_path / "pitch", use_pitch=True)
    settings = {"plain": [], "wide": ["--mouth_amp", 2], "sure": ["--temperature", 0], "faithful": ["--faithful"]}
    for name, flags in settings.items():
        results = stage("--drv_aud", speech, "--a2m_ckpt", network, "--exp_file", name, *flags)
    plain, wide, sure, faithful = (np.load(results / f"{name}.npy") for name in settings)
    assert not np.array_equal(plain, wide)
    assert not np.array_equal(plain, sure)
    np.testing.assert_array_equal(plain, faithful)


def test_silence_shuts_the_mouth(stage, tmp_path: Path) -> None:
    """Default with the mini pack's kind of network; not with --faithful or --silence off."""
    pause = slice(60, 98)
    speech = write_speech(tmp_path / "speech.wav", sound=np.concatenate([spoken(45), hiss(60), spoken(45)]))
    runs = {"plain": ([], None), "close": ([], "close"), "off": ([], "off"), "faithful": (["--faithful"], None)}
    for name, (flags, silence) in runs.items():
        results = stage("--drv_aud", speech, "--exp_file", name, *flags, silence=silence)
    plain, close, off, faithful = (np.load(results / f"{name}.npy") for name in runs)
    np.testing.assert_array_equal(plain, close)
    np.testing.assert_array_equal(off, faithful)
    assert np.ptp(plain[pause], axis=0).max() < 1e-6
    assert np.ptp(off[pause], axis=0).max() > 1e-3
    gaps = LipGaps.of(FaceModel.load(tmp_path / "face_model.safetensors"))
    np.testing.assert_allclose(gaps.opening(plain[pause]), 0, atol=2e-3)
    assert np.ptp(plain[:40], axis=0).max() > 1e-3


@pytest.mark.parametrize("sound", [np.zeros(32_000, np.float32), hiss(50, 0.1), music(50, 0.1)])
def test_a_sound_without_a_voice_gives_a_shut_mouth(stage, tmp_path: Path, sound: np.ndarray, caplog) -> None:
    """A silent first track gives a warning: there may be speech in another track of the file."""
    speech = write_speech(tmp_path / "s.wav", sound=sound)
    motion = np.load(stage("--drv_aud", speech, silence=None) / "s.npy")
    assert np.ptp(motion, axis=0).max() < 1e-6
    assert caplog.messages == [f"{speech}: its first sound track is silent"] * (not sound.any())


def test_a_network_on_hubert_is_left_alone_in_silence(stage, tmp_path: Path) -> None:
    """With the official kind of network only --silence close shuts the mouth."""
    listener = write_network(tmp_path / "listener", audio_type="hubert", audio_dim=WIDTH)
    flags = ["--a2m_ckpt", listener, "--hubert_path", write_hubert_folder(tmp_path / "hubert")]
    speech = write_speech(tmp_path / "speech.wav")
    for name, silence in (("plain", None), ("off", "off"), ("close", "close")):
        results = stage("--drv_aud", speech, "--exp_file", name, *flags, silence=silence)
    plain, off, close = (np.load(results / f"{name}.npy") for name in ("plain", "off", "close"))
    np.testing.assert_array_equal(plain, off)
    assert np.ptp(off, axis=0).max() > 1e-3
    assert np.ptp(close, axis=0).max() < 1e-6


def test_readme_command_runs_as_written(stage, tmp_path: Path, monkeypatch) -> None:
    """The reference's command, word for word, on small weights in the official tree."""
    a2m = Path("pretrained_models/audio2motion/240210_real3dportrait_orig/audio2secc_vae")
    write_network(tmp_path / a2m, audio_type="hubert", use_pitch=True, audio_dim=WIDTH)
    write_hubert_folder(tmp_path / "pretrained_models" / "audio2motion" / "hubert")
    (tmp_path / "demo").mkdir()
    write_speech(tmp_path / "demo" / "xinwen_5s.wav")
    monkeypatch.chdir(tmp_path)
    command = (
        f"--a2m_ckpt ./{a2m} --hubert_path ./pretrained_models/audio2motion/hubert --drv_aud ./demo/xinwen_5s.wav "
        "--seed 0 --result_dir ./results/a2m --exp_file xinwen_5s.npy"
    )
    inference_audio2motion.main(command.split())
    motion = np.load("results/a2m/xinwen_5s.npy")
    assert motion.shape == (52, 64)  # 99 HuBERT steps, padded to 104, halved
    assert [path.name for path in Path("demo").iterdir()] == ["xinwen_5s.wav"]  # no file is written beside it
    inference_audio2motion.main([*command.split(), "--temperature", "0.2", "--mouth_amp", "0.45"])
    np.testing.assert_array_equal(np.load("results/a2m/xinwen_5s.npy"), motion)


def test_a_network_on_mfcc_does_not_open_hubert(stage, tmp_path: Path) -> None:
    speech = write_speech(tmp_path / "speech.wav")
    (tmp_path / "hubert").mkdir()
    results = stage("--drv_aud", speech, "--hubert_path", tmp_path / "hubert", "--exp_file", "with")
    stage("--drv_aud", speech, "--exp_file", "without")
    assert (results / "with.npy").read_bytes() == (results / "without.npy").read_bytes()


def test_unusable_sound(stage, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no sound in here")
    cases = {
        tmp_path / "missing.wav": "media file missing",
        text: "media file cannot be opened",
        tmp_path: "media file missing",
        write_speech(tmp_path / "blip.wav", n_samples=500): "speech is too short",
    }
    for path, message in cases.items():
        with pytest.raises(BadInput, match=message):
            stage("--drv_aud", path)
    assert not (tmp_path / "results").exists()


def test_unusable_weights(stage, tmp_path: Path) -> None:
    speech = write_speech(tmp_path / "speech.wav")
    with pytest.raises(BadInput, match="weights missing: audio2motion"):
        stage("--drv_aud", speech, "--a2m_ckpt", tmp_path / "nowhere")
    with pytest.raises(BadInput, match="weights missing: hubert"):
        stage("--drv_aud", speech, "--hubert_path", tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"needs HuBERT.*--hubert_path"):
        stage("--drv_aud", speech, "--a2m_ckpt", write_network(tmp_path / "listener", audio_type="hubert"))
    hubert = write_hubert_folder(tmp_path / "hubert")
    with pytest.raises(BadInput, match=r"HuBERT of another width .*hubert\): expected 1024 channels .*, found 32"):
        stage("--drv_aud", speech, "--a2m_ckpt", tmp_path / "listener", "--hubert_path", hubert)
    (hubert / "pytorch_model.bin").write_text("<!DOCTYPE html><title>Quota exceeded</title>")
    with pytest.raises(BadInput, match="an HTML page"):
        stage("--drv_aud", speech, "--a2m_ckpt", tmp_path / "listener", "--hubert_path", hubert)
    assert not (tmp_path / "results").exists()


def test_unwritable_result_folder(stage, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file of the user's")
    with pytest.raises(BadInput, match="result folder cannot be written"):
        stage("--drv_aud", write_speech(tmp_path / "speech.wav"))
    assert (tmp_path / "results").read_text() == "a file of the user's"


@pytest.mark.parametrize(
    "flags",
    [
        *(["--temperature", "-1"], ["--temperature", "nan"], ["--mouth_amp", "wide"], []),
        *(["--exp_file", ""], ["--exp_file", "."], ["--exp_file", "/"]),
    ],
)
def test_unusable_flags(flags: list[str], capsys) -> None:
    with pytest.raises((SystemExit, BadInput)) as error:
        inference_audio2motion.main([*(["--drv_aud", "speech.wav"] if flags else []), *flags])
    if isinstance(error.value, SystemExit):  # no number at all, or a flag missing
        assert error.value.code == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_a_network_that_samples_nothing_says_so(tmp_path: Path, capsys) -> None:
    """The mini pack's: one motion per speech, whatever the seed."""
    speech = write_speech(tmp_path / "s.wav", sound=spoken(45))
    common = ["--drv_aud", str(speech), "--result_dir", str(tmp_path), "--gpu_id", "-1"]
    inference_audio2motion.main([*common, "--exp_file", "plain"])
    assert "note:" not in capsys.readouterr().out
    inference_audio2motion.main([*common, "--exp_file", "other", "--seed", "3", "--temperature", "1"])
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")]
    assert notes == [
        f"note: --{name} has no effect on the motion: this network samples nothing" for name in ("seed", "temperature")
    ]
    assert (tmp_path / "plain.npy").read_bytes() == (tmp_path / "other.npy").read_bytes()
