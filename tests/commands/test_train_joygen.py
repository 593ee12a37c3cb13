from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch
import yaml

import train_joygen
from models.audio.speech_encoder import SpeechEncoder
from models.audio.whisper_encoder import WhisperEncoder
from models.generation.generator import Generator
from models.training.generator_training_learner import GeneratorLearner
from models.training.generator_training_setup import build_accelerator
from tests.helpers.training_data import SIZE, UNET_CONFIG, read_log, write_clip, write_config, write_networks
from utils.core.errors import BadInput, StageFailure
from utils.data.dataset import Batch
from utils.files.image_files import read_rgb
from utils.media.windows import WINDOW_ROWS
from utils.results.store import face_path
from utils.training.training_loop import BAD_BATCH_NAME, TrainingLoop
from utils.weights.checkpoints import read_weights

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = ("model", "average", "optimizer", "critics", "critic_optimizer")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Data, networks and config of a tiny training."""
    folder = tmp_path_factory.mktemp("training")
    for name in ("a", "b", "c", "held_out"):
        write_clip(folder / "data", name, has_audio=name != "c")
    write_networks(folder)
    write_config(folder)
    (folder / "val.txt").write_text("held_out\n")
    (folder / "unet_dropout.json").write_text(json.dumps(UNET_CONFIG | {"dropout": 0.1}))
    return folder


def train(workspace: Path, run_dir: Path, *overrides: str) -> dict:
    train_joygen.main(["--config", str(workspace / "config.yaml"), f"checkpoint_dir={run_dir}", *overrides])
    return read_weights(run_dir / "last.pt")


def build_loop(workspace: Path, *overrides: str) -> TrainingLoop[Batch]:
    config = train_joygen.parse_config(["--config", str(workspace / "config.yaml"), *overrides])
    return train_joygen.build_loop(GeneratorLearner(config, build_accelerator(config)))


def run_script(
    workspace: Path, run_dir: Path, *overrides: str, launcher: tuple[str, ...] = (), preexec_fn=None, **environment
):
    """The command line of a user, on one thread."""
    command = [sys.executable, *launcher, str(REPOSITORY / "train_joygen.py")]
    arguments = ["--config", str(workspace / "config.yaml"), f"checkpoint_dir={run_dir}", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen(
        command + arguments, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=preexec_fn,
    )  # fmt: skip


def run_to_end(workspace: Path, run_dir: Path, *overrides: str, **environment) -> dict:
    """The command's checkpoint. Sums depend on the number of threads, so processes are compared with processes."""
    process = run_script(workspace, run_dir, *overrides, **environment)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return read_weights(run_dir / "last.pt")


def flat(value, prefix: str = "") -> dict:
    """Nested mappings and lists as dotted names."""
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{prefix}{key}.").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, part in enumerate(value) for k, v in flat(part, f"{prefix}{i}.").items()}
    return {prefix: value}


def assert_same(first: dict, second: dict) -> None:
    assert first["step"] == second["step"]
    for part in PARTS:
        found, expected = flat(first.get(part)), flat(second.get(part))
        assert found.keys() == expected.keys()
        for key, value in found.items():
            is_same = torch.equal(value, expected[key]) if torch.is_tensor(value) else value == expected[key]
            assert is_same, f"{part} {key}"


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
    sheet = read_rgb(tmp_path / "validation_00000002.png", "advice")
    assert sheet.shape[0] == 5 * SIZE and sheet.shape[1] % SIZE == 0
    masked, depth = sheet[SIZE : 2 * SIZE], sheet[4 * SIZE :]
    assert masked[: SIZE // 2].any() and not masked[SIZE // 2 :].any() and depth.any()
    records = read_log(tmp_path)
    assert [(record["kind"], record["step"]) for record in records if record["kind"] == "validation"] == [
        ("validation", 2),
        ("validation", 4),
    ]
    trained = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in trained] == [1, 2, 3, 4]
    assert all(record["samples_per_s"] > 0 and record["memory_gib"] > 0.05 for record in trained)
    assert trained[0]["lr"] == pytest.approx(1e-3) and 1e-4 < trained[-1]["lr"] < 1e-3


