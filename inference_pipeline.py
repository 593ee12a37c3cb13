"""Speech and a clip in, a talking video out: the three stages in one process, so that libraries load once.

    python inference_pipeline.py AUDIO VIDEO RESULT_DIR [flags]

The same flags, files and messages as scripts/inference_pipeline.sh, which runs this with --one-process. Which flag goes
to which stage stands in that script's table.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Thread

from utils.core import cli

SHELL_SCRIPT = Path(__file__).resolve().parent / "scripts" / "inference_pipeline.sh"
TABLE_BEGIN, TABLE_END = 'flag_table="\n', '\n"\n'
USAGE = "usage: python inference_pipeline.py AUDIO VIDEO RESULT_DIR [flags]"
N_PATHS = 3
OWN_FLAG = "--one[-_]process"  # by which the shell script calls this


@dataclass(frozen=True)
class Run:
    """What is asked for, paths as they were given. flags: those of each stage by its name in the table, in order."""

    audio: str
    video: str
    result_dir: str
    flags: dict[str, list[str]] = field(default_factory=dict)

    def of(self, name: str) -> list[str]:
        return self.flags.get(name, [])

    @property
    def motion_name(self) -> str:
        return f"{Path(self.audio).stem}.npy"


def main(arguments: list[str] | None = None) -> None:
    run = parse(sys.argv[1:] if arguments is None else arguments)
    steps = [(importlib.import_module(script), flags) for script, flags in plan(run)]
    for script, flags in steps:  # so that a mistake in the last stage's flags shows at once
        script.parse(flags)
    for number, (script, flags) in enumerate(steps):
        if number == 1:  # stage 2, which leaves one core idle while it follows faces
            Thread(target=load_ahead).start()
        script.main(flags)
        sys.stdout.flush()  # as where each stage is a process
    if run.of("clean"):
        clean(run)


def load_ahead() -> None:
    """Load the libraries that stages 2 and 3 wait for; what fails here fails there again, where it is said."""
    with suppress(ImportError, OSError, RuntimeError, MemoryError):  # diffusers makes RuntimeErrors of some
        from models.layers.diffusers_classes import diffusers_class
        from models.tracking.mediapipe import SOLUTIONS, mediapipe_solution

        for name in SOLUTIONS:
            mediapipe_solution(name)
        for name in ("AutoencoderKL", "UNet2DConditionModel"):
            diffusers_class(name)


def parse(words: list[str]) -> Run:
    """Raises SystemExit after --help, or if paths or a flag's value are missing."""
    if words[:1] in (["-h"], ["--help"]):
        print(f"{USAGE}\n\n{__doc__}")
        sys.exit(0)
    words = [word for word in words if not fnmatchcase(word, OWN_FLAG)]
    paths = [named_file(word) for word in words[: N_PATHS - 1]] + words[N_PATHS - 1 : N_PATHS]
    if len(paths) < N_PATHS or any(path.startswith("-") for path in paths):
        print(USAGE, file=sys.stderr)
        sys.exit(cli.EXIT_BAD_INPUT)
    return Run(*paths, sort_flags(words[N_PATHS:], read_table(SHELL_SCRIPT)))


def named_file(word: str) -> str:
    """A file of this folder whose name begins with a dash is no flag."""
    return f"./{word}" if word.startswith("-") and Path(f"./{word}").exists() else word


def read_table(script: Path) -> list[tuple[str, list[str], bool]]:
    """The rows of the shell script's table: pattern of flags, stages that take them, whether a value follows."""
    text = script.read_text(encoding="utf-8")
    table = text.partition(TABLE_BEGIN)[2].partition(TABLE_END)[0]
    rows = [line.split() for line in table.splitlines()]
    return [(pattern, stages.split(","), value == "value") for pattern, stages, value in rows]


def sort_flags(words: list[str], table: list[tuple[str, list[str], bool]]) -> dict[str, list[str]]:
    """The words that go to each stage."""
    found: dict[str, list[str]] = {}
    left = list(words)
    while left:
        taken = [left.pop(0)]
        flag = taken[0].partition("=")[0]
        stages, has_value = next((stages, value) for pattern, stages, value in table if fnmatchcase(flag, pattern))
        if has_value and "=" not in taken[0]:
            if not left:
                print(f"error: {flag} needs a value", file=sys.stderr)
                sys.exit(cli.EXIT_BAD_INPUT)
            taken.append(left.pop(0))
        for stage in stages:
            found.setdefault(stage, []).extend(taken)
    return found


def plan(run: Run) -> list[tuple[str, list[str]]]:
    """The scripts to run in turn and their arguments."""
    folder = run.result_dir
    clip = ["--infer_video_path", run.video]
    edited = ["--infer_result_dir", f"{folder}/edit_expression", *run.of("2")]
    if run.of("list"):  # who is in the clip, and nothing more
        return [("inference_edit_expression", [*clip, *edited])]
    motion = ["--result_dir", f"{folder}/a2m", f"--exp_file={run.motion_name}"]
    steps = [
        ("inference_audio2motion", ["--drv_aud", run.audio, *motion, *run.of("1")]),
        (
            "inference_edit_expression",
            [*clip, "--infer_exp_coeff_path", f"{folder}/a2m/{run.motion_name}", *edited],
        ),
    ]
    generator: list[str] = []
    if run.of("steps"):
        n_steps = run.of("steps")[-1].removeprefix("--adapt=")
        person = ["--video_path", run.video, "--result_dir", f"{folder}/adapted", "--steps", n_steps]
        steps.append(("adapt", [*person, *run.of("adapt")]))
        generator = ["--unet_model_path", f"{folder}/adapted/{Path(run.video).stem}/unet"]
    files = ["--audio_path", run.audio, "--video_path", run.video, "--intermediate_dir", f"{folder}/edit_expression"]
    talk = ["--enable_pose_driven", "--result_dir", f"{folder}/talk", *run.of("3"), *generator]
    return [*steps, ("inference_joygen", [*files, *talk])]


def clean(run: Run) -> None:
    """Remove stage 1's file, and the folders of stages 1 and 2 unless other speeches' files are in them."""
    folder = Path(run.result_dir)
    (folder / "a2m" / run.motion_name).unlink(missing_ok=True)
    for emptied in (folder / "a2m", folder / "edit_expression"):
        if emptied.is_dir() and not any(emptied.iterdir()):
            emptied.rmdir()


if __name__ == "__main__":
    cli.run(main)
