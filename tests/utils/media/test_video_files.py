"""utils/media/video_files.py: the videos of a folder."""

from __future__ import annotations

from pathlib import Path

from utils.media.video_files import videos_in


def test_files_of_other_kinds_hidden_ones_and_folders_are_none(tmp_path: Path) -> None:
    for name in ("b.MP4", "a.ts", "c.mpg", ".partial-x.mp4", "._a.ts", "notes.txt", "mp4"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "gone.mkv").symlink_to(tmp_path / "nowhere.mkv")  # whoever opens it says so
    assert [path.name for path in videos_in(tmp_path)] == ["a.ts", "b.MP4", "c.mpg", "gone.mkv"]