EVERYTHING_RANDOM = (
    "sample_posterior=true",
    "opti.gradient_accumulation_steps=2",
    "loss.perceptual=0.1",
    "loss.adversarial=0.01",
    "loss.sync=0.1",
    "critics.start=5",
)


@pytest.mark.parametrize("options", [(), EVERYTHING_RANDOM], ids=["reference losses", "everything"])
def test_twenty_steps_are_ten_and_ten_bit_for_bit(workspace, tmp_path, options):
    """With dropout and a moving average; second, with everything else that is random or stateful."""
    options = ("opti.max_steps=20", f"unet_config_file={workspace / 'unet_dropout.json'}", *options)
    straight = train(workspace, tmp_path / "straight", *options)
    loop = build_loop(workspace, f"checkpoint_dir={tmp_path / 'halves'}", *options)
    batches = loop.learner.batches()
    for step in range(10):
        loop.update(next(batches), step / 20)
    loop.save()
    torch.manual_seed(99)  # another state, as in the next process
    assert_same(train(workspace, tmp_path / "halves", *options), straight)


def test_killed_training_ends_as_if_uninterrupted(workspace, tmp_path):
    options = ("opti.max_steps=60", "checkpoint_save_interval=4", f"dataset.val_file={workspace / 'val.txt'}")
    straight = run_to_end(workspace, tmp_path / "straight", *options)
    killed = tmp_path / "killed"
    process = run_script(workspace, killed, *options)
    deadline = time.monotonic() + 60
    while not (killed / "last.pt").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 0 < read_weights(killed / "last.pt")["step"] < 60
    (killed / ".partial-left.pt").write_bytes(b"half a checkpoint")
    assert_same(run_to_end(workspace, killed, *options), straight)
    names = [{path.relative_to(run) for path in run.rglob("*")} for run in (killed, tmp_path / "straight")]
    assert {path for path in names[0] if path.parts[0] != "tensorboard"} == {
        path for path in names[1] if path.parts[0] != "tensorboard"
    }
    losses = [
        [(r["step"], r.get("total"), r.get("psnr")) for r in read_log(run)] for run in (killed, tmp_path / "straight")
    ]
    assert losses[0] == losses[1]


def test_two_processes_equal_two_accumulated_batches(workspace, tmp_path):
    """Process 0 has the even batches and process 1 the odd ones; gloo averages their gradients."""
    options = ("opti.max_steps=3", "loss.adversarial=0.01", "sample_posterior=true", "opti.max_grad_norm=1e9")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port))
    process = run_script(workspace, tmp_path / "two", *options, launcher=launcher, ACCELERATE_USE_CPU="true")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count("2 processes on cpu") == output.count("step 3 (100 %)") == 1
    accumulation = "opti.gradient_accumulation_steps=2"
    joint = run_to_end(workspace, tmp_path / "one", *options, accumulation, ACCELERATE_USE_CPU="true")
    two = read_weights(tmp_path / "two" / "last.pt")
    assert two["step"] == joint["step"] == 3
    for part in ("model", "average", "critics"):
        for key, value in joint[part].items():
            torch.testing.assert_close(two[part][key], value, rtol=1e-4, atol=2e-5)
    figures = [read_log(tmp_path / run)[-1] for run in ("two", "one")]
    assert figures[0]["total"] == pytest.approx(figures[1]["total"], rel=1e-4)


def test_frozen_encoder_is_neither_learned_nor_exported(workspace, tmp_path):
    encoder_path = tmp_path / "whisper.pt"
    build_loop(workspace).learner.plain_model.audio_encoder.save(encoder_path)
    options = ("train_audio_encoder=false", "audio_encoder=null", f"whisper_model_path={encoder_path}")
    state = train(workspace, tmp_path / "run", *options)
    stored = WhisperEncoder.load(encoder_path).state_dict()
    assert all(torch.equal(state["model"][f"audio_encoder.{key}"], value) for key, value in stored.items())
    assert not (tmp_path / "run" / "final" / "whisper.pt").exists()


