"""Which weights serve a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from utils import packs
from utils.errors import BadInput


@pytest.fixture
def mini(tmp_path, monkeypatch) -> Path:
    """A mini pack with a record, and an official tree where nothing is yet."""
    root = tmp_path / "pretrained_models"
    mini_dir = root / "mini"
    mini_dir.mkdir(parents=True)
    (mini_dir / packs.PACK_RECORD).write_text(json.dumps({"version": "1.2", "image_size": 160}))
    official_pack, mini_pack = packs.official_pack, packs.mini_pack
    monkeypatch.setattr(packs, "official_pack", lambda: official_pack(root))
    monkeypatch.setattr(packs, "mini_pack", lambda: mini_pack(mini_dir))
    monkeypatch.setattr(packs, "MINI_DIR", mini_dir)
    return mini_dir


def fill(paths: list[Path]) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()
        else:
            path.mkdir()


def test_mini_pack_serves_without_the_official_tree(mini):
    pack = packs.resolve_pack()
    assert (pack.name, pack.image_size, pack.unet, pack.hubert) == ("mini 1.2", 160, mini / "unet", None)
    assert "pretrained_models/README.md" in packs.describe(pack)


def test_complete_official_tree_comes_first(mini):
    missing = packs.official_pack().missing()
    assert len(missing) == 6
    fill(missing[:-1])
    assert packs.resolve_pack().name == "mini 1.2"
    fill(missing[-1:])
    pack = packs.resolve_pack()
    assert pack == packs.official_pack()
    assert (pack.name, pack.image_size, pack.face_parsing) == ("official", 256, None)
    assert packs.describe(pack) == "weights: official"


def test_face_parsing_is_used_when_it_is_there(mini):
    path = mini.parent / "face-parse-bisent" / "79999_iter.pth"
    fill([path])
    assert packs.official_pack().face_parsing == path


def test_flags_replace_parts(mini, tmp_path):
    vae = tmp_path / "my vae"
    vae.mkdir()
    pack = packs.resolve_pack(vae=vae, unet=None)
    assert (pack.vae, pack.unet, pack.image_size) == (vae, mini / "unet", 160)
    assert pack.name == "mini 1.2, other vae"


def test_a_generator_from_elsewhere_draws_official_crops(mini, tmp_path):
    unet = tmp_path / "unet"
    fill([unet, mini / "unet"])
    assert packs.resolve_pack(unet=unet).image_size == 256
    assert packs.resolve_pack(unet=mini / "unet").image_size == 160


def test_missing_flag_values_and_unknown_parts(mini, tmp_path):
    with pytest.raises(BadInput, match=r"weights missing: vae .*nowhere.*expected a file or folder, found nothing"):
        packs.resolve_pack(vae=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no part called wings"):
        packs.resolve_pack(wings=tmp_path)


@pytest.mark.parametrize("record", [None, "", "[]", "3", '{"version": "1"}', '{"version": "1", "image_size": null}'])
def test_damaged_mini_pack(tmp_path, record):
    if record is not None:
        (tmp_path / packs.PACK_RECORD).write_text(record)
    with pytest.raises(BadInput, match=r"mini pack incomplete .*pack\.json.*restore"):
        packs.mini_pack(tmp_path)
