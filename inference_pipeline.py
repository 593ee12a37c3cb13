"""Speech and a clip in, a talking video out: all three stages.

python inference_pipeline.py AUDIO VIDEO RESULT_DIR [flags]

Everything runs in one process, so that libraries load once; --separate_processes runs the three scripts one after
another, for debugging. The files are the same. A stopped run is resumed by the same command, and what is up to date is
kept unless --force is given.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path
from types import FrameType

from models.pipeline.options import EditOptions, MotionOptions, TalkOptions
from models.pipeline.pipeline_options import PIPELINE_FLAGS, PipelineOptions
from utils.core import cli
from utils.core.monitor import TerminalMonitor
from utils.core.options import CommandParser, add_flags, flag_name

ROOT = Path(__file__).resolve().parent
USAGE = "python inference_pipeline.py AUDIO VIDEO RESULT_DIR [flags]"
DESCRIPTION = "Give a clip of a talking person a new speech: the mouth says the new words."
STAGES = {
    MotionOptions: "stage 1: speech to expression coefficients",
    EditOptions: "stage 2: clip and coefficients to depth images",
    TalkOptions: "stage 3: generation of the video",
}


def main(arguments: list[str] | None = None) -> None:
    flags = vars(parse(sys.argv[1:] if arguments is None else arguments))
    paths = [Path(flags[name]) for name in ("audio", "video", "result_dir")]
    options = PipelineOptions.of(*paths, flags, flags["adapt"])
    monitor = TerminalMonitor()
    if flags["one_process"]:
        monitor.say("note: --one-process has no effect: it is the default")
    if flags["list_speakers"]:
        from models.pipeline.edit_stage import show_speakers

        show_speakers(options.edit, monitor)
    elif flags["separate_processes"]:
        run_scripts(options)
    else:
        from models.pipeline.talking_pipeline import run_pipeline

        run_pipeline(options, monitor)


def parse(words: list[str]) -> argparse.Namespace:
    parser = CommandParser(description=DESCRIPTION, usage=USAGE)
    parser.add_argument("audio", metavar="AUDIO", help="speech: any file with a sound track")
    parser.add_argument("video", metavar="VIDEO", help="clip to edit")
    parser.add_argument("result_dir", metavar="RESULT_DIR", help="folder of the results: a2m, edit_expression, talk")
    own = parser.add_argument_group("pipeline")
    own.add_argument("--adapt", type=int, metavar="STEPS", help="fine-tune the generator on the clip first (adapt.py)")
    own.add_argument(
        "--list-speakers", "--list_speakers", action="store_true", help="list the persons in the clip, and make nothing"
    )
    own.add_argument("--separate_processes", action="store_true", help="run the three scripts one after another")
    own.add_argument("--one-process", "--one_process", action="store_true", help=argparse.SUPPRESS)
    add_stage_flags(parser)
    # A file of this folder whose name begins with a dash is no flag.
    named = [f"./{word}" if word.startswith("-") and Path(word).exists() else word for word in words[:2]]
    flags = parser.parse_args([*named, *words[2:]])
    if flags.adapt is not None and flags.adapt < 1:
        parser.error(f"argument --adapt: expected at least 1, found {flags.adapt}")
    return flags


def add_stage_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of the stages, those of several stages first."""
    n_stages = Counter(
        flag_name(field) for stage in STAGES for field in fields(stage) if field.name in PIPELINE_FLAGS[stage]
    )
    shared, added = parser.add_argument_group("several stages"), set()
    for stage, title in STAGES.items():
        flags = {field.name: flag_name(field) for field in fields(stage) if field.name in PIPELINE_FLAGS[stage]}
        several = [name for name, flag in flags.items() if n_stages[flag] > 1]
        add_flags(shared, stage, [name for name in several if flags[name] not in added])
        added |= {flags[name] for name in several}
        add_flags(parser.add_argument_group(title), stage, [name for name in flags if name not in several])


def run_scripts(options: PipelineOptions) -> None:
    """Each stage as a process of its own; ends with the exit code of the first that fails."""
    for script, words in options.commands().items():
        if code := run_process([sys.executable, str(ROOT / script), *words]):
            sys.exit(code)
    if options.talk.clean:
        from models.pipeline.talking_pipeline import clean

        clean(options)


def run_process(command: list[str]) -> int:
    """The exit code of a command, which gets the signals that end this process and has the time to clean up."""
    received: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if process is not None:
            process.send_signal(number)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = {number: signal.getsignal(number) for number in signals}
    for number in (number for number in signals if earlier[number] is not signal.SIG_IGN):
        signal.signal(number, forward)
    process = subprocess.Popen(command, process_group=0)  # else the terminal's Ctrl-C would reach it a second time
    for number in received:
        process.send_signal(number)
    code = process.wait()
    for number, handler in earlier.items():
        signal.signal(number, handler)
    if received and code == 0:  # the signal came too late for this command, but no other may start
        return 128 + received[0]
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    cli.run(main)