def test_training_starts_from_given_weights(workspace, tmp_path):
    learner = build_loop(workspace, "seed=3").learner
    learner.export(tmp_path)
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    other = build_loop(workspace, f"unet_resume_file={path}").learner
    weights = [item.plain_model.generator.unet.conv_in.weight for item in (other, learner)]
    assert torch.equal(*weights)


def test_time_budget(workspace, tmp_path):
    state = train(workspace, tmp_path, "opti.max_minutes=0.00001", "opti.max_steps=1000")
    assert state["step"] == 1


def test_training_of_another_network_is_not_continued(workspace, tmp_path):
    train(workspace, tmp_path, "opti.max_steps=1")
    with pytest.raises(BadInput, match=r"training of another network.*last\.pt"):
        train(workspace, tmp_path, "audio_encoder.n_audio_layer=2")


def test_continuing_says_what_has_changed(workspace, tmp_path, capsys):
    train(workspace, tmp_path, "opti.max_steps=1")
    train(workspace, tmp_path, "opti.max_steps=2", "loss.mouth=1")
    assert "continuing after step 1, with other opti.max_steps, loss.mouth" in capsys.readouterr().out


def test_loss_that_is_not_finite_stops_and_keeps_the_state(workspace, tmp_path):
    """A batch with a loss that is not finite: the state before it is saved, and a file names its items."""
    loop = build_loop(workspace, f"checkpoint_dir={tmp_path}")
    batches = loop.learner.batches()
    loop.update(next(batches), 0.0)
    before = {key: value.clone() for key, value in loop.learner.plain_model.state_dict().items()}
    ((_, bad),) = next(batches)
    bad.log_mel[0, 0, 0] = float("nan")
    with pytest.raises(StageFailure, match=f"not finite at step 1, batch 7 .{bad.names[0]}.*state before it"):
        loop.update([(7, bad)], 0.0)
    record = json.loads((tmp_path / BAD_BATCH_NAME).read_text())
    assert record == {"step": 1, "batch": 7, "items": list(bad.names)}
    state = read_weights(tmp_path / "last.pt")
    assert state["step"] == 1
    assert all(torch.equal(state["model"][key], value) for key, value in before.items())


def test_weights_that_are_not_finite_do_not_replace_the_checkpoint(workspace, tmp_path):
    train(workspace, tmp_path, "opti.max_steps=1")
    stored = (tmp_path / "last.pt").read_bytes()
    loop = build_loop(workspace, f"checkpoint_dir={tmp_path}")
    torch.nn.init.constant_(loop.learner.plain_model.generator.unet.conv_out.bias, float("nan"))
    with pytest.raises(StageFailure, match="weights are not finite"):
        loop.train()
    assert (tmp_path / "last.pt").read_bytes() == stored


def test_full_disk(workspace, tmp_path):
    """A file size limit interrupts a write, as a full disk does."""
    run_dir = tmp_path / "run"
    train(workspace, run_dir, "opti.max_steps=1")
    stored = (run_dir / "last.pt").read_bytes()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(stored) // 2, len(stored) // 2))

    process = run_script(workspace, run_dir, "opti.max_steps=2", preexec_fn=limit)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.count("\n") == 1 and "error: cannot write" in errors and "check the free space" in errors
    assert (run_dir / "last.pt").read_bytes() == stored
    assert not list(run_dir.rglob(".partial-*"))


@pytest.mark.parametrize("n_workers", [0, 1])
def test_damaged_image_is_one_clear_line(workspace, tmp_path, n_workers):
    """Also from a worker process, whose errors carry a traceback."""
    folder = write_clip(tmp_path / "data", "a")
    for index in range(1, 11):
        cv2.imwrite(str(face_path(folder, index).with_suffix(".png")), torch.zeros(1, 1).numpy())
        face_path(folder, index).write_bytes(b"no image")
    options = (f"dataset.root_dir={tmp_path / 'data'}", f"dataset.num_workers={n_workers}", "dataset.in_memory=false")
    with pytest.raises(BadInput) as caught:
        train(workspace, tmp_path / "run", *options)
    assert "Traceback" not in str(caught.value) and ".jpg" in str(caught.value)


