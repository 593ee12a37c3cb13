"""Choice of the weights of a run: the official tree, the embedded mini pack, or a mix named by flags."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from utils.core.errors import BadInput
from utils.weights.official_files import MINI_FOLDER, OFFICIAL_ROOT, fetch_advice, missing_files

OFFICIAL_DIR = OFFICIAL_ROOT
MINI_DIR = OFFICIAL_ROOT / MINI_FOLDER
PACK_RECORD = "pack.json"
REFINER_FOLDER = "refiner"  # beside the generator's
ADAPTATION_RECORD = "adaptation.json"
FILLED_MARKER = "FILLED_WEIGHTS.txt"  # scripts/make_filled_weights.py leaves it in a tree of random weights
OFFICIAL_IMAGE_SIZE = 256  # pixels
RECON_NAME, RECON_EPOCH = "face_recon_feat0.2_augment", "20"

# Parts trained together: if a flag replaces the first, the others come from the official tree.
_COMPANIONS = {
    "audio2motion": ("hubert",),
    "face_model": ("recon", "dwpose"),
    "unet": ("vae", "whisper", "face_parsing"),
}
_WITH_OTHER = " with other "
_N_NAMED_FILES = 3


@dataclass(frozen=True)
class Pack:
    """Paths of one set of weights; the name includes the parts replaced by flags.

    ``image_size``: side in pixels of the crops that the generator works on.
    """

    name: str
    image_size: int
    audio2motion: Path  # folder of config.yaml and model_ckpt_steps_*
    face_model: Path  # BFM folder or face_model.safetensors
    whisper: Path | None  # Whisper's container; None: the speech encoder of the installed wheel
    vae: Path  # diffusers folder
    unet: Path  # diffusers folder
    refiner: Path | None = None  # sharpens the generator's images; needs composed references
    hubert: Path | None = None  # Hugging Face folder, for an audio2motion network on HuBERT states
    recon: Path | None = None  # ResNet-50; without it coefficients are fitted to the landmarks
    dwpose: Path | None = None  # without it the 68 points come from MediaPipe's mesh
    face_parsing: Path | None = None  # BiSeNet; without it the blending mask comes from the landmarks


def official_pack(root: Path = OFFICIAL_DIR) -> Pack:
    """The tree that JoyGen's README describes."""
    return Pack(
        name="official",
        image_size=OFFICIAL_IMAGE_SIZE,
        audio2motion=root / "audio2motion" / "240210_real3dportrait_orig" / "audio2secc_vae",
        hubert=_if_present(root / "audio2motion" / "hubert"),
        face_model=root / "BFM",
        recon=_if_present(recon_path(root)),
        dwpose=_if_present(root / "dwpose" / "dw-ll_ucoco_384.onnx"),
        whisper=root / "whisper" / "tiny.pt",
        vae=root / "sd-vae-ft-mse",
        unet=root / "joygen",
        face_parsing=_if_present(root / "face-parse-bisent" / "79999_iter.pth"),
    )


def recon_path(checkpoints_dir: Path = OFFICIAL_DIR, name: str = RECON_NAME, epoch: str = RECON_EPOCH) -> Path:
    """Where Deep3DFaceRecon keeps a training's weights: <checkpoints_dir>/<name>/epoch_<epoch>.pth."""
    return checkpoints_dir / name / f"epoch_{epoch}.pth"


def mini_pack(root: Path = MINI_DIR) -> Pack:
    """The pack in the repository; raises BadInput if its record is missing or unreadable."""
    record_path = root / PACK_RECORD
    try:
        record = json.loads(record_path.read_text())
        name, image_size = f"mini {record['version']}", int(record["image_size"])
    except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        advice = "restore pretrained_models/mini from the repository"
        raise BadInput("mini pack incomplete", record_path, "version and image_size", str(error), advice) from error
    return Pack(
        name=name,
        image_size=image_size,
        audio2motion=root / "audio2motion",
        face_model=root / "face_model.safetensors",
        whisper=None,
        vae=root / "vae",
        unet=root / "unet",
        refiner=_if_present(root / REFINER_FOLDER),
    )


def agreement_model() -> Path:
    """Model of audio-visual agreement, which chooses the speaker with any pack; it comes with the mini pack."""
    return MINI_DIR / "av_agreement.safetensors"


def log_mel_agreement_model() -> Path:
    """The former model of audio-visual agreement, for comparison with older figures."""
    return MINI_DIR / "av_log_mel.safetensors"


def face_mesh() -> Path:
    """File of the triangles of MediaPipe's 468 landmarks (``tri``); it comes with the mini pack."""
    return MINI_DIR / "face_model.safetensors"


