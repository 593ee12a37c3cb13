"""Pack preprocessed training clips into one small archive, and unpack it.

    python -m scripts.mini_pack.archive pack DATA_DIR [DATA_DIR ...] --out training.tar
    python -m scripts.mini_pack.archive unpack training.tar FOLDER

A tar without compression. Its first member is an index with the size and SHA-256 of all others: the face model, and
of each clip <name of DATA_DIR>/<clip>/ the files of scripts/mini_pack/packed_clip.py. Unpacking writes
FOLDER/<name of DATA_DIR>/<clip> as preprocess_dataset.py does, and FOLDER/face_model.safetensors.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Annotated

from models.face3d.face_model import MODEL_FILE, FaceModel
from scripts.mini_pack.packed_clip import ADVICE, MEMBER_NAMES, PackingJob, UnpackingJob, pack_clip, unpack_clip
from utils.core import cli
from utils.core.config import Bounds, Count, Positive
from utils.core.errors import BadInput, StageFailure
from utils.core.options import CommandParser, Options, add_flags, given_fields, option
from utils.curation.work_queue import Work, run_units
from utils.files.atomic import PARTIAL, atomic_path, require_writable
from utils.files.digests import sha256
from utils.results.training_clip import CLIP_PATTERN, clip_dirs
from utils.weights.packs import resolve_pack

FORMAT = "JoyGen training clips 1"
INDEX_NAME = "index.json"
LARGEST_INDEX = 16 * 10**6  # bytes
CRF = 20  # of the pack's clips: 41 dB and 1.3 kB per frame
MEGABYTE = 10**6
_BLOCK = 1 << 20
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)


@dataclass(frozen=True, kw_only=True)
class WorkOptions(Options):
    num_workers: Count | None = option(None, help="clips at once (default: one per core)")

    def run(self, units: Sequence[Path], work: Work) -> None:
        """Print what becomes of each clip. Raises BadInput if one cannot be used, StageFailure if its process died."""
        failures = []
        for number, outcome in enumerate(run_units(units, work, self.num_workers or os.cpu_count() or 1), 1):
            if outcome.stop is not None:
                raise outcome.stop
            print(f"{number}/{len(units)} {outcome.unit.name}: {outcome.failure or outcome.note}", flush=True)
            failures += [outcome] if outcome.failure else []
        if failures:
            others = f" (one of {len(failures)} such clips)" if len(failures) > 1 else ""
            kind = BadInput if all(outcome.is_final for outcome in failures) else StageFailure
            raise kind(f"{failures[0].unit.name}: {failures[0].failure}{others}")


@dataclass(frozen=True, kw_only=True)
class PackOptions(WorkOptions):
    """Clips and their archive."""

    data_dirs: tuple[Path, ...] = option(positional=True, metavar="DATA_DIR", help="folder of preprocessed clips")
    out: Path = option(help="archive to write")
    face_model: Path | None = option(
        None, help="face model that the clips were prepared with (default: the mini pack's)"
    )
    exclude: tuple[str, ...] = option((), help="names of clips to leave out")
    crf: Annotated[int, Bounds(0, 51)] = option(CRF, help="x264's quality of the face crops, 0 to 51; more is smaller")
    most_megabytes: Positive = option(55.0, help="size at which no archive is written, megabytes")


@dataclass(frozen=True, kw_only=True)
class UnpackOptions(WorkOptions):
    """An archive and where its clips go."""

    archive: Path = option(positional=True, metavar="ARCHIVE", help="file that pack wrote")
    folder: Path = option(positional=True, metavar="FOLDER", help="folder for the clips' data folders")


def main(arguments: list[str] | None = None) -> None:
    parser = CommandParser(description="Pack preprocessed training clips into one small archive, and unpack it.")
    commands = parser.add_subparsers(dest="command", required=True)
    add_flags(commands.add_parser("pack", help="make an archive"), PackOptions)
    add_flags(commands.add_parser("unpack", help="write an archive's clips"), UnpackOptions)
    values = vars(parser.parse_args(arguments))
    if values["command"] == "pack":
        pack(PackOptions(**given_fields(PackOptions, values)))
    else:
        unpack(UnpackOptions(**given_fields(UnpackOptions, values)))


def pack(options: PackOptions) -> None:
    """Write the archive. Raises StageFailure if it would be larger than most_megabytes."""
    clips = chosen_clips(options)
    face_model = options.face_model or resolve_pack().face_model
    face_model = face_model / MODEL_FILE if face_model.is_dir() else face_model
    FaceModel.load(face_model)
    require_writable(options.out.parent)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out.parent, prefix=PARTIAL) as name:
        options.run(clips, partial(pack_clip, PackingJob(face_model, Path(name), options.crf)))
        shutil.copyfile(face_model, Path(name, MODEL_FILE))
        write_archive(options.out, Path(name), options.most_megabytes)
    size = options.out.stat().st_size / MEGABYTE
    print(f"{options.out}: {len(clips)} clips, {size:.1f} MB")


def chosen_clips(options: PackOptions) -> list[Path]:
    """Folders of the clips. Raises BadInput if there is none, or two data folders have one name."""
    folders = [data_dir.resolve() for data_dir in options.data_dirs]
    if len({folder.name for folder in folders}) < len(folders):
        raise BadInput("data folders of one name", expected="different names", found=folders[0].name)
    clips = []
    for folder in folders:
        found = clip_dirs(folder)
        if not found:
            advice = "run preprocess_dataset.py first"
            raise BadInput("no training clips", folder, CLIP_PATTERN, "none", advice)
        clips += [found[name] for name in sorted(found)]
    unknown = sorted(set(options.exclude) - {clip.name for clip in clips})
    if unknown:
        raise BadInput("--exclude names no clip", expected=f"{clips[0].name} ...", found=unknown[0])
    return [clip for clip in clips if clip.name not in options.exclude]


def write_archive(path: Path, folder: Path, most_megabytes: float) -> None:
    """Write all files of a folder, the index first; the same files give the same archive."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    members = {name: [(folder / name).stat().st_size, sha256(folder / name)] for name in names}
    index = json.dumps({"format": FORMAT, "members": members}, indent=1).encode()
    with atomic_path(path) as temporary:
        with tarfile.open(temporary, "w:", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, INDEX_NAME, io.BytesIO(index), len(index))
            for name in names:
                with (folder / name).open("rb") as file:
                    _add(archive, name, file, (folder / name).stat().st_size)
        size = temporary.stat().st_size / MEGABYTE
        if size > most_megabytes:
            advice = "raise --crf, or leave out clips with --exclude"
            raise StageFailure(f"the archive would have {size:.1f} MB, more than {most_megabytes:g}; {advice}")


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    archive.addfile(member, content)


