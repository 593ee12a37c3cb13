"""The table of the official weights: completeness, agreement with the README, and advice by path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from utils.weights.official_files import GROUPS, OFFICIAL_FILES, OFFICIAL_ROOT, ByHand, fetch_command, missing_files

README = OFFICIAL_ROOT / "README.md"
A2M = "audio2motion/240210_real3dportrait_orig/audio2secc_vae"
JOYGEN_TREE = f"""
BFM/01_MorphableModel.mat BFM/BFM_exp_idx.mat BFM/BFM_front_idx.mat BFM/BFM_model_front.mat BFM/Exp_Pca.bin
BFM/facemodel_info.mat BFM/index_mp468_from_mesh35709.npy BFM/select_vertex_id.mat BFM/similarity_Lm3D_all.mat
BFM/std_exp.txt {A2M}/config.yaml {A2M}/model_ckpt_steps_400000.ckpt audio2motion/hubert/config.json
audio2motion/hubert/preprocessor_config.json audio2motion/hubert/pytorch_model.bin
audio2motion/hubert/special_tokens_map.json audio2motion/hubert/tokenizer_config.json audio2motion/hubert/vocab.json
joygen/config.json joygen/diffusion_pytorch_model.safetensors dwpose/default_runtime.py dwpose/dw-ll_ucoco_384.pth
dwpose/rtmpose-l_8xb32-270e_coco-ubody-wholebody-384x288.py face-parse-bisent/79999_iter.pth
face-parse-bisent/resnet18-5c106cde.pth face_recon_feat0.2_augment/epoch_20.pth sd-vae-ft-mse/config.json
sd-vae-ft-mse/diffusion_pytorch_model.safetensors whisper/tiny.pt
""".split()


def fill(root: Path, paths: list[str]) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"weights")


def test_table_holds_the_tree_of_the_reference_and_the_onnx_file():
    paths = [str(file.path) for file in OFFICIAL_FILES]
    assert sorted(paths) == sorted([*JOYGEN_TREE, "dwpose/dw-ll_ucoco_384.onnx"])
    assert set(GROUPS) == {"whisper", "hubert", "vae", "unet", "audio2motion", "bfm", "recon", "parsing", "dwpose"}


@pytest.mark.parametrize("file", OFFICIAL_FILES, ids=lambda file: str(file.path))
def test_rows_are_sound(file):
    assert file.sources
    assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{8}|[0-9a-f]{64}", file.sha256)
    assert file.used or not file.needed
    assert all(re.match(r"https://|config/", source.page) for source in file.sources)
    assert file.needed or file.note or isinstance(file.source, ByHand)


@pytest.mark.parametrize("file", OFFICIAL_FILES, ids=lambda file: str(file.path))
def test_readme_lists_the_same_file_source_and_checksum(file):
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if f"`{file.path}`" in line]
    (row,) = [row for row in rows if row.startswith("|") and "](" in row]
    assert row.startswith("| ● |") == file.needed
    assert f"]({file.source.page})" in row
    assert file.licence in row
    assert file.sha256 is None or any(f"`{file.sha256}" in line for line in rows)


def test_nothing_is_missing_from_a_complete_tree(tmp_path):
    assert len(missing_files(tmp_path)) == sum(file.needed for file in OFFICIAL_FILES)
    fill(tmp_path, [str(file.path) for file in OFFICIAL_FILES if file.needed])
    assert missing_files(tmp_path) == []
    assert not (tmp_path / "BFM/BFM_model_front.mat").exists()


@pytest.mark.parametrize(
    ("there", "served"),
    [
        ("sd-vae-ft-mse/diffusion_pytorch_model.bin", ["sd-vae-ft-mse/diffusion_pytorch_model.safetensors"]),
        ("joygen/diffusion_pytorch_model.bin", ["joygen/diffusion_pytorch_model.safetensors"]),
        ("audio2motion/hubert/model.safetensors", ["audio2motion/hubert/pytorch_model.bin"]),
        (f"{A2M}/model_ckpt_steps_410000.ckpt", [f"{A2M}/model_ckpt_steps_400000.ckpt"]),
        (
            "BFM/BFM_model_front.mat",
            [
                "BFM/01_MorphableModel.mat", "BFM/Exp_Pca.bin", "BFM/BFM_exp_idx.mat", "BFM/BFM_front_idx.mat",
                "BFM/facemodel_info.mat", "BFM/std_exp.txt",
            ],
        ),
    ],
)  # fmt: skip
def test_other_files_stand_in(tmp_path, there, served):
    before = {str(file.path) for file in missing_files(tmp_path)}
    fill(tmp_path, [there])
    after = {str(file.path) for file in missing_files(tmp_path)}
    assert before - after == set(served)


@pytest.mark.parametrize("file", OFFICIAL_FILES, ids=lambda file: str(file.path))
def test_command_of_every_file_and_its_folder(file):
    command = f"python scripts/download_models.py --only {file.group}"
    assert fetch_command(OFFICIAL_ROOT / file.path) == command
    assert fetch_command(Path("pretrained_models") / file.path) == command
    assert fetch_command(Path("/elsewhere") / file.path.parent.name / file.path.name) == command
    assert fetch_command(Path("/elsewhere") / file.path.parent.name) == command


@pytest.mark.parametrize(
    ("path", "groups"),
    [
        ("weights/79999_iter.pth", "parsing"),
        ("epoch_20.pth", "recon"),
        ("pretrained_models/joygen/diffusion_pytorch_model.bin", "unet"),
        ("pretrained_models/audio2motion", "hubert audio2motion"),
        ("./pretrained_models/BFM/another.mat", "bfm"),
    ],
)
def test_commands_of_other_names(path, groups):
    assert fetch_command(Path(path)) == f"python scripts/download_models.py --only {groups}"


@pytest.mark.parametrize(
    "path",
    [
        "config.json", "speech.wav", "weights/pytorch_model.bin", "checkpoints/config.yaml", "pretrained_models",
        "pretrained_models/mine/unet", "pretrained_models/mini/unet/config.json", "pretrained_models/mini/whisper",
    ],
)  # fmt: skip
def test_other_paths_have_no_command(path):
    assert fetch_command(Path(path)) is None
