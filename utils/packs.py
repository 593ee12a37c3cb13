"""Which weights serve a run: the official tree, the embedded mini pack, or a mix named by flags."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from utils.errors import BadInput

REPOSITORY_DIR = Path(__file__).resolve().parent.parent
OFFICIAL_DIR = REPOSITORY_DIR / "pretrained_models"
MINI_DIR = OFFICIAL_DIR / "mini"
PACK_RECORD = "pack.json"
OFFICIAL_IMAGE_SIZE = 256  # pixels
_ADVICE = "see pretrained_models/README.md for where the official weights come from"


@dataclass(frozen=True)
class Pack:
    """Paths of one set of weights; the name tells which parts flags replaced.

    ``image_size``: side in pixels of the crops that the generator works on.
    """

    name: str
    image_size: int
    audio2motion: Path  # folder of config.yaml and model_ckpt_steps_*
    face_model: Path  # BFM folder or face_model.safetensors
    whisper: Path  # Whisper's container
    vae: Path  # diffusers folder
    unet: Path  # diffusers folder
    hubert: Path | None = None
    face_parsing: Path | None = None  # BiSeNet; without it the blending mask comes from the landmarks

    def missing(self) -> list[Path]:
        """Files and folders of this pack that are not there; BiSeNet is optional."""
        needed = [self.audio2motion, self.face_model, self.whisper, self.vae, self.unet, self.hubert]
        return [path for path in needed if path is not None and not path.exists()]


def official_pack(root: Path = OFFICIAL_DIR) -> Pack:
    """The tree that JoyGen's README describes."""
    return Pack(
        name="official",
        image_size=OFFICIAL_IMAGE_SIZE,
        audio2motion=root / "audio2motion" / "240210_real3dportrait_orig" / "audio2secc_vae",
        hubert=root / "audio2motion" / "hubert",
        face_model=root / "BFM",
        whisper=root / "whisper" / "tiny.pt",
        vae=root / "sd-vae-ft-mse",
        unet=root / "joygen",
        face_parsing=_if_present(root / "face-parse-bisent" / "79999_iter.pth"),
    )


def mini_pack(root: Path = MINI_DIR) -> Pack:
    """The pack that comes with the repository; raises BadInput if its record is missing or unreadable."""
    record_path = root / PACK_RECORD
    try:
        record = json.loads(record_path.read_text())
        name, image_size = f"mini {record['version']}", int(record["image_size"])
    except (OSError, LookupError, TypeError, ValueError) as error:
        advice = "restore pretrained_models/mini from the repository"
        raise BadInput("mini pack incomplete", record_path, "version and image_size", str(error), advice) from error
    return Pack(
        name=name,
        image_size=image_size,
        audio2motion=root / "audio2motion",
        face_model=root / "face_model.safetensors",
        whisper=root / "whisper" / "mini.pt",
        vae=root / "vae",
        unet=root / "unet",
    )


def resolve_pack(**overrides: Path | None) -> Pack:
    """The official tree if it is complete, else the mini pack, with the parts that flags name put in place.

    ``overrides``: fields of Pack by name; None means not given. Raises BadInput for a named path that is not there.
    """
    given: dict[str, Any] = {name: path for name, path in overrides.items() if path is not None}
    unknown = set(given) - {field.name for field in fields(Pack)}
    if unknown:
        raise ValueError(f"a pack has no part called {', '.join(sorted(unknown))}")
    for name, path in given.items():
        if not path.exists():
            raise BadInput(f"weights missing: {name}", path, "a file or folder", "nothing", _ADVICE)
    official = official_pack()
    pack = mini_pack() if official.missing() else official
    if "unet" in given and not _is_inside(given["unet"], MINI_DIR):
        pack = replace(pack, image_size=OFFICIAL_IMAGE_SIZE, face_parsing=official.face_parsing)
    if given:
        pack = replace(pack, name=f"{pack.name}, other {', '.join(sorted(given))}")
    return replace(pack, **given)


def describe(pack: Pack) -> str:
    """One line for the user: which weights serve, and how to get the others."""
    if pack.name.startswith("mini"):
        return f"weights: {pack.name} pack (embedded, small); for the official ones see pretrained_models/README.md"
    return f"weights: {pack.name}"


def _if_present(path: Path) -> Path | None:
    return path if path.exists() else None


def _is_inside(path: Path, directory: Path) -> bool:
    return directory.resolve() in (path.resolve(), *path.resolve().parents)
