"""Files of the official weights tree: purpose, sources, hashes, licences.

scripts/download_models.py works from this table, error messages take their advice from it, and
pretrained_models/README.md lists the same files.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

OFFICIAL_ROOT = Path(__file__).resolve().parents[2] / "pretrained_models"
MINI_FOLDER = "mini"  # the embedded pack beside the official tree
COMMAND = "python scripts/download_models.py"


@dataclass(frozen=True)
class Url:
    """A file at a plain address."""

    url: str

    @property
    def page(self) -> str:
        return self.url


@dataclass(frozen=True)
class Hub:
    """A file of a repository on the Hugging Face hub."""

    repository: str
    filename: str

    @property
    def page(self) -> str:
        return f"https://huggingface.co/{self.repository}"


@dataclass(frozen=True)
class Drive:
    """A file on Google Drive; ``packed``: an archive that holds the wanted file."""

    file_id: str
    packed: bool = False

    @property
    def page(self) -> str:
        return f"https://drive.google.com/file/d/{self.file_id}"


@dataclass(frozen=True)
class DriveFolder:
    """A file in a Google Drive folder, found there by its name."""

    folder_id: str

    @property
    def page(self) -> str:
        return f"https://drive.google.com/drive/folders/{self.folder_id}"


@dataclass(frozen=True)
class Copy:
    """A copy of a file of this repository, to complete a folder whose weights are there."""

    path: str

    @property
    def page(self) -> str:
        return self.path


@dataclass(frozen=True)
class ByHand:
    """A file that no program may fetch; ``how``: instructions for the user."""

    page: str
    how: str


Source = Url | Hub | Drive | DriveFolder | Copy | ByHand


@dataclass(frozen=True)
class OfficialFile:
    """One file of the tree.

    ``path``: below pretrained_models/. ``sources``: tried in this order. ``sha256``: as published, hexadecimal, whole
    or its first digits. ``size``: bytes, as published. ``needed``: the pipeline cannot run without it, unless one of
    ``unless`` (paths, may hold *) stands in for it. ``used``: False for files that JoyGen lists and nothing here reads.
    """

    path: PurePosixPath
    group: str
    sources: tuple[Source, ...]
    licence: str
    sha256: str | None = None
    size: int | None = None
    needed: bool = False
    used: bool = True
    unless: tuple[str, ...] = ()
    note: str = ""

    @property
    def source(self) -> Source:
        return self.sources[0]


# JoyGen's README: the whole tree as one archive of about 5 GB, and its own network alone.
JOYGEN_ARCHIVE = Drive("1kvGsljFRnXKUK_ETdd49jJy8DbdgZKkE", packed=True)
_JOYGEN_UNET = "1D5-rU70kvi_PNI_YPvWwNFDEJ-nobzLN"
# Real3DPortrait's inference/real3dportrait_demo.ipynb: one archive, and the BFM files one by one.
_REAL3D_ARCHIVE = Drive("1gSUIw2AkkKnlLJnNfS2FCqtaVw9tw3QF", packed=True)
_REAL3D_BFM = {
    "BFM_exp_idx.mat": "1MSldX9UChKEb3AXLVTPzZQcsbGD4VmGF",
    "BFM_front_idx.mat": "180ciTvm16peWrcpl4DOekT9eUQ-lJfMU",
    "Exp_Pca.bin": "19-NyZn_I0_mkF-F5GPyFMwQJ_-WecZIL",
    "facemodel_info.mat": "11ouQ7Wr2I-JKStp2Fd1afedmWeuifhof",
    "index_mp468_from_mesh35709.npy": "18ICIvQoKX-7feYWP61RbpppzDuYTptCq",
    "std_exp.txt": "1VktuY46m0v_n_d4nvOupauJkK4LF6mHE",
}
# Deep3DFaceRecon_pytorch's README and its folder BFM/.
_DEEP3D_EXPRESSIONS = "1bw5Xf8C12pWmcMhNEu6PtsYVZkVucEN6"
_DEEP3D_CHECKPOINTS = "1liaIxn9smpudjjqMaWWRpP0mXRW_qRPP"
_DEEP3D_BFM = "https://raw.githubusercontent.com/sicxu/Deep3DFaceRecon_pytorch/master/BFM"
_BISENET = "154JgKpzCPW82qINcVieuPH3fZ2e0P812"  # face-parsing.PyTorch's README
_WHISPER_SHA256 = "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9"  # in OpenAI's address
_BFM_2009 = ByHand(
    "https://faces.dmi.unibas.ch/bfm/",
    "ask the University of Basel for the Basel Face Model 2009; 01_MorphableModel.mat is in the archive they send",
)
_BFM_BUILT = ByHand(
    "https://faces.dmi.unibas.ch/bfm/",
    "made from the six files below on first use; JoyGen's archive holds it too, under the same licence",
)
_BFM_LICENCE = "Basel Face Model: non-commercial, each user asks for it"


def _audio2motion(name: str, unless: tuple[str, ...] = ()) -> OfficialFile:
    path = PurePosixPath("audio2motion/240210_real3dportrait_orig/audio2secc_vae", name)
    return OfficialFile(path, "audio2motion", (_REAL3D_ARCHIVE,), "MIT", needed=True, unless=unless)


def _hubert(name: str, needed: bool = False, unless: tuple[str, ...] = ()) -> OfficialFile:
    path, source = PurePosixPath("audio2motion/hubert", name), (Hub("facebook/hubert-large-ls960-ft", name),)
    note = "" if needed else "of the tokenizer; nothing here reads it"
    return OfficialFile(path, "hubert", source, "Apache-2.0", needed=needed, used=needed, unless=unless, note=note)


def _bfm(name: str, sources: tuple[Source, ...], licence: str, is_raw: bool = True) -> OfficialFile:
    unless, note = (("BFM/BFM_model_front.mat",), "for BFM_model_front.mat") if is_raw else ((), "")
    return OfficialFile(PurePosixPath("BFM", name), "bfm", sources, licence, needed=True, unless=unless, note=note)


def _deep3d(name: str) -> tuple[Source, ...]:
    return Url(f"{_DEEP3D_BFM}/{name}"), *(Drive(file_id) for key, file_id in _REAL3D_BFM.items() if key == name)


def _vae(name: str, unless: tuple[str, ...] = ()) -> OfficialFile:
    source = Hub("stabilityai/sd-vae-ft-mse", name)
    return OfficialFile(PurePosixPath("sd-vae-ft-mse", name), "vae", (source,), "MIT", needed=True, unless=unless)


def _dwpose(name: str, source: Source, **known: str | int) -> OfficialFile:
    path, is_used = PurePosixPath("dwpose", name), name.endswith(".onnx")
    note = "optional: DWPose's face points instead of MediaPipe's" if is_used else "for mmpose; nothing here reads it"
    return OfficialFile(path, "dwpose", (source,), "Apache-2.0", used=is_used, note=note, **known)  # type: ignore[arg-type]


_WEIGHTS = "diffusion_pytorch_model"
_DWPOSE_CODE = "https://github.com/IDEA-Research/DWPose"
_DWPOSE_CONFIG = ByHand(_DWPOSE_CODE, "a file of DWPose's repository; JoyGen's archive holds it too")

OFFICIAL_FILES: tuple[OfficialFile, ...] = (
    OfficialFile(
        PurePosixPath("whisper/tiny.pt"), "whisper",
        (Url(f"https://openaipublic.azureedge.net/main/whisper/models/{_WHISPER_SHA256}/tiny.pt"),),
        "MIT", sha256=_WHISPER_SHA256, needed=True,
    ),
    _hubert("config.json", needed=True),
    _hubert("preprocessor_config.json", needed=True),
    _hubert("pytorch_model.bin", needed=True, unless=("audio2motion/hubert/model.safetensors",)),
    _hubert("special_tokens_map.json"),
    _hubert("tokenizer_config.json"),
    _hubert("vocab.json"),
    _vae("config.json"),
    _vae(f"{_WEIGHTS}.safetensors", unless=(f"sd-vae-ft-mse/{_WEIGHTS}.bin",)),
    OfficialFile(
        PurePosixPath(f"joygen/{_WEIGHTS}.safetensors"), "unet", (Drive(_JOYGEN_UNET),),
        "see JoyGen", needed=True, unless=(f"joygen/{_WEIGHTS}.bin",),
    ),
    OfficialFile(
        PurePosixPath("joygen/config.json"), "unet", (Drive(_JOYGEN_UNET, packed=True), Copy("config/unet.json")),
        "see JoyGen", needed=True,
    ),
    _audio2motion("config.yaml"),
    _audio2motion(
        "model_ckpt_steps_400000.ckpt",
        unless=("audio2motion/240210_real3dportrait_orig/audio2secc_vae/model_ckpt_steps_*",),
    ),
    OfficialFile(
        PurePosixPath("BFM/BFM_model_front.mat"), "bfm", (_BFM_BUILT,), _BFM_LICENCE,
        note="made from the six files below",
    ),
    _bfm("01_MorphableModel.mat", (_BFM_2009,), _BFM_LICENCE),
    _bfm("Exp_Pca.bin", (Drive(_DEEP3D_EXPRESSIONS), Drive(_REAL3D_BFM["Exp_Pca.bin"])), "see 3DFace, Guo et al."),
    _bfm("BFM_exp_idx.mat", _deep3d("BFM_exp_idx.mat"), "MIT"),
    _bfm("BFM_front_idx.mat", _deep3d("BFM_front_idx.mat"), "MIT"),
    _bfm("facemodel_info.mat", _deep3d("facemodel_info.mat"), "MIT"),
    _bfm("std_exp.txt", _deep3d("std_exp.txt"), "MIT"),
    _bfm("similarity_Lm3D_all.mat", _deep3d("similarity_Lm3D_all.mat"), "MIT", is_raw=False),
    _bfm(
        "index_mp468_from_mesh35709.npy", (Drive(_REAL3D_BFM["index_mp468_from_mesh35709.npy"]),), "MIT", is_raw=False
    ),
    OfficialFile(
        PurePosixPath("BFM/select_vertex_id.mat"), "bfm", _deep3d("select_vertex_id.mat"), "MIT", used=False,
        note="nothing here reads it",
    ),
    OfficialFile(
        PurePosixPath("face_recon_feat0.2_augment/epoch_20.pth"), "recon", (DriveFolder(_DEEP3D_CHECKPOINTS),), "MIT",
        note="optional: else coefficients are fitted to the landmarks",
    ),
    OfficialFile(
        PurePosixPath("face-parse-bisent/79999_iter.pth"), "parsing", (Drive(_BISENET),), "MIT",
        # The hash of the copies on the Hugging Face hub and in the releases of the fork clibdev/face-parsing.PyTorch.
        sha256="468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
        note="optional: else the blending mask comes from the landmarks",
    ),
    OfficialFile(
        PurePosixPath("face-parse-bisent/resnet18-5c106cde.pth"), "parsing",
        (Url("https://download.pytorch.org/models/resnet18-5c106cde.pth"),), "BSD-3-Clause",
        sha256="5c106cde", used=False, note="79999_iter.pth overwrites its values",
    ),
    _dwpose(
        "dw-ll_ucoco_384.onnx", Hub("yzd-v/DWPose", "dw-ll_ucoco_384.onnx"), size=134399116,
        sha256="724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
    ),
    _dwpose(
        "dw-ll_ucoco_384.pth", Hub("yzd-v/DWPose", "dw-ll_ucoco_384.pth"), size=406878486,
        sha256="0d9408b13cd863c4e95a149dd31232f88f2a12aa6cf8964ed74d7d97748c7a07",
    ),
    _dwpose("default_runtime.py", _DWPOSE_CONFIG),
    _dwpose("rtmpose-l_8xb32-270e_coco-ubody-wholebody-384x288.py", _DWPOSE_CONFIG),
)  # fmt: skip

GROUPS: tuple[str, ...] = tuple(dict.fromkeys(file.group for file in OFFICIAL_FILES))

_TEXT_SUFFIXES = (".json", ".yaml", ".txt", ".py")
_COMMON_NAMES = ("pytorch_model.bin",)


def stand_in(file: OfficialFile, root: Path) -> Path | None:
    """An existing file that replaces ``file``, if any."""
    found = (path for pattern in file.unless for path in sorted(root.glob(pattern)) if path.is_file())
    return next(found, None)


def missing_files(root: Path = OFFICIAL_ROOT) -> list[OfficialFile]:
    """Needed files below ``root`` that neither exist nor are replaced by another file."""
    return [
        file
        for file in OFFICIAL_FILES
        if file.needed and not (root / file.path).is_file() and stand_in(file, root) is None
    ]


def fetch_command(path: Path) -> str | None:
    """Command that fetches a file or folder of the official tree, or of such a name; else None.

    Outside pretrained_models/ a name counts if the folder above it fits as well, or if it is the name of one weights
    file only; a folder counts by its own name.
    """
    groups = _groups_inside_tree(path) or _groups_of_name(path)
    return f"{COMMAND} --only {' '.join(dict.fromkeys(groups))}" if groups else None


def fetch_advice(path: Path) -> str:
    """Advice for a missing or unusable file or folder of weights."""
    if MINI_FOLDER in path.parts and OFFICIAL_ROOT.name in path.parts:
        return "restore pretrained_models/mini from the repository"
    command = fetch_command(path)
    return f"get it with {command}" if command else "get the file again as pretrained_models/README.md says"


def _groups_inside_tree(path: Path) -> list[str]:
    parts = path.parts
    if OFFICIAL_ROOT.name not in parts:
        return []
    inside = parts[len(parts) - parts[::-1].index(OFFICIAL_ROOT.name) :]
    if not inside:
        return []
    fitting = [file.group for file in OFFICIAL_FILES if file.path.parts[: len(inside)] == inside]
    return fitting or [file.group for file in OFFICIAL_FILES if file.path.parent.parts == inside[:-1]]


def _groups_of_name(path: Path) -> list[str]:
    if MINI_FOLDER in path.parts:
        return []
    n_named = Counter(file.path.name for file in OFFICIAL_FILES)
    for file in OFFICIAL_FILES:
        is_distinct = n_named[file.path.name] == 1 and file.path.name not in _COMMON_NAMES
        is_weights = is_distinct and file.path.suffix not in _TEXT_SUFFIXES
        if path.parts[-2:] == file.path.parts[-2:] or (is_weights and path.name == file.path.name):
            return [file.group]
    return [file.group for file in OFFICIAL_FILES if path.name == file.path.parent.name]
