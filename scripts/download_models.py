"""Fetch the official weights into pretrained_models/, each file from where its owner publishes it.

    python scripts/download_models.py                        everything that may be fetched and is not there yet
    python scripts/download_models.py --only whisper vae     some groups of files
    python scripts/download_models.py --check                list present and missing files; no network
    python scripts/download_models.py --archive              JoyGen's archive (about 5 GB) first, the rest afterwards
    python scripts/download_models.py --archive FILE         the same with an archive that was fetched in a browser

Interrupted downloads resume. HF_ENDPOINT names another Hugging Face hub, HTTPS_PROXY a proxy.
Exit code 0: every needed file is there; 1: something needed is missing or a download failed; 2: wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

if __name__ == "__main__" and not __package__:
    # Started by its path: Python searches for modules beside this file, but they are in the repository's root.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from scripts.downloads.archives import extract, is_archive, list_members, locate_tree
from scripts.downloads.failures import SourceFailure, size_text
from scripts.downloads.sources import DRIVE_PREFIX, fault, fetch, fetch_from_drive, place
from scripts.downloads.transfer import PART_SUFFIX, TAG_SUFFIX
from utils.core import cli
from utils.core.errors import BadInput, StageFailure
from utils.core.options import CommandParser
from utils.files.atomic import require_writable
from utils.weights.official_files import (
    GROUPS,
    JOYGEN_ARCHIVE,
    OFFICIAL_FILES,
    OFFICIAL_ROOT,
    ByHand,
    OfficialFile,
    Source,
    Url,
    stand_in,
)

WORKSPACE = ".downloads"  # in the weights folder: parts of files, archives; removed when nothing is left to do
PRESENT, REPLACED, MISSING, DAMAGED = "present", "replaced", "missing", "damaged"
N_NAMED = 3  # failed files in the last line
FROM_DRIVE = ""  # value of --archive without a file


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        description="Fetch the official weights, each file from where its owner publishes it.",
        epilog="Interrupted downloads resume. HF_ENDPOINT names another Hugging Face hub.",
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"groups: {', '.join(GROUPS)}")
    parser.add_argument("--dir", type=Path, default=OFFICIAL_ROOT, help="weights folder (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="list present and missing files; no network")
    parser.add_argument("--all", action="store_true", help="include files that JoyGen lists but nothing here reads")
    parser.add_argument(
        "--archive",
        nargs="?",
        const=FROM_DRIVE,
        metavar="FILE",
        help="unpack JoyGen's archive (about 5 GB) first; FILE: an archive that you have already",
    )
    parser.add_argument(
        "--mirror", type=web_address, metavar="URL", help="fetch every file from URL/<path in the weights folder>"
    )
    return parser.parse_args(arguments)


def web_address(text: str) -> str:
    if urlsplit(text).scheme not in ("http", "https"):
        raise argparse.ArgumentTypeError(f"expected http://... or https://..., found {text!r}")
    return text.rstrip("/")


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.archive and not Path(options.archive).is_file():
        raise BadInput("archive missing", options.archive, "a zip or tar file", "nothing")
    groups = options.only or GROUPS
    files = [file for file in OFFICIAL_FILES if file.group in groups and (file.used or options.all)]
    failures: dict[str, str] = {}
    try:
        if not options.check:
            failures = fetch_missing(files, options.dir, options.mirror, options.archive)
    except StageFailure:
        print_table(files, options.dir)
        raise
    absent = print_table(files, options.dir)
    if failures:
        named = ", ".join([*failures][:N_NAMED]) + (" and others" if len(failures) > N_NAMED else "")
        raise StageFailure(f"{len(failures)} of the downloads failed: {named}; run the command again to try these")
    if absent:
        missing = f"{len(absent)} needed files are" if len(absent) > 1 else f"{absent[0].path} is"
        raise StageFailure(f"{missing} missing from {options.dir}")


def fetch_missing(files: Sequence[OfficialFile], root: Path, mirror: str | None, archive: str | None) -> dict[str, str]:
    """Fetch missing and damaged files; returns the reasons of failures by file."""
    require_writable(root)
    workspace = root / WORKSPACE
    failures: dict[str, str] = {}
    if archive is not None:
        try:
            unpack_archive(files, root, archive)
        except SourceFailure as error:
            failures["the archive"] = str(error)
            print(f"failed: the archive: {error}", file=sys.stderr)
    silent: set[str] = set()
    for file in files:
        sources: tuple[Source, ...] = (Url(f"{mirror}/{quote(str(file.path))}"),) if mirror else file.sources
        if state(file, root) in (PRESENT, REPLACED) or isinstance(sources[0], ByHand):
            continue
        reason = fetch_file(file, sources, root, silent)
        is_expected = mirror and " 404 " in reason and (not file.needed or isinstance(file.source, ByHand))
        if reason:
            print(f"{'not there' if is_expected else 'failed'}: {file.path}: {reason}", file=sys.stderr)
        if reason and not is_expected:
            failures[str(file.path)] = reason
    tidy(workspace, keep_archives=bool(failures))
    return failures


def tidy(workspace: Path, keep_archives: bool) -> None:
    """Remove unpacked files and empty folders; parts of interrupted downloads stay."""
    for path in [*sorted(workspace.rglob("*"), reverse=True), workspace]:
        is_part = path.suffix in (PART_SUFFIX, TAG_SUFFIX)
        is_archive_to_keep = keep_archives and path.name.startswith(DRIVE_PREFIX)
        if path.is_file() and not is_part and not is_archive_to_keep:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def fetch_file(file: OfficialFile, sources: Iterable[Source], root: Path, silent: set[str]) -> str:
    """Try the sources in turn until one gives an intact file; returns the reasons if all fail, else "".

    ``silent``: servers that did not answer; they are not asked again, and new ones are added.
    """
    reasons = []
    for source in sources:
        server = urlsplit(source.page).hostname or ""
        if server in silent:
            reasons.append(f"{server} does not answer")
            continue
        print(f"fetching {file.path} from {source.page}")
        try:
            path = fetch(source, file, root / WORKSPACE, root / file.path)
        except SourceFailure as error:
            reasons.append(str(error))
            silent |= {server} if error.is_silent else set()
            continue
        wrong = fault(path, file)
        if wrong is None:
            place(path, root / file.path)
            return ""
        path.unlink()
        reasons.append(f"{source.page} gives {wrong}")
    return "; ".join(reasons)


def unpack_archive(files: Iterable[OfficialFile], root: Path, archive: str) -> None:
    """Put the files of JoyGen's archive into place, except those that exist intact."""
    wanted = {file.path: file for file in files if state(file, root) != PRESENT}
    if not wanted:
        return
    if archive == FROM_DRIVE:
        print(f"fetching JoyGen's archive (about 5 GB) from {JOYGEN_ARCHIVE.page}")
        path = fetch_from_drive(JOYGEN_ARCHIVE.file_id, root / WORKSPACE, "run this with --archive FILE")
    else:
        path = Path(archive)
    try:
        if not is_archive(path):
            raise SourceFailure(f"{path.name} is neither a zip nor a tar archive; unpack it by hand into {root}")
        members = locate_tree(list_members(path), wanted)
        print(f"{path.name}: {len(members)} of {len(wanted)} files that are not there yet")
        targets = {member: root / WORKSPACE / official for official, member in members.items()}
        extract(path, targets)
    finally:
        if archive == FROM_DRIVE:
            path.unlink(missing_ok=True)
    for official in members:
        unpacked = root / WORKSPACE / official
        wrong = fault(unpacked, wanted[official])
        if wrong is None:
            place(unpacked, root / official)
        else:
            unpacked.unlink()
            print(f"left out of the archive: {official}: {wrong}", file=sys.stderr)


