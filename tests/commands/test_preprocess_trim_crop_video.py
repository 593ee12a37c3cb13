"""From raw videos to clips and a report, with real faces: kept, resumed and refused videos."""

from __future__ import annotations

import csv
import hashlib
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import preprocess_trim_crop_video as script
from tests.helpers import media
from utils.core.errors import BadInput, StageFailure
from utils.curation import clip_record
from utils.curation.clip_choice import Limits
from utils.curation.clip_record import clip_name, load_records, safe_stem
from utils.curation.clip_report import draw_histograms, main_reason
from utils.media.video import probe_video, read_frames

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["--min_frames", "25", "--min_face", "50"]
BEFORE, GAP, AFTER = 25, 7, 28  # frames of gap.mp4
QUOTED = "my clip (1) it's.mp4"
TRIMMED = 10


def speech(n_frames: int) -> np.ndarray:
    wave = media.speech_like(n_frames / 25, 48_000)
    return wave * (np.arange(len(wave)) % 24_000 < 14_000)


@pytest.fixture(scope="module")
def raw_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw videos")
    parts = [*media.face_frames(BEFORE), *media.blank_frames(GAP), *media.face_frames(AFTER)]
    media.write_clip(folder / "gap.mp4", parts, sound=speech(len(parts)))
    media.write_clip(folder / QUOTED, media.face_frames(53), fps=50, sound=speech(26))
    media.write_clip(folder / "silent.mp4", media.face_frames(25))
    pair = np.concatenate([media.portrait(), media.portrait()], axis=1)
    media.write_clip(folder / "pair.mkv", [pair] * 12, sound=speech(12))
    (folder / "broken.mp4").write_bytes(b"no video" * 100)
    (folder / "notes.txt").write_text("not looked at")
    return folder


