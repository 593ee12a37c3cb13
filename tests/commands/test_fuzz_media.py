"""Damaged media files, opened in a separate process, where a decoder that hangs or crashes is an error."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import media
from tests.helpers.damage import LONGEST, damaged, examined

ROOT = Path(__file__).resolve().parents[2]
N_SHOWN = 60  # frames of a result
MEMORY = 3 << 30  # bytes of address space beyond the libraries' own

# Reads names from stdin, and opens each file as the stages open a clip or a speech.
WORKER = f"""
import sys
from pathlib import Path
import logging
import resource
from utils.media.audio import has_audio, waveform_blocks
from utils.core.errors import BadInput
from utils.media.video import probe_video, read_frames, read_frames_at

def look(path):
    video = probe_video(path)
    n_frames = 0
    for frame in read_frames(path, float(video.fps), stop={N_SHOWN}):
        n_frames += 1
        assert frame.shape == (video.height, video.width, 3), frame.shape
    assert n_frames, video
    backwards = list(range(n_frames))[::-1]
    assert sum(1 for _ in read_frames_at(path, backwards, float(video.fps))) == n_frames
    if video.has_audio:
        read_sound(path)

def read_sound(path):
    assert all(abs(block).max(initial=0) <= 1 for block in waveform_blocks(path))

n_mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (n_mapped + {MEMORY},) * 2)
logging.disable(logging.WARNING)
for line in sys.stdin:
    path = Path(line.removesuffix("\\n"))
    try:
        (read_sound if path.suffix == ".wav" else look)(path)
        answer = "used"
    except BadInput as error:
        answer = f"refused: {{error}}"
    except MemoryError as error:  # one line in the commands: utils/core/cli.py
        answer = f"refused: out of memory, {{error}}"
    except BaseException as error:
        answer = f"failed: {{type(error).__name__}}: {{error}}"
    print(" ".join(answer.split()), flush=True)
"""


class Reader:
    """The process, restarted after a crash or a hang."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, path: Path) -> str:
        """Result of a file, in a word or line; raises AssertionError if the process hangs or dies."""
        process = self._process or self._started()
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        is_ready, _, _ = select.select([process.stdout], [], [], LONGEST)
        answer = process.stdout.readline() if is_ready else ""
        if not answer:
            self.close()
            code = process.returncode
            raise AssertionError(f"no answer in {LONGEST:g} s" if not is_ready else f"the process ended with {code}")
        return answer.strip()

    def _started(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """Small files of several containers, by suffix."""
    folder = tmp_path_factory.mktemp("files")
    frames, sound = media.numbered_frames(12, 48, 32), media.speech_like(0.4, 16_000)
    media.write_clip(folder / "a.mp4", frames, sound=sound, sound_rate=16_000)
    media.write_clip(folder / "b.mkv", frames, sound=sound, sound_rate=16_000)
    media.write_clip(folder / "c.ts", frames[:6])
    media.write_clip(folder / "d.avi", frames[:6], sound=sound[:2000], sound_rate=16_000)
    media.write_wav(folder / "e.wav", sound[:3000])
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def fresh(tmp_path) -> Callable[[str], Path]:
    """Returns a new file name for each example."""
    numbers = count()
    return lambda suffix: tmp_path / f"{next(numbers)}{suffix}"


def test_whole_files_are_used(reader, files, fresh):
    for suffix, content in files.items():
        path = fresh(suffix)
        path.write_bytes(content)
        assert reader(path) == "used"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".wav"])
@examined(40)
@given(data=st.data())
def test_damaged_files(reader, files, fresh, suffix, data):
    path = fresh(suffix)
    path.write_bytes(data.draw(damaged(files[suffix])))
    answer = reader(path)
    assert answer == "used" or answer.startswith("refused: "), answer
