"""Which weights the flags of stage 2 and of the data preparation ask for."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from utils.core.errors import BadInput
from utils.weights import packs
from utils.weights.face_options import add_face_arguments, resolve_face_pack, smoothing_of
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
    monkeypatch.setattr(packs, "official_pack", lambda: official_pack(root))
    monkeypatch.setattr(packs, "mini_pack", lambda: mini_pack(root / "mini"))
    monkeypatch.setattr(packs, "MINI_DIR", root / "mini")
    monkeypatch.setattr(packs, "OFFICIAL_DIR", root)
    return root


def options_of(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_face_arguments(parser)
    return parser.parse_args(arguments)


def pack_of(*arguments: str) -> packs.Pack:
    return resolve_face_pack(options_of(*arguments))


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
    assert smoothing_of(options_of()) == "box"
    assert smoothing_of(options_of("--faithful")) == "none"
    assert smoothing_of(options_of("--faithful", "--smoothing", "all")) == "all"
