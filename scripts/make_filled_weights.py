"""Make a complete tree of official weights with random values, for testing only: its output is noise.

    python scripts/make_filled_weights.py DIR [--tiny] [--seed 7] [--with recon parsing]

Every file of the official ``pretrained_models`` tree, in its own container, under its own names and in its full size
(5.7 GB, two minutes), so that loaders, memory and speed can be tried without the real weights. ``--tiny`` makes the
same tree with small networks (75 MB, seconds); the two networks that exist in one size only come with it when --with
names them. The face model is not random: see scripts/filled_weights/face_model.py.

dwpose/ is left out: nobody has listed its weights here, and a random pose network would find random faces.

A file that is there is never replaced, and a folder with weights of another origin is refused.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

if __name__ == "__main__" and not __package__:
    # Started by its path: Python searches for modules beside this file, but they are in the repository's root.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from utils.core import cli
from utils.core.errors import BadInput
from utils.core.options import Options, option, parse_options
from utils.weights import packs

MARKER_NAME = packs.FILLED_MARKER
MARKER_TEXT = """\
Random weights for testing only: every network in this folder generates noise.
Made by scripts/make_filled_weights.py, {size}, seed {seed}. Not from JoyGen, BFM or any other project.
"""
EXTRAS = ("recon", "parsing")  # networks without a small variant
SPARE_BYTES = 100_000_000  # to leave free on the disk


@dataclass(frozen=True, kw_only=True)
class TreeOptions(Options):
    """The tree to write."""

    dir: Path = option(positional=True, metavar="DIR", help="folder to fill, in place of pretrained_models")
    tiny: bool = option(False, help="small networks")
    seed: int = option(7, help="random seed of the weights (default: 7, as in tests/parity)")
    extras: tuple[Literal["recon", "parsing"], ...] = option(
        (), flag="with", help="parts to add to a --tiny tree, in their only size (a full tree has them)"
    )


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(TreeOptions, "Make a tree of official weights that holds random numbers.", arguments)
    start = time.perf_counter()
    marker = MARKER_TEXT.format(size="tiny" if options.tiny else "full size", seed=options.seed)
    require_own_folder(options.dir, marker)
    extras = options.extras if options.tiny else EXTRAS
    n_written, n_kept, n_bytes = make_tree(options.dir, marker, options.tiny, options.seed, extras)
    seconds = time.perf_counter() - start
    kept = f", {n_kept} were there and stay as they are" if n_kept else ""
    print(f"{options.dir}: {n_written} files of random weights, {n_bytes / 1e6:.0f} MB, {seconds:.0f} s{kept}")
    print("left out: dwpose/ (a random pose network would find random faces)")


def require_own_folder(directory: Path, marker: str) -> None:
    """The folder is absent, empty, or a tree that this script made with the same options."""
    marker_path = directory / MARKER_NAME
    if marker_path.is_file():
        found = marker_path.read_text(encoding="utf-8")
        if found != marker:
            advice = "choose another folder"
            raise BadInput("folder holds other random weights", directory, marker.splitlines()[1], found, advice)
    elif directory.is_dir() and any(directory.iterdir()):
        advice = "choose another folder: random weights are never mixed with real ones"
        raise BadInput(
            "folder holds files of another origin", directory, f"an empty folder or {MARKER_NAME}", "", advice
        )
    elif directory.exists() and not directory.is_dir():
        raise BadInput("not a folder", directory, "a folder to fill", "a file")


def make_tree(directory: Path, marker: str, tiny: bool, seed: int, extras: tuple[str, ...]) -> tuple[int, int, int]:
    """Write what is missing; returns how many files were written, how many were there, and the bytes of all."""
    from models.face3d.face_model import FaceModel
    from scripts.filled_weights import face_model, networks
    from scripts.filled_weights.rule import text_file

    files = [
        text_file(PurePosixPath(MARKER_NAME), marker),
        *face_model.face_model(tiny, seed),
        *networks.audio2motion(tiny, seed),
        *networks.hubert(tiny, seed),
        *networks.unet(tiny, seed),
        *networks.vae(tiny, seed),
        *networks.whisper(tiny, seed),
        *(networks.parsing(seed) if "parsing" in extras else []),
        *(networks.recon(seed) if "recon" in extras else []),
    ]
    missing = [file for file in files if not (directory / file.path).exists()]
    require_space(directory, sum(file.n_bytes for file in missing) + face_model.converted_bytes(tiny))
    for file in missing:
        file.write(directory / file.path)
    converted_path = directory / face_model.CONVERTED_PATH
    n_written = len(missing) + (not converted_path.exists())
    FaceModel.load(converted_path.parent)  # makes the converted model of the raw files
    paths = [directory / file.path for file in files] + [converted_path]
    return n_written, len(paths) - n_written, sum(path.stat().st_size for path in paths)


def require_space(directory: Path, n_bytes: int) -> None:
    nearest = next(folder for folder in (directory, *directory.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(nearest).free
    if free < n_bytes + SPARE_BYTES:
        expected = f"{(n_bytes + SPARE_BYTES) / 1e6:.0f} MB free"
        raise BadInput("disk too full", directory, expected, f"{free / 1e6:.0f} MB", "choose a folder on another disk")


if __name__ == "__main__":
    cli.run(main)
