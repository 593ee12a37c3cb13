"""Count the usable frames of every preprocessed clip, and split the clips into training and validation.

python -u preprocess_dataset_extra.py DATA_DIR

Writes DATA_DIR/train.txt, val.txt and summary.json, where train_joygen.py looks for them; removes nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from utils.core import cli
from utils.core.config import Count, Decay
from utils.core.errors import BadInput
from utils.core.options import Options, option, parse_options
from utils.data import splits
from utils.data.clips import clip_folders
from utils.files.atomic import require_writable


@dataclass(frozen=True, kw_only=True)
class SplitOptions(Options):
    """Preprocessed clips and how they are split."""

    data_dir: Path = option(positional=True, help="folder written by preprocess_dataset.py")
    min_frames: Count = option(splits.MIN_FRAMES, help="usable frames that a clip needs")
    validation_share: Decay = option(0.05, help="share of the frames to hold out, by whole speakers")
    speakers: Path | None = option(
        None, help="file of <clip> <speaker> lines; an unlisted clip is a speaker of its own"
    )
    seed: int = option(0, help="random seed of the order of speakers (default: 0)")
    dry_run: bool = option(False, flag="dry-run", help="print the split without writing it")


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(SplitOptions, "Choose usable clips and split them for training and validation.", arguments)
    folders = clip_folders(options.data_dir)
    if not folders:
        raise BadInput("no training clips", options.data_dir, "what preprocess_dataset.py wrote", "none")
    speakers = splits.read_speakers(options.speakers) if options.speakers else {}

    clips, damaged = [], {}
    for name, folder in cli.progress(folders.items(), len(folders), "counting frames"):
        try:
            clips.append(splits.count_clip(folder))
        except BadInput as error:
            damaged[name] = str(error)
    split = splits.split_by_speaker(clips, speakers, options.validation_share, options.seed, options.min_frames)
    split.dropped.update(damaged)

    for name, reason in sorted(split.dropped.items()):
        print(f"left out {name}: {reason}", file=sys.stderr)
    if not split.training:
        raise BadInput("no usable clip", options.data_dir, f"{options.min_frames} frames with a face in one", "none")
    if options.dry_run:
        print(f"nothing written: {describe(split)}")
        return
    require_writable(options.data_dir)
    splits.write_split(options.data_dir, clips, split, options.seed)
    print(f"{options.data_dir / splits.TRAIN_LIST}: {describe(split)}")


def describe(split: splits.Split) -> str:
    counts = (len(split.training), len(split.validation), len(split.dropped))
    return "{} clips to learn from, {} held out, {} left out".format(*counts)


if __name__ == "__main__":
    cli.run(main)
