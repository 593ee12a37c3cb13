"""The flags of stage 2 and of the data preparation, which find, reconstruct and draw the same faces."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from utils.core import cli
from utils.core.errors import BadInput
from utils.weights import packs
from utils.weights.official_files import fetch_advice

RECON_CHOICES = ("auto", "net", "fit")
SMOOTHING_CHOICES = ("none", "box", "all")
_UPSTREAM_ONLY = "taken for the original's command lines"


def add_face_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags keep the original's names where it has them."""
    parser.add_argument("--bfm_folder", type=Path, help="BFM folder or face_model.safetensors (default: the pack's)")
    parser.add_argument(
        "--recon",
        choices=RECON_CHOICES,
        default="auto",
        help="coefficients from the image by ResNet-50 (net) or fitted to landmarks (fit); auto: net if it is there",
    )
    parser.add_argument("--checkpoints_dir", type=Path, help="ResNet-50 is <checkpoints_dir>/<name>/epoch_<epoch>.pth")
    parser.add_argument("--name", help=f"of the ResNet-50's training (default {packs.RECON_NAME})")
    parser.add_argument("--epoch", help=f"of the ResNet-50's training (default {packs.RECON_EPOCH})")
    parser.add_argument(
        "--use_opengl", type=cli.str_to_bool, default=False, help="nvdiffrast draws with OpenGL instead of CUDA"
    )
    parser.add_argument(
        "--dwpose_model_path", type=Path, help="DWPose .onnx that finds the 68 points (default: MediaPipe finds them)"
    )
    parser.add_argument("--dwpose_config_file", type=Path, help=f"{_UPSTREAM_ONLY}; an .onnx needs none")
    parser.add_argument("--whisper_model_path", type=Path, help=f"{_UPSTREAM_ONLY}; the training opens Whisper itself")
    parser.add_argument(
        "--smoothing",
        choices=SMOOTHING_CHOICES,
        help="steady over time: nothing, the crop box (default), or the landmarks too",
    )
    parser.add_argument("--faithful", action="store_true", help="upstream's behaviour in every point of FIDELITY.md")
    cli.add_device_argument(parser)


def smoothing_of(options: argparse.Namespace) -> str:
    return options.smoothing or ("none" if options.faithful else "box")


def resolve_face_pack(options: argparse.Namespace) -> packs.Pack:
    """The weights that the flags name; ``recon`` is None where coefficients are to be fitted to landmarks.

    ``dwpose`` is None unless a flag names it, or --faithful asks for it and the pack has it.

    Raises BadInput if a named file is not there, or if --recon net has nothing to work with.
    """
    named_recon = _named_recon(options)
    pack = packs.resolve_pack(face_model=options.bfm_folder, recon=named_recon, dwpose=_named_dwpose(options))
    if options.dwpose_model_path is None and not options.faithful:
        pack = replace(pack, dwpose=None)
    is_mini_face = pack.face_model.is_file() and options.recon == "auto" and named_recon is None
    if options.recon == "fit" or is_mini_face:
        return replace(pack, recon=None)
    if options.recon == "net" and pack.recon is None:
        path = packs.recon_path()
        raise BadInput("weights missing: recon", path, "a file", "nothing", fetch_advice(path))
    return pack


def _named_dwpose(options: argparse.Namespace) -> Path | None:
    """The .onnx beside a .pth that is named, as the original's command lines do."""
    named: Path | None = options.dwpose_model_path
    if named is not None and named.suffix == ".pth" and named.with_suffix(".onnx").is_file():
        return named.with_suffix(".onnx")
    return named


def _named_recon(options: argparse.Namespace) -> Path | None:
    """The ResNet-50 that the flags name, None if they name none or landmarks are to be fitted anyway."""
    named = (options.checkpoints_dir, options.name, options.epoch)
    if options.recon == "fit" or named == (None, None, None):
        return None
    return packs.recon_path(
        options.checkpoints_dir or packs.OFFICIAL_DIR,
        options.name or packs.RECON_NAME,
        options.epoch or packs.RECON_EPOCH,
    )
