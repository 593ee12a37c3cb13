"""The networks of the official tree: filled key lists in the containers and under the names of the published files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from scripts.filled_weights.rule import Shapes, TreeFile, filled, json_file, manifest, n_bytes, text_file
from utils.weights.checkpoints import half_precision, save_checkpoint, save_weights

AUDIO2MOTION_DIR = PurePosixPath("audio2motion/240210_real3dportrait_orig/audio2secc_vae")
HUBERT_DIR = PurePosixPath("audio2motion/hubert")
UNET_DIR = PurePosixPath("joygen")
VAE_DIR = PurePosixPath("sd-vae-ft-mse")
PARSING_DIR = PurePosixPath("face-parse-bisent")
RECON_PATH = PurePosixPath("face_recon_feat0.2_augment/epoch_20.pth")
WHISPER_PATH = PurePosixPath("whisper/tiny.pt")
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"

N_LETTERS = 32  # outputs of HuBERT's speech recogniser
LETTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
N_IMAGENET_CLASSES = 1000
# A Whisper of the official width, which the UNet's cross-attention needs, and little else.
TINY_WHISPER = {"n_audio_ctx": 150, "n_audio_layer": 1, "n_vocab": 64, "n_text_ctx": 8, "n_text_layer": 1}
AUDIO2MOTION_CONFIG = """\
audio_type: hubert
use_pitch: true
use_mouth_amp_embed: true
use_eye_amp_embed: false
"""


def audio2motion(tiny: bool, seed: int) -> list[TreeFile]:
    """Nested as Lightning-style trainers save: {"state_dict": {"model": weights}} beside the state of the training."""
    shapes = manifest("a2m_pitch_tiny64" if tiny else "a2m_pitch")["keys"]

    def content(state: dict[str, Tensor]) -> dict[str, Any]:
        return {"epoch": 0, "global_step": 400_000, "optimizer_states": [], "state_dict": {"model": state}}

    return [
        text_file(AUDIO2MOTION_DIR / "config.yaml", AUDIO2MOTION_CONFIG),
        torch_file(AUDIO2MOTION_DIR / "model_ckpt_steps_400000.ckpt", shapes, seed, content),
    ]


def hubert(tiny: bool, seed: int) -> list[TreeFile]:
    """A Hugging Face folder of the whole speech recogniser: the network under "hubert." and the letters' head."""
    described = manifest("hubert_tiny" if tiny else "hubert_large_ls960_ft")
    config = described["config"] | {"architectures": ["HubertForCTC"]}
    head = {"lm_head.weight": [N_LETTERS, config["hidden_size"]], "lm_head.bias": [N_LETTERS]}
    shapes = described["keys"] | {name: {"shape": shape, "dtype": "float32"} for name, shape in head.items()}

    def content(state: dict[str, Tensor]) -> dict[str, Any]:
        return {name if name in head else f"hubert.{name}": value for name, value in state.items()}

    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": True,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0,
        "return_attention_mask": True,
        "sampling_rate": 16000,
    }
    return [
        json_file(HUBERT_DIR / "config.json", config),
        json_file(HUBERT_DIR / "preprocessor_config.json", preprocessor),
        torch_file(HUBERT_DIR / "pytorch_model.bin", shapes, seed, content),
        json_file(HUBERT_DIR / "special_tokens_map.json", SPECIAL_TOKENS),
        json_file(HUBERT_DIR / "tokenizer_config.json", SPECIAL_TOKENS | {"word_delimiter_token": "|"}),
        json_file(HUBERT_DIR / "vocab.json", {letter: number for number, letter in enumerate(LETTERS)}),
    ]


def unet(tiny: bool, seed: int) -> list[TreeFile]:
    described = manifest("unet_tiny" if tiny else "unet_joygen")
    config = {"_class_name": "UNet2DConditionModel"} | described["config"]
    return [
        json_file(UNET_DIR / "config.json", config),
        safetensors_file(UNET_DIR / WEIGHTS_NAME, described["keys"], seed),
    ]