def resolve_pack(directory: Path | None = None, **overrides: Path | None) -> Pack:
    """The weights of ``directory``, with the parts that flags name.

    directory: an official tree or a mini pack; None: the official tree if it is complete, else the embedded mini pack.
    A replaced part brings its companions from the official tree, if they exist.
    ``overrides``: fields of Pack by name; None means not given. Raises BadInput for a named path that is not there.
    """
    given: dict[str, Any] = {name: path for name, path in overrides.items() if path is not None}
    unknown = set(given) - {field.name for field in fields(Pack)}
    if unknown:
        raise ValueError(f"a pack has no part called {', '.join(sorted(unknown))}")
    for name, path in given.items():
        if not (path.is_file() or path.is_dir()):
            found = "a pipe or device" if path.exists() else "nothing"  # reading those may never end
            raise BadInput(f"weights missing: {name}", path, "a file or folder", found, fetch_advice(path))
    official, record = official_pack(), read_adaptation(given["unet"]) if "unet" in given else None
    if directory is not None:
        pack = open_pack(directory)
    elif record is None:
        pack = mini_pack() if missing_files(OFFICIAL_DIR) else official
    else:
        pack = mini_pack() if record["base"] == MINI_FOLDER else official
    changed = {name: path for name, path in given.items() if not _is_same(path, getattr(pack, name))}
    if not changed:
        return pack
    if "unet" in changed:
        changed["refiner"] = _if_present(changed["unet"].parent / REFINER_FOLDER)
    if record is not None:
        return replace(pack, name=f"{pack.name} adapted to {record['clip']}", **changed)
    parts = _companions(changed, official) | changed
    if "unet" in parts and not _is_inside(parts["unet"], MINI_DIR):
        parts["image_size"] = OFFICIAL_IMAGE_SIZE
    return replace(pack, name=f"{pack.name}{_WITH_OTHER}{', '.join(sorted(given.keys() & changed))}", **parts)


def open_pack(directory: Path) -> Pack:
    """The pack in a folder: a mini pack if its record is there, else a complete official tree; else raises BadInput."""
    if (directory / PACK_RECORD).is_file():
        return mini_pack(directory)
    missing = [str(file.path) for file in missing_files(directory)]
    if missing:
        expected = f"{PACK_RECORD} of a mini pack, or the official tree of pretrained_models/README.md"
        found = f"no {', '.join(missing[:_N_NAMED_FILES])}{' and others' if len(missing) > _N_NAMED_FILES else ''}"
        raise BadInput("folder of weights incomplete", directory, expected, found, fetch_advice(OFFICIAL_DIR))
    return official_pack(directory)


def read_adaptation(unet_dir: Path) -> dict[str, str] | None:
    """Record of adapt.py beside a generator: ``base`` (mini or official) and ``clip``; None for any other folder."""
    path = unet_dir.parent / ADAPTATION_RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {name: str(record[name]) for name in ("base", "clip")}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise BadInput("unreadable record of an adaptation", path, "base and clip", str(error)) from error


def _companions(changed: dict[str, Path], official: Pack) -> dict[str, Any]:
    """Companions of the changed parts that exist in the official tree."""
    names = [
        companion
        for name, companions in _COMPANIONS.items()
        if name in changed and not _is_inside(changed[name], MINI_DIR)
        for companion in companions
    ]
    found = {name: getattr(official, name) for name in names}
    return {name: path for name, path in found.items() if path is not None and path.exists()}


def describe(pack: Pack) -> str:
    """One line for the user: the weights in use, and how to get the others."""
    if not pack.name.startswith("mini") or _WITH_OTHER in pack.name:
        roots = (pack.face_model.parent, pack.unet.parent)
        is_filled = pack.name.startswith("official") and any((root / FILLED_MARKER).is_file() for root in roots)
        return f"weights: {pack.name}" + (
            f"; random numbers, they generate noise (see {FILLED_MARKER})" if is_filled else ""
        )
    missing = missing_files(OFFICIAL_DIR)
    if official_is_begun():
        names = ", ".join(str(file.path) for file in missing[:_N_NAMED_FILES])
        more = f" and {len(missing) - _N_NAMED_FILES} more" if len(missing) > _N_NAMED_FILES else ""
        lack = f"the official tree lacks {names}{more}; python scripts/download_models.py fetches it"
    else:
        lack = "python scripts/download_models.py fetches the official ones"
    return f"weights: {pack.name} pack (embedded, small); {lack}"


def official_is_begun() -> bool:
    """Whether some of the official networks exist."""
    official = official_pack()
    return any(path.exists() for path in (official.unet, official.vae, official.audio2motion, official.face_model))


def _if_present(path: Path) -> Path | None:
    return path if path.exists() else None


def _is_same(path: Path, other: Path | None) -> bool:
    return other is not None and path.resolve() == other.resolve()


def _is_inside(path: Path, directory: Path) -> bool:
    return directory.resolve() in (path.resolve(), *path.resolve().parents)