@pytest.fixture(scope="module")
def clips_dir(raw_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "clips"
    with pytest.raises(StageFailure, match="1 of 5 videos could not be prepared"):
        script.main([str(raw_dir), str(folder), *FLAGS, "--num_workers", "1"])
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4")}


def table_of(clips_dir: Path) -> list[dict[str, str]]:
    with (clips_dir / "report" / "stretches.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_clips_hold_the_face_and_the_sound(raw_dir, clips_dir):
    quoted = clip_name(Path(QUOTED), 0)
    assert {path.name for path in clips_dir.iterdir()} == {"gap_000.mp4", "gap_001.mp4", quoted, "report"}
    for name, n_frames in {"gap_000.mp4": 5, "gap_001.mp4": 8, quoted: 7}.items():
        info = probe_video(clips_dir / name)
        frames = list(read_frames(clips_dir / name))
        assert info.has_audio and info.fps == 25 and len(frames) == n_frames
        assert info.width % 2 == info.height % 2 == 0
        assert info.width < 140 and info.height < 160


def test_a_clip_shows_its_segment(raw_dir, clips_dir):
    """The second clip begins TRIMMED frames after the gap; its crop is a window of the raw frame."""
    clip = list(read_frames(clips_dir / "gap_001.mp4"))
    first = BEFORE + GAP + TRIMMED
    raw = list(read_frames(raw_dir / "gap.mp4", start=first, stop=first + len(clip)))
    height, width = clip[0].shape[:2]
    corners = [(y, x) for y in range(0, 192 - height) for x in range(0, 192 - width)]
    errors = [
        np.abs(raw[0][y : y + height, x : x + width : 4].astype(int) - clip[0][:, ::4]).mean() for y, x in corners
    ]
    y, x = corners[int(np.argmin(errors))]
    for shown, source in zip(clip, raw, strict=True):
        assert np.abs(source[y : y + height, x : x + width].astype(int) - shown).mean() < 4


def test_table_lists_every_segment(clips_dir):
    rows = table_of(clips_dir)
    told = [(row["source"], row["start"], row["end"], row["decision"], row["reason"], row["clip"]) for row in rows]
    assert [row[3] for row in told if row[0] == "broken.mp4"] == ["failed"]
    assert [row[1:] for row in told if row[0] == "gap.mp4"] == [
        ("0.0", "1.0", "kept", "", "gap_000.mp4"),
        ("1.0", "1.28", "rejected", "no face", ""),
        ("1.28", "2.4", "kept", "", "gap_001.mp4"),
    ]
    assert [row[1:] for row in told if row[0] == "silent.mp4"] == [("0.0", "1.0", "rejected", "no sound", "")]
    assert [row[1:] for row in told if row[0] == "pair.mkv"] == [("0.0", "0.48", "rejected", "several faces", "")]
    (quoted,) = (row for row in rows if row["source"] == QUOTED)
    assert (quoted["fps"], quoted["frames"], quoted["clip_frames"]) == ("50.0", "27", "7")
    assert 50 < float(quoted["face_size"]) < 70
    assert 0.2 < float(quoted["voiced"]) < 0.8


def test_histograms_are_drawn(clips_dir, tmp_path):
    with Image.open(clips_dir / "report" / "histograms.png") as image:
        assert image.size == (1200, 360)
        assert len(np.unique(np.asarray(image.convert("L")))) > 20
    draw_histograms(tmp_path / "none.png", [])
    assert (tmp_path / "none.png").stat().st_size > 0


def test_finished_videos_are_not_surveyed_again(raw_dir, clips_dir, monkeypatch, capsys):
    before, written = digests(clips_dir), times(clips_dir)
    looked = []
    survey = script.survey
    monkeypatch.setattr(script, "survey", lambda path, *given: looked.append(path.name) or survey(path, *given))
    with pytest.raises(StageFailure):
        script.main([str(raw_dir), str(clips_dir), *FLAGS, "--num_workers", "1"])
    assert looked == ["broken.mp4"]
    assert (digests(clips_dir), times(clips_dir)) == (before, written)
    output = capsys.readouterr()
    assert "silent.mp4: nothing kept: no sound" in output.out
    assert "left out broken.mp4: media file cannot be opened" in output.err


def test_workers_and_a_killed_run_give_the_same_files(raw_dir, clips_dir, tmp_path):
    """Files after a kill: an unfinished record, some of its clips, a work folder."""
    path, folder = raw_dir / "gap.mp4", tmp_path / "clips"
    (record,) = (record for record in load_records(clips_dir) if record.source == path.name)
    rows = [record.rows[0], *record.rows]
    unfinished = clip_record.VideoRecord(path.name, record.source_bytes, record.limits, rows)
    clip_record.save_record(folder, path, unfinished)
    (folder / "gap_000.mp4").write_bytes(b"an older clip")
    (folder / ".work-gap").mkdir()
    (folder / ".work-gap" / ".partial-x.mp4").write_bytes(b"half")
    with pytest.raises(StageFailure):
        script.main([str(raw_dir), str(folder), *FLAGS, "--num_workers", "2"])
    assert digests(folder) == digests(clips_dir)


def test_other_limits_replace_the_clips(raw_dir, tmp_path):
    raw, folder = tmp_path / "raw", tmp_path / "clips"
    raw.mkdir()
    (raw / "gap.mp4").write_bytes((raw_dir / "gap.mp4").read_bytes())
    arguments = [str(raw), str(folder), "--min_face", "50", "--num_workers", "1"]
    script.main([*arguments, "--min_frames", "25"])
    assert set(times(folder)) == {"gap_000.mp4", "gap_001.mp4"}
    script.main([*arguments, "--min_frames", "26"])
    assert set(times(folder)) == {"gap_000.mp4"}
    assert len(list(read_frames(folder / "gap_000.mp4"))) == 8
    with pytest.raises(StageFailure, match="no clip was kept"):
        script.main([*arguments, "--min_frames", "300"])
    assert set(times(folder)) == set()


def test_a_video_that_was_damaged_for_a_while(raw_dir, tmp_path, monkeypatch):
    """No clip outside the report is left, and the video is processed again once it is complete."""
    raw, folder = tmp_path / "raw", tmp_path / "clips"
    raw.mkdir()
    content = (raw_dir / "gap.mp4").read_bytes()
    arguments = [str(raw), str(folder), *FLAGS, "--num_workers", "1"]
    (raw / "gap.mp4").write_bytes(content)
    script.main(arguments)
    whole = set(times(folder))
    assert whole
    (raw / "gap.mp4").write_bytes(content[:1000])
    with pytest.raises(StageFailure, match="1 of 1 videos"):
        script.main(arguments)
    assert set(times(folder)) == set()
    (raw / "gap.mp4").write_bytes(content)
    cut_clips = script.cut_clips
    with monkeypatch.context() as context:

        def cut_then_fail(*given) -> None:
            cut_clips(*given)
            raise BadInput("frame cannot be converted to RGB")

        context.setattr(script, "cut_clips", cut_then_fail)
        with pytest.raises(StageFailure, match="1 of 1 videos"):
            script.main(arguments)
    assert set(times(folder)) == set()
    script.main(arguments)
    assert set(times(folder)) == whole


def test_a_file_of_another_origin_is_left_alone(raw_dir, tmp_path):
    raw, folder = tmp_path / "raw", tmp_path / "clips"
    raw.mkdir()
    folder.mkdir()
    (raw / QUOTED).write_bytes((raw_dir / QUOTED).read_bytes())
    foreign = folder / clip_name(Path(QUOTED), 0)
    foreign.write_bytes(b"somebody's")
    with pytest.raises(StageFailure, match="1 of 1 videos"):
        script.main([str(raw), str(folder), *FLAGS, "--num_workers", "1"])
    assert foreign.read_bytes() == b"somebody's"
    assert "another origin" in table_of(folder)[0]["reason"]


def test_names_of_clips():
    assert clip_name(Path("a/talk.v2.mp4"), 3) == "talk.v2_003.mp4"
    assert safe_stem(Path("Ünïcode.mp4")) == "Ünïcode"
    names = [
        QUOTED,
        "my_clip_1_it_s.mp4",
        "my clip [1] it's.mp4",
        "a.mp4",
        "a.MP4",
        "a.mov",
        "-a.mp4",
        ".a.mp4",
        "?.mp4",
    ]
    stems = [safe_stem(Path(name)) for name in names]
    assert len(set(stems)) == len(stems)
    for stem in stems:
        assert not set(stem) & set(" ()[]'\"?$`\\/") and stem[0] not in "-."


def test_main_reason_is_that_of_most_frames(clips_dir):
    rows = [row for record in load_records(clips_dir) for row in record.rows]
    assert main_reason([row for row in rows if row.source == "gap.mp4"]) == "no face"
    assert main_reason([]) == "no frame"


def test_damaged_records_are_written_anew(raw_dir, clips_dir, tmp_path):
    path = raw_dir / "gap.mp4"
    for text in ("", "[]", "{}", '{"schema": 99}', '{"schema": 1, "other": 2}'):
        file = tmp_path / "record.json"
        file.write_text(text)
        assert clip_record.load_record(file) is None
    record = clip_record.load_record(clip_record.record_path(clips_dir, path))
    assert record.fits(path, Limits(25, 50))
    assert not record.fits(path, Limits(25, 51))


def test_bad_input(tmp_path, raw_dir):
    with pytest.raises(BadInput, match="no such folder"):
        script.main([str(tmp_path / "nowhere"), str(tmp_path / "clips")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no videos"):
        script.main([str(tmp_path / "empty"), str(tmp_path / "clips")])
    with pytest.raises(BadInput, match="mix with raw videos"):
        script.main([str(raw_dir), str(raw_dir / ".." / raw_dir.name)])
    for flag, value in (("--min_frames", "20"), ("--num_workers", "0"), ("--min_face", "nan"), ("--max_turn", "-1")):
        with pytest.raises(BadInput, match=f"{flag}: expected a"):
            script.main([str(raw_dir), str(tmp_path / "clips"), flag, value])
    assert not (tmp_path / "clips").exists()


def run_with_small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))


def test_a_full_disk_is_one_line(raw_dir, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.mp4").write_bytes((raw_dir / QUOTED).read_bytes())
    command = [sys.executable, "preprocess_trim_crop_video.py", str(raw), str(tmp_path / "clips"), *FLAGS]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, preexec_fn=run_with_small_files
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not list((tmp_path / "clips").glob("*.mp4")) and not list((tmp_path / "clips").glob(".work-*"))
