"""Pairs of generated clip and reference, matched by file name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.core.errors import BadInput

SEPARATOR = "#"  # store.talk_path names outputs <video>#<audio>.mp4


@dataclass(frozen=True)
class ClipPair:
    generated: Path
    reference: Path

    @property
    def name(self) -> str:
        return self.generated.stem


@dataclass(frozen=True)
class Matches:
    """The pairs, by name, and the files that found no partner."""

    pairs: list[ClipPair]
    lone_generated: list[Path]
    lone_references: list[Path]


def match_clips(generated: Path, reference: Path) -> Matches:
    """Pair two files, or the videos of two folders by stem.

    A generated <video>#<audio> belongs to the reference <video> where there is none of its full name. One file and one
    folder pair by name too. Raises BadInput for a path that does not exist, a folder without videos or no pair at all.
    """
    if generated.is_file() and reference.is_file():
        return Matches([ClipPair(generated, reference)], [], [])
    generated_paths, reference_paths = list_videos(generated), list_videos(reference)
    by_stem = {path.stem: path for path in reversed(reference_paths)}  # of equal stems the first counts
    pairs, lone = [], []
    for path in generated_paths:
        partner = _partner(path.stem, by_stem)
        if partner is None:
            lone.append(path)
        else:
            pairs.append(ClipPair(path, partner))
    if not pairs:
        found = f"{_named(generated_paths)} against {_named(reference_paths)}"
        advice = "name generated clips <reference>.mp4 or <reference>#<audio>.mp4"
        raise BadInput("no clips to compare", generated, f"names that occur in {reference}", found, advice)
    used = {pair.reference for pair in pairs}
    return Matches(pairs, lone, [path for path in reference_paths if path not in used])


def _partner(stem: str, by_stem: dict[str, Path]) -> Path | None:
    """The reference whose name is the whole stem, or the longest part of it before a separator."""
    while stem not in by_stem:
        stem, separator, _ = stem.rpartition(SEPARATOR)
        if not separator:
            return None
    return by_stem[stem]


def list_videos(path: Path) -> list[Path]:
    """A file itself, or the videos of a folder by name."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BadInput("clips missing", path, "a video or a folder of videos", "nothing", "check the path")
    from utils.media.video import VIDEO_SUFFIXES, videos_in

    found = videos_in(path)
    if not found:
        raise BadInput("no clips in the folder", path, f"files such as *{VIDEO_SUFFIXES[0]}", "none", "check the path")
    return found


def _named(paths: Sequence[Path], n_most: int = 3) -> str:
    names = ", ".join(path.name for path in paths[:n_most])
    return names + (f" and {len(paths) - n_most} more" if len(paths) > n_most else "")
