"""utils/metrics/clip_pairs.py: pairs of generated clips and references."""

from __future__ import annotations

import pytest

from utils.core.errors import BadInput
from utils.metrics.clip_pairs import match_clips


def folder(root, name, *files):
    directory = root / name
    directory.mkdir()
    for file in files:
        (directory / file).write_bytes(b"")
    return directory


def names(matches):
    return [(pair.generated.name, pair.reference.name) for pair in matches.pairs]


def test_pairs_by_stem_and_by_video_and_audio(tmp_path):
    files = ["a.mp4", "b#speech.mp4", "b#other#one.mp4", "alone.mp4", "notes.txt", ".partial-a.mp4"]
    made = folder(tmp_path, "made", *files)
    real = folder(tmp_path, "real", "a.MOV", "b.mkv", "unused.mp4")
    found = match_clips(made, real)
    assert names(found) == [("a.mp4", "a.MOV"), ("b#other#one.mp4", "b.mkv"), ("b#speech.mp4", "b.mkv")]
    assert [path.name for path in found.lone_generated] == ["alone.mp4"]
    assert [path.name for path in found.lone_references] == ["unused.mp4"]


def test_the_longest_name_counts(tmp_path):
    made = folder(tmp_path, "made", "a#b#c.mp4")
    real = folder(tmp_path, "real", "a.mp4", "a#b.mp4")
    assert names(match_clips(made, real)) == [("a#b#c.mp4", "a#b.mp4")]


def test_two_files_pair_whatever_their_names(tmp_path):
    made, real = folder(tmp_path, "made", "x.mp4") / "x.mp4", folder(tmp_path, "real", "y.mp4") / "y.mp4"
    assert names(match_clips(made, real)) == [("x.mp4", "y.mp4")]


def test_a_file_and_a_folder_pair_by_name(tmp_path):
    made = folder(tmp_path, "made", "b#s.mp4", "c.mp4")
    real = folder(tmp_path, "real", "b.mp4", "c.mp4")
    assert names(match_clips(made / "b#s.mp4", real)) == [("b#s.mp4", "b.mp4")]
    assert names(match_clips(made, real / "c.mp4")) == [("c.mp4", "c.mp4")]


@pytest.mark.parametrize(
    ("made", "real", "words"),
    [
        (["a.mp4"], ["b.mp4"], "no clips to compare .*a.mp4 against b.mp4"),
        (["a.txt"], ["a.mp4"], "no clips in the folder"),
    ],
)
def test_nothing_to_compare_is_said(tmp_path, made, real, words):
    with pytest.raises(BadInput, match=words):
        match_clips(folder(tmp_path, "made", *made), folder(tmp_path, "real", *real))


def test_a_missing_path_is_said(tmp_path):
    with pytest.raises(BadInput, match="clips missing"):
        match_clips(tmp_path / "nothing", tmp_path)
