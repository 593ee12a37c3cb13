"""The record of each raw video, one JSON file in CLIPS_DIR/report/videos, and the names of its clips.

A video whose record is finished and fits its file and the settings is skipped. The record is written before the first
clip, so that a killed run leaves no clip without a record.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from utils.core.errors import BadInput
from utils.core.types import MOTION_FPS
from utils.curation.clip_choice import Limits, Segment
from utils.files.atomic import atomic_path

SCHEMA_VERSION = 1
REPORT_DIR, RECORD_DIR = "report", "videos"
_UNSAFE = re.compile(r"[^\w.-]+|[^\w]+$|^[^\w]+")  # letters of any language are fine
_HASH_LENGTH = 6


@dataclass(frozen=True)
class Row:
    """One segment of a raw video: a line of the report. Seconds, pixels, dB of full scale."""

    source: str
    start: float
    end: float
    frames: int  # at 25 Hz
    fps: float  # of the raw video
    face_size: float
    turn: float  # degrees
    voiced: float  # share
    level: float
    decision: str  # kept, rejected, failed
    reason: str
    until: str  # what ended the segment
    clip: str  # file name
    clip_frames: int


@dataclass(frozen=True)
class VideoRecord:
    """``failure``: the reason why the video could not be read; it is tried again in the next run."""

    source: str
    source_bytes: int
    limits: Limits
    rows: list[Row] = field(default_factory=list)
    is_finished: bool = False
    failure: str = ""
    schema: int = SCHEMA_VERSION

    @property
    def clips(self) -> list[str]:
        return [row.clip for row in self.rows if row.clip]

    def fits(self, path: Path, limits: Limits) -> bool:
        """Whether it is finished and belongs to this file under these settings."""
        return self.is_finished and self.source_bytes == path.stat().st_size and self.limits == limits


def safe_stem(path: Path) -> str:
    """The file's name for use in clip names: no blanks, quotes or brackets; a hash keeps changed names apart.

    It depends on the file's own name alone: "talk.mp4" is "talk", "my clip (1).mp4" "my_clip_1-" and six digits.
    """
    plain = _UNSAFE.sub("_", path.stem).strip("_.-") or "video"
    if plain == path.stem and path.suffix == ".mp4":
        return plain
    return f"{plain}-{hashlib.sha256(path.name.encode('utf-8', 'surrogateescape')).hexdigest()[:_HASH_LENGTH]}"


def clip_name(path: Path, number: int) -> str:
    return f"{safe_stem(path)}_{number:03d}.mp4"


def rows_of(path: Path, fps: float, segments: list[Segment]) -> list[Row]:
    """One row per segment; clips are numbered from 0 among the kept ones."""
    rows: list[Row] = []
    for segment in segments:
        n_kept = sum(bool(row.clip) for row in rows)
        rows.append(
            Row(
                source=path.name,
                start=round(segment.start / MOTION_FPS, 2),
                end=round(segment.stop / MOTION_FPS, 2),
                frames=segment.stop - segment.start,
                fps=round(fps, 3),
                face_size=round(segment.face_size, 1),
                turn=round(segment.turn, 1),
                voiced=round(segment.voiced_share, 3),
                level=-math.inf if math.isinf(segment.level) else round(segment.level, 1),
                decision="kept" if segment.is_kept else "rejected",
                reason="; ".join(segment.reasons),
                until=segment.until,
                clip=clip_name(path, n_kept) if segment.is_kept else "",
                clip_frames=len(segment.trimmed) if segment.is_kept else 0,
            )
        )
    return rows


def failed_row(source: str, reason: str) -> Row:
    return Row(source, 0, 0, 0, 0, 0, 0, 0, -math.inf, "failed", reason, "", "", 0)


def record_path(clips_dir: Path, path: Path) -> Path:
    return clips_dir / REPORT_DIR / RECORD_DIR / f"{safe_stem(path)}.json"


def save_record(clips_dir: Path, path: Path, record: VideoRecord) -> None:
    with atomic_path(record_path(clips_dir, path)) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")


def load_record(file: Path) -> VideoRecord | None:
    """None if there is no record, or one of another version or program, which is written anew."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA_VERSION:
            return None
        record = VideoRecord(**content)
        return replace(record, limits=Limits(**content["limits"]), rows=[Row(**row) for row in content["rows"]])
    except (FileNotFoundError, ValueError, TypeError, KeyError, RecursionError):
        return None


def load_records(clips_dir: Path) -> list[VideoRecord]:
    """Every record of a folder of clips, by the name of the video."""
    files = sorted((clips_dir / REPORT_DIR / RECORD_DIR).glob("[!.]*.json"))
    return sorted(filter(None, map(load_record, files)), key=lambda record: record.source)


def clear_clips(clips_dir: Path, path: Path, old: VideoRecord | None, new: VideoRecord) -> None:
    """Save ``new`` and remove the clips of ``old``.

    Raises BadInput if a clip of ``new`` has the name of a file that no record of this video names.
    """
    known = set(old.clips) if old else set()
    for name in set(new.clips) - known:
        if (clips_dir / name).exists():
            advice = "move it, or choose another folder"
            raise BadInput("a file of another origin has a clip's name", clips_dir / name, advice=advice)
    save_record(clips_dir, path, new)
    for name in known:
        (clips_dir / name).unlink(missing_ok=True)
