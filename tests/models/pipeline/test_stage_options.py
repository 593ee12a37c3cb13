"""The options of the stages: the weights that they select, and their open values."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from models.pipeline.options import EditOptions, FaceOptions, TalkOptions
from utils.core.errors import BadInput
from utils.core.options import parse_options
from utils.weights import packs
from utils.weights.official_files import missing_files


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A complete official tree of empty files with a mini pack in it."""
    root = tmp_path / "pretrained_models"
    optional = ("face_recon_feat0.2_augment/epoch_20.pth", "dwpose/dw-ll_ucoco_384.onnx", "mini/face_model.safetensors")
    for name in (*(file.path for file in missing_files(root)), *optional):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "mini" / packs.PACK_RECORD).write_text(json.dumps({"version": "1", "image_size": 160}))
    official_pack, mini_pack = packs.official_pack, packs.mini_pack
    monkeypatch.setattr(packs, "official_pack", lambda directory=root: official_pack(directory))
    monkeypatch.setattr(packs, "mini_pack", lambda directory=root / "mini": mini_pack(directory))
    monkeypatch.setattr(packs, "MINI_DIR", root / "mini")
    monkeypatch.setattr(packs, "OFFICIAL_DIR", root)
    return root


def options_of(*arguments: str) -> FaceOptions:
    return parse_options(FaceOptions, "", arguments)


def pack_of(*arguments: str) -> packs.Pack:
    return options_of(*arguments).resolve_pack()


def test_the_network_gives_the_coefficients_if_it_is_there(root):
    recon = root / "face_recon_feat0.2_augment" / "epoch_20.pth"
    assert pack_of().recon == recon
    assert pack_of("--recon", "net").recon == recon
    assert pack_of("--recon", "fit").recon is None
    recon.unlink()
    assert pack_of().recon is None
    with pytest.raises(BadInput, match=r"weights missing: recon .*epoch_20\.pth.*download_models\.py --only recon"):
        pack_of("--recon", "net")


def test_the_mini_face_is_fitted(root):
    mini_face = str(root / "mini" / "face_model.safetensors")
    assert pack_of("--bfm_folder", mini_face).recon is None
    assert pack_of("--bfm_folder", mini_face, "--recon", "net").recon is not None  # refused when it is opened


def test_the_reference_s_flags_name_the_network(root, tmp_path):
    path = tmp_path / "checkpoints" / "mine" / "epoch_7.pth"
    path.parent.mkdir(parents=True)
    path.touch()
    named = ("--checkpoints_dir", str(tmp_path / "checkpoints"), "--name", "mine", "--epoch", "7")
    assert pack_of(*named, "--use_opengl", "False").recon == path
    assert pack_of(*named, "--recon", "fit").recon is None
    with pytest.raises(BadInput, match=r"weights missing: recon .*epoch_8\.pth"):
        pack_of(*named[:-1], "8")


def test_dwpose_is_used_when_asked_for(root, tmp_path):
    onnx = root / "dwpose" / "dw-ll_ucoco_384.onnx"
    assert pack_of().dwpose is None
    assert pack_of("--faithful").dwpose == onnx
    assert pack_of("--dwpose_model_path", str(onnx)).dwpose == onnx
    assert pack_of("--dwpose_model_path", str(onnx.with_suffix(".pth"))).dwpose == onnx
    with pytest.raises(BadInput, match=r"weights missing: dwpose .*nowhere"):
        pack_of("--dwpose_model_path", str(tmp_path / "nowhere.pth"))


def test_smoothing_follows_faithful():
    assert options_of().resolved_smoothing == "box"
    assert options_of("--faithful").resolved_smoothing == "none"
    assert options_of("--faithful", "--smoothing", "all").resolved_smoothing == "all"


def test_a_folder_of_weights_serves_instead_of_the_default(root, tmp_path):
    assert pack_of().name == "official"
    assert pack_of("--weights_dir", str(root / "mini")).name == "mini 1"
    assert pack_of("--weights_dir", str(root)).name == "official"
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"folder of weights incomplete .*empty.* found no .* and others"):
        pack_of("--weights_dir", str(tmp_path / "empty"))


def test_flags_without_effect_say_so():
    assert options_of().notes() == []
    flags = ("--dwpose_config_file", "a.py", "--whisper_model_path", "tiny.pt", "--recon", "fit", "--epoch", "3")
    lines = options_of(*flags).notes()
    assert len(lines) == 3 and all(line.startswith("note: --") and "no effect" in line for line in lines)


def test_the_clip_s_own_rate_is_the_default():
    def rate(*flags: str) -> str:
        words = ["--infer_video_path", "a.mp4", "--infer_exp_coeff_path", "a.npy", *flags]
        return parse_options(EditOptions, "", words).resolved_fps

    assert (rate(), rate("--faithful"), rate("--fps", "25.0"), rate("--faithful", "--fps", "source")) == (
        *("source", "25", "25", "source"),
    )


def talk_options(*flags: str) -> TalkOptions:
    return parse_options(TalkOptions, "", ["--audio_path", "a", "--video_path", "b", *flags])


def test_numbers_are_float32_if_upstream_s_are_asked_for(monkeypatch):
    monkeypatch.setattr("models.pipeline.options.resolve_dtype", lambda _: torch.bfloat16)
    assert talk_options().resolve_dtype() == torch.bfloat16
    assert talk_options("--faithful").resolve_dtype() == torch.float32
    assert talk_options("--faithful", "--dtype", "bfloat16").resolve_dtype() == torch.bfloat16


def test_reference_is_another_frame_unless_the_same_is_asked_for(root):
    plain, composed = packs.official_pack(), dataclasses.replace(packs.official_pack(), refiner=root)
    references = {
        "": ("open", "composed"),
        "--faithful": ("same", "same"),
        "--faithful --reference open": ("open",) * 2,
    }
    for flags, expected in references.items():
        options = talk_options(*flags.split())
        assert (options.resolve_reference(plain), options.resolve_reference(composed)) == expected


@pytest.mark.parametrize("seed", [1 << 63, -(1 << 63) - 1])
def test_a_seed_that_no_generator_takes_is_refused(seed):
    with pytest.raises(BadInput, match="--seed: expected a whole number"):
        talk_options(f"--seed={seed}")
    assert talk_options("--seed=-5").seed == -5


def test_an_image_size_of_zero_is_no_default(root):
    pack = packs.official_pack()
    assert talk_options().resolve_image_size(pack) == pack.image_size
    assert talk_options("--img_size", "0").resolve_image_size(pack) == 0  # refused where the VAE is known