def state(file: OfficialFile, root: Path) -> str:
    """PRESENT, REPLACED by an equivalent file, MISSING, or DAMAGED with the reason."""
    path = root / file.path
    if path.is_file():
        wrong = fault(path, file)
        return PRESENT if wrong is None else f"{DAMAGED}: {wrong}"
    return MISSING if stand_in(file, root) is None else REPLACED


def print_table(files: Iterable[OfficialFile], root: Path) -> list[OfficialFile]:
    """Print state, size and source of every file; returns the needed files that are missing."""
    absent: list[OfficialFile] = []
    by_hand: list[tuple[OfficialFile, ByHand]] = []
    print(f"\n{root}:")
    for file in files:
        path, found = root / file.path, state(file, root)
        size = size_text(path.stat().st_size) if path.is_file() else ""
        remarks = [found] if found.startswith(DAMAGED) else []
        if other := stand_in(file, root) if found == REPLACED else None:
            remarks.append(f"{other.name} serves")
        if found not in (PRESENT, REPLACED):
            remarks.append("needed" if file.needed else file.note or "optional")
            absent += [file] if file.needed else []
            by_hand += [(file, file.source)] if file.needed and isinstance(file.source, ByHand) else []
        where = "; ".join([*remarks, file.source.page])
        print(f"  {found.partition(':')[0]:<8} {size:>8}  {file.path!s:<84} {where}")
    for file, source in by_hand:
        print(f"\n{root / file.path} is yours to get ({file.licence}):\n  {source.how}: {source.page}")
    return absent


if __name__ == "__main__":
    cli.run(main)