def unpack(options: UnpackOptions) -> None:
    """Write the clips of an archive that are not there yet; nothing if the archive is damaged or of another kind."""
    require_writable(options.folder)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix=PARTIAL) as name:
        extract(options.archive, Path(name))
        face_model = Path(name, MODEL_FILE)
        FaceModel.load(face_model)
        clips = sorted(path for path in Path(name).glob("*/*") if path.is_dir())
        options.run(clips, partial(unpack_clip, UnpackingJob(face_model, options.folder)))
        with atomic_path(options.folder / MODEL_FILE) as temporary:
            shutil.copyfile(face_model, temporary)
    print(f"{options.folder}: {len(clips)} clips")


def extract(path: Path, folder: Path) -> None:
    """Write an archive's members below a folder. Raises BadInput unless it is what the index says."""
    with _opened(path) as archive:
        members = read_index(archive, path)
        for info in iter(archive.next, None):
            size, digest = members.pop(info.name, (-1, ""))
            if info.size != size or info.type not in _PLAIN or info.issparse():
                raise BadInput("damaged archive", path, "the members of its index", info.name[:99], ADVICE)
            target = folder / info.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if _copy(archive, info, target) != digest:
                raise BadInput("damaged archive", path, "the content of its index", f"another {info.name[:99]}", ADVICE)
    if members:
        raise BadInput("archive is cut off", path, next(iter(members)), "its end", ADVICE)


def read_index(archive: tarfile.TarFile, path: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of the members by name; raises BadInput for names that pack does not write."""
    info = archive.next()
    foreign = BadInput("no archive of training clips", path, f"{FORMAT!r}", "another file", ADVICE)
    if info is None or info.name != INDEX_NAME or info.type not in _PLAIN or not 0 < info.size <= LARGEST_INDEX:
        raise foreign
    file = archive.extractfile(info)
    try:
        index = json.loads(file.read() if file is not None else b"")
        if index["format"] != FORMAT:
            raise foreign
        members = {name: (size, digest) for name, (size, digest) in index["members"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise foreign from error
    strange = [name for name in members if name != MODEL_FILE and not is_member_name(name)]
    if strange or MODEL_FILE not in members:
        found = strange[0][:99] if strange else "no face model"
        raise BadInput("archive of another form", path, f"<folder>/<clip>/<file> and {MODEL_FILE}", found, ADVICE)
    return members


def is_member_name(name: str) -> bool:
    """Whether a name is <folder>/<clip>/<file of a packed clip>, below the folder it is written to."""
    parts = name.split("/")
    return len(parts) == 3 and parts[2] in MEMBER_NAMES and all(_is_plain(part) for part in parts)


def _is_plain(part: str) -> bool:
    return 0 < len(os.fsencode(part)) <= 200 and part.isprintable() and not part.startswith(".") and "\\" not in part


def _copy(archive: tarfile.TarFile, info: tarfile.TarInfo, target: Path) -> str:
    """Write one member; returns its SHA-256."""
    digest, content = hashlib.sha256(), archive.extractfile(info)
    with target.open("wb") as file:
        while content is not None and (block := content.read(_BLOCK)):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive for reading; tarfile's errors on damage become BadInput."""
    if not path.is_file():
        raise BadInput("no such file", path, "an archive of training clips", "nothing", "check the path")
    try:
        with tarfile.open(path, "r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise BadInput("archive cannot be read", path, "a tar file", str(error), ADVICE) from error


if __name__ == "__main__":
    cli.run(main)
