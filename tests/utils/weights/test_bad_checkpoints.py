"""Every weights file of the official tree, damaged in the ways that users report: one line with advice."""

from __future__ import annotations

import os
import pickle
import runpy
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.io import loadmat, savemat

from models.audio.hubert import HubertEncoder
from models.audio.whisper_encoder import WhisperEncoder
from models.face3d.face_model import FaceModel
from models.face3d.recon_net import ReconNet
from models.generation.face_parsing import FaceParsing
from models.generation.generator import Generator
from models.generation.latent_codec import LatentCodec
from models.motion.audio2motion_checkpoint import load_audio2motion
from tests.helpers import official_tree, talking_clip
from utils.core.errors import BadInput

ROOT = Path(__file__).resolve().parents[3]
AUDIO2MOTION = "audio2motion/240210_real3dportrait_orig/audio2secc_vae"
DIFFUSERS = "diffusion_pytorch_model.safetensors"
BFM_FRONT = "BFM/BFM_model_front.mat"
State = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A network's weights: their file in the tree, loader, another network's file, and container.

    ``given``: what a user names, the file or its folder. ``key``: one of the weights, as stored. ``holders``: the keys
    that lead to the weights inside of the file.
    """

    path: str
    load: Callable[[Path], object]
    other: str
    key: str
    group: str
    given: str = ""
    holders: tuple[str, ...] = ()


NETWORKS = [
    Part(
        f"{AUDIO2MOTION}/model_ckpt_steps_400000.ckpt", load_audio2motion, "whisper/tiny.pt",
        "vae.encoder.out_proj.weight", "audio2motion", AUDIO2MOTION, ("state_dict", "model"),
    ),
    Part(
        "audio2motion/hubert/pytorch_model.bin", HubertEncoder.load, "whisper/tiny.pt",
        "hubert.feature_projection.projection.weight", "hubert", "audio2motion/hubert",
    ),
    Part(
        "whisper/tiny.pt", WhisperEncoder.load, "audio2motion/hubert/pytorch_model.bin",
        "encoder.conv2.weight", "whisper", holders=("model_state_dict",),
    ),
    Part(f"sd-vae-ft-mse/{DIFFUSERS}", LatentCodec.load, f"joygen/{DIFFUSERS}", "encoder.conv_in.weight", "vae",
         "sd-vae-ft-mse"),
    Part(f"joygen/{DIFFUSERS}", Generator.load, f"sd-vae-ft-mse/{DIFFUSERS}", "conv_out.weight", "unet", "joygen"),
    Part(
        "face-parse-bisent/79999_iter.pth", FaceParsing.load, "face-parse-bisent/resnet18-5c106cde.pth",
        "conv_out.conv_out.weight", "parsing",
    ),
    Part(
        "face_recon_feat0.2_augment/epoch_20.pth", ReconNet.load, "face-parse-bisent/79999_iter.pth",
        "final_layers.0.weight", "recon", holders=("net_recon",),
    ),
]  # fmt: skip
BFM_FILES = (BFM_FRONT, "BFM/index_mp468_from_mesh35709.npy", "BFM/similarity_Lm3D_all.mat")
BFM_RAW_FILES = tuple(
    f"BFM/{name}"
    for name in (
        "01_MorphableModel.mat", "BFM_exp_idx.mat", "BFM_front_idx.mat", "facemodel_info.mat", "Exp_Pca.bin",
        "std_exp.txt",
    )
)  # fmt: skip
CONFIGS = [
    ("audio2motion/hubert/config.json", HubertEncoder.load, "hubert"),
    ("audio2motion/hubert/preprocessor_config.json", HubertEncoder.load, "hubert"),
    ("sd-vae-ft-mse/config.json", LatentCodec.load, "vae"),
    ("joygen/config.json", Generator.load, "unet"),
]
FOREIGN_FILES = ("missing", "empty", "truncated", "web page", "LFS pointer", "text", "folder", "code")


class RunsCode:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("ran",)


@pytest.fixture(scope="session")
def whole_tree(tmp_path_factory) -> Path:
    return official_tree.tiny_tree(tmp_path_factory)


@pytest.fixture
def tree(whole_tree, tmp_path, monkeypatch) -> Path:
    """A tree to damage; code in a file would write to the folder above it."""
    monkeypatch.chdir(tmp_path)
    return official_tree.copy_tree(whole_tree, tmp_path)


def spoil(path: Path, kind: str) -> None:
    """Replace a file by something else, or remove it."""
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(
            {
                "empty": b"",
                "truncated": content[: len(content) // 2],
                "web page": b"\n<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>",
                "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 135\n",
                "text": b"these are no weights, whatever the name says\n" * 4,
                "code": pickle.dumps({"state_dict": RunsCode()}),
            }[kind]
        )


def refusal(load: Callable[[Path], object], given: Path, path: Path, group: str) -> str:
    """The message of a loader that must refuse its file, checked for the parts of every such message."""
    with pytest.raises(BadInput) as error:
        load(given)
    message = str(error.value)
    assert "\n" not in message
    named = message.partition("(")[2]
    assert named.startswith((str(path), str(given))), message
    assert "expected " in message
    assert "found " in message
    assert f"python scripts/download_models.py --only {group}" in message
    assert not Path("ran").exists()
    return message


def all_kinds(parts: list[Part]) -> list:
    return [
        pytest.param(part, kind, id=f"{part.group}-{kind}".replace(" ", "_"))
        for part in parts
        for kind in FOREIGN_FILES
    ]


@pytest.mark.parametrize(("part", "kind"), all_kinds(NETWORKS))
def test_network_file_that_is_none(tree, part, kind):
    path, given = tree / part.path, tree / (part.given or part.path)
    spoil(path, kind)
    refusal(part.load, given, path, part.group)


by_group = pytest.mark.parametrize("part", NETWORKS, ids=lambda part: part.group)


@by_group
def test_network_of_another_kind(tree, part):
    path = tree / part.path
    path.unlink()
    shutil.copy(tree / part.other, path)
    assert str(path) in refusal(part.load, tree / (part.given or part.path), path, part.group)


def change_state(path: Path, holders: tuple[str, ...], change: Callable[[State], None]) -> None:
    """Rewrite a weights file with its weights changed."""
    is_safetensors = path.suffix == ".safetensors"
    content: State = load_file(path) if is_safetensors else torch.load(path, weights_only=True)
    state = content
    for holder in holders:
        state = state[holder]
    change(state)
    path.unlink()
    if is_safetensors:
        save_file(content, path)
    else:
        torch.save(content, path)


@by_group
def test_missing_extra_and_misshapen_weights_are_named(tree, part):
    path, given = tree / part.path, tree / (part.given or part.path)
    name = part.key.removeprefix("hubert.")
    kept: list[torch.Tensor] = []
    change_state(path, part.holders, lambda state: kept.append(state.pop(part.key)))
    assert name in refusal(part.load, given, path, part.group)

    widened = torch.cat([kept[0], kept[0][..., :1]], dim=-1)
    change_state(path, part.holders, lambda state: state.update({part.key: widened}))
    message = refusal(part.load, given, path, part.group)
    assert name in message
    assert str(tuple(widened.shape)) in message
    assert str(tuple(kept[0].shape)) in message

    extra = part.key.replace(".weight", ".surplus")
    change_state(path, part.holders, lambda state: state.update({part.key: kept[0], extra: torch.zeros(3)}))
    message = refusal(part.load, given, path, part.group)
    assert extra.removeprefix("hubert.") in message


@pytest.mark.parametrize(
    "part", [part for part in NETWORKS if not part.path.endswith(".safetensors")], ids=lambda part: part.group
)
def test_code_inside_of_a_container_is_not_run(tree, part):
    path = tree / part.path
    change_state(path, part.holders, lambda state: state.update({part.key: RunsCode()}))
    message = refusal(part.load, tree / (part.given or part.path), path, part.group)
    assert "unsafe" in message
    assert "mkdir" in message


def test_training_states_in_a_checkpoint_are_accepted(tree):
    """Real checkpoints hold numpy numbers, optimizer state and the like beside the weights."""
    part = NETWORKS[0]
    leftovers = {
        "epoch": 12,
        "checkpoint_callback_best": np.float64(0.25),
        "best_step": np.int64(4000),
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(5.0), "exp_avg": torch.zeros(3)}}, "param_groups": []}
        ],
    }
    change_state(tree / part.path, (), lambda content: content.update(leftovers))
    part.load(tree / part.given)


BFM_CASES = [(name, kind) for name in BFM_FILES for kind in FOREIGN_FILES]
BFM_CASES.remove((BFM_FRONT, "missing"))  # it is then converted from the raw files


@pytest.mark.parametrize(("name", "kind"), BFM_CASES)
def test_face_model_file_that_is_none(tree, name, kind):
    spoil(tree / name, kind)
    refusal(FaceModel.load, tree / "BFM", tree / name, "bfm")


@pytest.mark.parametrize("name", BFM_RAW_FILES)
@pytest.mark.parametrize("kind", FOREIGN_FILES)
def test_raw_face_model_file_that_is_none(tree, name, kind):
    (tree / BFM_FRONT).unlink()
    spoil(tree / name, kind)
    refusal(FaceModel.load, tree / "BFM", tree / name, "bfm")
    assert not (tree / BFM_FRONT).exists()


def change_mat(path: Path, change: Callable[[State], None]) -> None:
    arrays = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    change(arrays)
    path.unlink()
    savemat(path, arrays)


MISSHAPEN_ARRAYS = [
    (BFM_FRONT, "idBase"),
    (BFM_FRONT, "tri"),
    ("BFM/similarity_Lm3D_all.mat", "lm"),
    ("BFM/01_MorphableModel.mat", "shapePC"),
    ("BFM/BFM_exp_idx.mat", "trimIndex"),
    ("BFM/BFM_front_idx.mat", "idx"),
    ("BFM/facemodel_info.mat", "tri"),
]


@pytest.mark.parametrize(("name", "array"), MISSHAPEN_ARRAYS)
def test_face_model_array_that_is_missing_or_misshapen(tree, name, array):
    path = tree / name
    if name in BFM_RAW_FILES:
        (tree / BFM_FRONT).unlink()
    kept: list[np.ndarray] = []
    change_mat(path, lambda arrays: kept.append(arrays.pop(array)))
    assert array in refusal(FaceModel.load, tree / "BFM", path, "bfm")
    change_mat(path, lambda arrays: arrays.update({array: np.zeros((7, 5))}))
    refusal(FaceModel.load, tree / "BFM", path, "bfm")


@pytest.mark.parametrize("index", [np.arange(30), np.arange(468) + 10**6, np.arange(468) - 1])
def test_landmarks_of_another_mesh(tree, index):
    path = tree / "BFM" / "index_mp468_from_mesh35709.npy"
    path.unlink()
    np.save(path, index)
    refusal(FaceModel.load, tree / "BFM", path, "bfm")


@pytest.mark.parametrize(("name", "load", "group"), CONFIGS)
@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "web page", "LFS pointer", "text", "code"])
def test_config_that_is_none(tree, name, load, group, kind):
    path = tree / name
    spoil(path, kind)
    refusal(load, path.parent, path, group)


# stage, its flags but the spoilt one, that flag, what it is given and the file that is spoilt
STAGES = [
    ("inference_audio2motion", "a2m_ckpt", AUDIO2MOTION, NETWORKS[0].path),
    ("inference_audio2motion", "hubert_path", "audio2motion/hubert", NETWORKS[1].path),
    ("inference_edit_expression", "bfm_folder", "BFM", BFM_FRONT),
    ("inference_edit_expression", "checkpoints_dir", ".", "face_recon_feat0.2_augment/epoch_20.pth"),
    ("inference_joygen", "unet_model_path", "joygen", NETWORKS[4].path),
    ("inference_joygen", "whisper_model_path", "whisper/tiny.pt", "whisper/tiny.pt"),
]


@pytest.fixture(scope="module")
def media_folder(tmp_path_factory) -> Path:
    """A clip, a speech and stage 2's result."""
    folder = tmp_path_factory.mktemp("media")
    talking_clip.fill_folder(folder)
    return folder


