"""Choice of the weights of a run."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from utils.core.errors import BadInput
from utils.weights import packs
from utils.weights.official_files import missing_files


@pytest.fixture
def mini(tmp_path, monkeypatch) -> Path:
    """A mini pack with a record, and an empty official tree."""
    root = tmp_path / "pretrained_models"
    mini_dir = root / "mini"
    mini_dir.mkdir(parents=True)
    (mini_dir / packs.PACK_RECORD).write_text(json.dumps({"version": "1.2", "image_size": 160}))
    official_pack, mini_pack = packs.official_pack, packs.mini_pack
    monkeypatch.setattr(packs, "official_pack", lambda: official_pack(root))
    monkeypatch.setattr(packs, "mini_pack", lambda: mini_pack(mini_dir))
    monkeypatch.setattr(packs, "MINI_DIR", mini_dir)
    monkeypatch.setattr(packs, "OFFICIAL_DIR", root)
    return mini_dir


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_mini_pack_serves_without_the_official_tree(mini):
    pack = packs.resolve_pack()
    assert (pack.name, pack.image_size, pack.unet) == ("mini 1.2", 160, mini / "unet")
    assert (pack.hubert, pack.recon, pack.dwpose, pack.face_parsing) == (None, None, None, None)
    assert packs.describe(pack).endswith("python scripts/download_models.py fetches the official ones")


def test_complete_official_tree_comes_first(mini):
    root = mini.parent
    missing = missing_files(root)
    put(*(root / file.path for file in missing[:-1]))
    pack = packs.resolve_pack()
    assert pack.name == "mini 1.2"
    assert f"the official tree lacks {missing[-1].path}; python scripts/download_models.py" in packs.describe(pack)
    put(root / missing[-1].path)
    pack = packs.resolve_pack()
    assert pack == packs.official_pack()
    assert (pack.name, pack.image_size, pack.hubert) == ("official", 256, root / "audio2motion" / "hubert")
    assert (pack.recon, pack.dwpose, pack.face_parsing) == (None, None, None)
    assert packs.describe(pack) == "weights: official"


def test_a_tree_of_random_weights_says_so_wherever_it_is(mini, tmp_path):
    root = tmp_path / "elsewhere"
    put(*(root / file.path for file in missing_files(root)))
    pack = dataclasses.replace(packs.official_pack(), face_model=root / "BFM", unet=root / "joygen")
    assert packs.describe(pack) == "weights: official"
    put(root / packs.FILLED_MARKER)
    assert "random numbers" in packs.describe(pack)


def test_optional_parts_are_used_when_they_are_there(mini):
    parts = {
        "face_parsing": mini.parent / "face-parse-bisent" / "79999_iter.pth",
        "recon": mini.parent / "face_recon_feat0.2_augment" / "epoch_20.pth",
        "dwpose": mini.parent / "dwpose" / "dw-ll_ucoco_384.onnx",
    }
    put(*parts.values())
    pack = packs.official_pack()
    assert {name: getattr(pack, name) for name in parts} == parts


def test_flags_replace_parts(mini, tmp_path):
    vae = tmp_path / "my vae"
    vae.mkdir()
    pack = packs.resolve_pack(vae=vae, unet=None)
    assert (pack.vae, pack.unet, pack.image_size) == (vae, mini / "unet", 160)
    assert pack.name == "mini 1.2 with other vae"
    assert packs.describe(pack) == "weights: mini 1.2 with other vae"


def test_flags_that_name_what_serves_anyway_change_nothing(mini, monkeypatch):
    put(mini / "unet" / "config.json")
    monkeypatch.chdir(mini)
    assert packs.resolve_pack(unet=Path("./unet")) == packs.resolve_pack()


def test_a_generator_from_elsewhere_brings_what_belongs_to_it(mini, tmp_path):
    root = mini.parent
    put(tmp_path / "unet" / "config.json", mini / "unet" / "config.json", root / "whisper" / "tiny.pt")
    pack = packs.resolve_pack(unet=tmp_path / "unet")
    assert (pack.image_size, pack.whisper, pack.vae) == (256, root / "whisper" / "tiny.pt", mini / "vae")
    assert (pack.audio2motion, pack.face_model) == (mini / "audio2motion", mini / "face_model.safetensors")
    assert packs.resolve_pack(unet=mini / "unet").image_size == 160


def test_a_refiner_lies_beside_its_generator(mini, tmp_path):
    put(tmp_path / "unet" / "config.json", mini / "refiner" / "config.json")
    assert packs.resolve_pack().refiner == mini / "refiner"
    assert packs.resolve_pack(unet=tmp_path / "unet").refiner is None
    put(tmp_path / "refiner" / "config.json")
    pack = packs.resolve_pack(unet=tmp_path / "unet")
    assert pack.refiner == tmp_path / "refiner"
    assert pack.name == "mini 1.2 with other unet"


def test_a_face_model_from_elsewhere_brings_its_coefficient_network(mini, tmp_path):
    recon = mini.parent / "face_recon_feat0.2_augment" / "epoch_20.pth"
    put(recon, tmp_path / "BFM" / "BFM_model_front.mat")
    assert packs.resolve_pack().recon is None
    assert packs.resolve_pack(face_model=tmp_path / "BFM").recon == recon


def test_missing_flag_values_and_unknown_parts(mini, tmp_path):
    with pytest.raises(
        BadInput, match=r"weights missing: vae .*nowhere.*expected a file or folder, found nothing; get"
    ):
        packs.resolve_pack(vae=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no part called wings"):
        packs.resolve_pack(wings=tmp_path)


def test_pipes_and_devices_are_no_weights(mini, tmp_path):
    """Opening them would block or never end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(BadInput, match="expected a file or folder, found a pipe or device"):
            packs.resolve_pack(whisper=tmp_path / name)


@pytest.mark.parametrize("record", [None, "", "[]", "3", '{"version": "1"}', '{"version": "1", "image_size": null}'])
def test_damaged_mini_pack(tmp_path, record):
    if record is not None:
        (tmp_path / packs.PACK_RECORD).write_text(record)
    with pytest.raises(BadInput, match=r"mini pack incomplete .*pack\.json.*restore"):
        packs.mini_pack(tmp_path)