def vae(tiny: bool, seed: int) -> list[TreeFile]:
    """As the published folder: old names in the attention, and a config that leaves the scaling factor out."""
    official = manifest("sd_vae_ft_mse")
    described = manifest("vae_tiny") if tiny else official
    config = {"_class_name": "AutoencoderKL"} | described.get("config", FULL_VAE)
    config.pop("scaling_factor", None)

    def old_name(name: str) -> str:
        if ".attentions." not in name:
            return name
        for new, old in official["old_names"].items():
            name = re.sub(rf"\.{re.escape(new)}\.(weight|bias)$", rf".{old}.\1", name)
        return name

    return [
        json_file(VAE_DIR / "config.json", config),
        safetensors_file(VAE_DIR / WEIGHTS_NAME, described["keys"], seed, old_name),
    ]


FULL_VAE = {
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 256,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}


def whisper(tiny: bool, seed: int) -> list[TreeFile]:
    """OpenAI's container, in half precision as they publish it."""
    described = manifest("whisper_tiny")
    dims, shapes = described["dims"], described["keys"]
    if tiny:
        dims = dims | TINY_WHISPER
        resized = {
            "encoder.positional_embedding": [dims["n_audio_ctx"], dims["n_audio_state"]],
            "decoder.positional_embedding": [dims["n_text_ctx"], dims["n_text_state"]],
            "decoder.token_embedding.weight": [dims["n_vocab"], dims["n_text_state"]],
        }
        shapes = {
            name: entry | {"shape": resized.get(name, entry["shape"])}
            for name, entry in shapes.items()
            if not re.search(r"\.blocks\.[1-9]", name)
        }

    def content(state: dict[str, Tensor]) -> dict[str, Any]:
        return {"dims": dims, "model_state_dict": half_precision(state)}

    return [torch_file(WHISPER_PATH, shapes, seed, content)]


def parsing(seed: int) -> list[TreeFile]:
    """BiSeNet, and the ResNet-18 that its training started from (nothing here reads that)."""
    shapes = manifest("bisenet")["keys"]
    prefix = "cp.resnet."
    backbone = {
        name.removeprefix(prefix): entry
        for name, entry in shapes.items()
        if name.startswith(prefix) and not name.endswith("num_batches_tracked")
    }
    width = backbone["layer4.1.conv2.weight"]["shape"][0]
    backbone |= {
        "fc.weight": {"shape": [N_IMAGENET_CLASSES, width], "dtype": "float32"},
        "fc.bias": {"shape": [N_IMAGENET_CLASSES], "dtype": "float32"},
    }
    return [
        torch_file(PARSING_DIR / "79999_iter.pth", shapes, seed),
        torch_file(PARSING_DIR / "resnet18-5c106cde.pth", backbone, seed),
    ]


def recon(seed: int) -> list[TreeFile]:
    """The reconstruction network with the state of its optimizer and schedule, as its training saves it."""

    def content(state: dict[str, Tensor]) -> dict[str, Any]:
        optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.2)
        return {"net_recon": state, "opt_00": optimizer.state_dict(), "sched_00": scheduler.state_dict()}

    return [torch_file(RECON_PATH, manifest("deep3d_recon_resnet50")["keys"], seed, content)]


def torch_file(
    path: PurePosixPath,
    shapes: Shapes,
    seed: int,
    content: Callable[[dict[str, Tensor]], Mapping[str, Any]] = dict,
) -> TreeFile:
    """A torch.save file with the result of ``content(filled weights)``."""
    return TreeFile(
        path, n_bytes(shapes), lambda target: save_checkpoint(target, content(filled(shapes, seed, path.name)))
    )


def safetensors_file(
    path: PurePosixPath, shapes: Shapes, seed: int, rename: Callable[[str], str] = lambda name: name
) -> TreeFile:
    """A .safetensors file whose keys are ``rename(key of the rule)``."""

    def write(target: Path) -> None:
        state = filled(shapes, seed, f"{path.parent.name} weights")
        save_weights(target, {rename(name): value for name, value in state.items()})

    return TreeFile(path, n_bytes(shapes), write)