@pytest.fixture
def run(monkeypatch, capfd) -> Iterator[Callable[[str, dict[str, Path]], tuple[int, str]]]:
    """Run a script as ``python <stage>.py`` would, in this process: exit code and stderr."""
    handler = signal.getsignal(signal.SIGTERM)

    def run_stage(stage: str, values: dict[str, Path]) -> tuple[int, str]:
        flags = [text for name, value in values.items() for text in (f"--{name}", str(value))]
        monkeypatch.setattr(sys, "argv", [f"{stage}.py", *flags])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / f"{stage}.py"), run_name="__main__")
        return end.value.code, capfd.readouterr().err

    yield run_stage
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(("stage", "flag", "given", "name"), STAGES, ids=[flag for _, flag, _, _ in STAGES])
def test_command_ends_with_one_line_and_code_2(whole_tree, tree, media_folder, run, stage, flag, given, name):
    clip, speech = media_folder / talking_clip.CLIP_NAME, media_folder / talking_clip.SPEECH_NAME
    motion = media_folder / "a2m" / Path(talking_clip.SPEECH_NAME).with_suffix(".npy").name
    values = {
        "inference_audio2motion": {"drv_aud": speech, "a2m_ckpt": whole_tree / AUDIO2MOTION},
        "inference_edit_expression": {
            "infer_video_path": clip, "infer_exp_coeff_path": motion, "bfm_folder": whole_tree / "BFM",
        },
        "inference_joygen": {
            "video_path": clip, "audio_path": speech, "intermediate_dir": media_folder / "edit",
            "unet_model_path": whole_tree / "joygen", "vae_model_path": whole_tree / "sd-vae-ft-mse",
        },
    }[stage] | {flag: tree / given}  # fmt: skip
    spoil(tree / name, "web page")
    code, errors = run(stage, values)
    assert code == 2, errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert str(tree / name) in errors
    assert "an HTML page" in errors
    assert "python scripts/download_models.py --only " in errors
    assert not Path("results").exists()
