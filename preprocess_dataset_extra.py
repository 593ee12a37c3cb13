"""Count the usable frames of every preprocessed clip, and split the clips into training and validation.

python -u preprocess_dataset_extra.py DATA_DIR

Writes DATA_DIR/train.txt, val.txt and summary.json, where train_joygen.py looks for them; removes nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from utils.core import cli
from utils.core.errors import BadInput
from utils.data import splits
from utils.data.clips import clip_folders
from utils.files.atomic import require_writable


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Choose usable clips and split them into training and validation.")
    parser.add_argument("data_dir", type=Path, help="folder written by preprocess_dataset.py")
    parser.add_argument(
        "--min_frames",
        type=cli.at_least(1),
        default=splits.MIN_FRAMES,
        help="usable frames that a clip needs (default 7)",
    )
    parser.add_argument(
        "--validation_share",
        type=share,
        default=0.05,
        help="share of the frames to hold out, by whole speakers (default 0.05)",
    )
    parser.add_argument(
        "--speakers", type=Path, help="file of <clip> <speaker> lines; an unlisted clip is a speaker of its own"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of the order of speakers (default 0)")
    parser.add_argument("--dry-run", action="store_true", help="print the split without writing it")
    return parser.parse_args(arguments)


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 up to, not including, 1, found {text}")
    return value


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
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