def test_states_of_the_speech_encoder_come_with_the_batches(workspace, tmp_path):
    unet_path = tmp_path / "unet.json"
    unet_path.write_text(json.dumps(UNET_CONFIG | {"cross_attention_dim": SpeechEncoder.width}))
    options = (f"unet_config_file={unet_path}", "audio_encoder=null", "train_audio_encoder=false")
    loop = build_loop(workspace, *options, f"checkpoint_dir={tmp_path / 'run'}", "opti.max_steps=1")
    batch = loop.learner.training[0]
    assert batch.windows.shape[1:] == (WINDOW_ROWS * SpeechEncoder.n_states, SpeechEncoder.width)
    assert batch.windows[batch.has_audio.repeat_interleave(len(batch.windows) // len(batch.has_audio))].any()
    loop.run()
    loop.learner.export(tmp_path / "final")
    assert (tmp_path / "final" / "unet").is_dir()
    assert not list((tmp_path / "final").glob("*.pt"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("opti.learning_rate=1", "unknown config key"),
        ("checkpoint_valiation_interval=5", "checkpoint_validation_interval"),  # the reference's spelling
        ("audio_encoder=null", "train_audio_encoder without an encoder"),
        ("whisper_model_path=w.pt", "audio encoder not clear"),
        ("dataset.root_dir=nowhere", "no training clips"),
        ("vae_path=nowhere", "model config missing"),
        ("audio_encoder.n_audio_state=8", "do not fit"),
        ("vae_precision=float16", "vae_precision cannot be used"),
        ("compile_backend=5", "wrong type"),
    ],
)
def test_bad_configs_are_named(workspace, tmp_path, override, message):
    with pytest.raises(BadInput, match=message):
        train(workspace, tmp_path, override)


def test_fp16_on_a_cpu_is_refused(workspace, tmp_path):
    process = run_script(workspace, tmp_path, "mixed_precision=fp16", launcher=("-W", "error"))
    _, errors = process.communicate(timeout=60)
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert process.returncode == 2
    assert errors == "error: mixed_precision fp16 needs a GPU: expected bf16 or no, found fp16 on a CPU\n"


@pytest.mark.parametrize("name", ["joygen", "joygen_mini"])
def test_configs_of_the_repository(name):
    path = REPOSITORY / "config" / f"{name}.yaml"
    config = train_joygen.parse_config(["--config", str(path)])
    assert config.unet_config_file.parts[-2] == "config"
    assert (config.loss.perceptual, config.loss.adversarial, config.loss.sync) == (0, 0, 0)
    if name == "joygen":
        assert (config.loss.latent, config.loss.pixel, config.loss.gradient, config.loss.mouth) == (1, 2, 0, 0)
        assert (config.opti.lr, config.opti.min_lr, config.opti.betas) == (1e-5, 5e-6, (0.9, 0.99))
        assert (config.dataset.augment.depth, config.dataset.augment.depth_shift) == (0.5, 0.02)
        assert config.vae_precision == "auto"
        keys = yaml.safe_load(path.read_text())
        assert set(REFERENCE_KEYS) <= set(flat(keys))


REFERENCE_KEYS = [
    f"{key}."
    for key in (
        "vae_path", "unet_config_file", "unet_resume_file", "checkpoint_dir", "checkpoint_save_interval",
        "console_log_interval", "checkpoint_validation_interval", "dataset.root_dir", "dataset.train_file",
        "dataset.val_file", "dataset.img_size", "dataset.batch_size", "dataset.num_workers",
        "opti.gradient_accumulation_steps", "opti.warmup_steps", "opti.max_steps", "opti.use_ema", "opti.lr",
        "opti.min_lr",
    )
]  # fmt: skip
