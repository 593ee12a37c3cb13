"""Which files of a folder are videos: by their names."""

from __future__ import annotations

from pathlib import Path

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".ts")


def videos_in(folder: Path) -> list[Path]:
    """The videos of a folder by name; a name that begins with a dot is that of an unfinished file or of a system."""
    named = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in named if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir())
