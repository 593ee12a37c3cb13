"""Teach the generator one person: fine-tune it on a clip, and keep what draws held-back frames best.

python adapt.py --video_path CLIP --result_dir results/adapted

Writes <result_dir>/<clip>/unet, which stage 3 takes as --unet_model_path, and the refiner beside it; held-back frames
are never drawn worse by them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from utils.core import cli
from utils.core.errors import BadInput
from utils.files.atomic import atomic_path, folders_above, require_writable
from utils.files.image_files import write_rgb
from utils.files.work_folder import sole_run
from utils.results.training_clip import is_finished
from utils.weights import packs

WORK_PREFIX = ".adapting-"

if TYPE_CHECKING:
    from models.training.adaptation import AdaptationResult, AdaptationSettings


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tune the generator on one person's clip.")
    parser.add_argument("--video_path", type=Path, required=True, help="a clip of the person, with or without sound")
    parser.add_argument(
        "--result_dir",
        type=Path,
        default=Path("results/adapted"),
        help="gets a folder <clip> (default results/adapted)",
    )
    steps_help = "of the optimiser, at most; fewer if held-back frames gain nothing more (default 300)"
    parser.add_argument("--steps", type=cli.at_least(1), default=300, help=steps_help)
    parser.add_argument("--batch_size", type=cli.at_least(1), default=8, help="frames per step (default 8)")
    parser.add_argument("--lr", type=float, default=5e-4, help="highest learning rate (default 5e-4)")
    parser.add_argument("--held_back", type=float, default=0.1, help="share of the clip, at its end (default 0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of the frames that a step sees (default 0)")
    cli.add_device_argument(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    check_numbers(options)
    from models.training.adaptation import AdaptationSettings

    settings = AdaptationSettings(options.steps, options.batch_size, options.lr, options.held_back, options.seed)
    pack, directory = packs.resolve_pack(), options.result_dir / options.video_path.stem
    require_writable(directory)
    print(packs.describe(pack))
    record = describe(options.video_path, pack, settings)
    if is_done(directory, record):
        print(f"{directory / 'unet'}: already adapted to this clip")
        return
    with folders_above(directory / packs.ADAPTATION_RECORD), sole_run(directory):
        try:
            adapt_to_clip(options, pack, settings, directory, record)
        except BadInput:  # nothing can be gone on with
            shutil.rmtree(work_folder(directory, record), ignore_errors=True)
            raise


def adapt_to_clip(
    options: argparse.Namespace,
    pack: packs.Pack,
    settings: AdaptationSettings,
    directory: Path,
    record: dict[str, object],
) -> None:
    """Prepare the clip, learn, and put the better networks into ``directory``, which no other run may use meanwhile."""
    from models.editing.clip_preparation import PreparationJob, prepare_clip
    from models.training.adaptation import Adaptation

    start = time.monotonic()
    require_own(directory)
    work_dir = work_folder(directory, record)
    remove_other_work(directory, work_dir)
    clip_dir = work_dir / "data" / options.video_path.stem
    if not is_finished(clip_dir):
        prepare_clip(PreparationJob(pack, clip_dir.parent, gpu_id=options.gpu_id, keep_silent=True), options.video_path)
    adaptation = Adaptation(pack, clip_dir, work_dir, settings, cli.resolve_device(options.gpu_id))
    result = adaptation.run(lambda step, psnr: print(f"step {step}: {psnr:.2f} dB on held-back frames", flush=True))

    (directory / packs.ADAPTATION_RECORD).unlink(missing_ok=True)  # of another adaptation, whose generator goes now
    adaptation.export(directory)
    save(directory, record, result)
    shutil.rmtree(work_dir)
    seconds = time.monotonic() - start
    gain = f"{result.psnr_before:.2f} dB before, {result.psnr_after:.2f} dB after {result.best_step} steps"
    floor = f"a reference's own mouth {result.psnr_reference:.2f} dB"
    print(f"{directory / 'unet'}: on held-back frames {gain} ({floor}), {seconds:.0f} s")


def work_folder(directory: Path, record: dict[str, object]) -> Path:
    return directory / f"{WORK_PREFIX}{str(record['key'])[:12]}"


def check_numbers(options: argparse.Namespace) -> None:
    if not 0 < options.held_back < 1:
        raise BadInput("share of held-back frames not possible", None, "between 0 and 1", f"{options.held_back:g}")
    if not 0 < options.lr < 1:
        raise BadInput("learning rate not possible", None, "between 0 and 1", f"{options.lr:g}")


def describe(clip: Path, pack: packs.Pack, settings: AdaptationSettings) -> dict[str, object]:
    """What the result depends on; ``key`` sums it up."""
    import hashlib

    from utils.files.digests import sha256
    from utils.media.audio import require_media
    from utils.weights.checkpoints import REFINER_WEIGHTS, weights_file

    require_media(clip)
    base = "mini" if pack.name.startswith("mini") else "official"
    parts = {
        "base": base,
        "clip": clip.name,
        "clip_sha256": sha256(clip),
        "unet_sha256": sha256(weights_file(pack.unet)),
    }
    parts |= {"vae_sha256": sha256(weights_file(pack.vae)), "settings": asdict(settings)}
    if pack.refiner is not None:
        parts["refiner_sha256"] = sha256(pack.refiner / REFINER_WEIGHTS)
    return {"key": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest(), **parts}


def is_done(directory: Path, record: dict[str, object]) -> bool:
    try:
        done = json.loads((directory / packs.ADAPTATION_RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(done, dict) and done.get("key") == record["key"] and (directory / "unet").is_dir()


def require_own(directory: Path) -> None:
    """Raise BadInput rather than replace a generator that no adaptation wrote."""
    is_own = (directory / packs.ADAPTATION_RECORD).is_file() or any(directory.glob(f"{WORK_PREFIX}*"))
    if (directory / "unet").exists() and not is_own:
        expected, advice = f"{packs.ADAPTATION_RECORD} beside it", "choose another --result_dir"
        raise BadInput("generator of another origin", directory / "unet", expected, "none", advice)


def remove_other_work(directory: Path, work_dir: Path) -> None:
    """What a stopped adaptation with other settings left."""
    for path in directory.glob(f"{WORK_PREFIX}*"):
        if path != work_dir:
            shutil.rmtree(path)


def save(directory: Path, record: dict[str, object], result: AdaptationResult) -> None:
    """The record, which says that the adaptation is finished, and a sheet of held-back frames."""
    figures = {name: value for name, value in vars(result).items() if name != "sheet"}
    write_rgb(directory / "held_back.png", result.sheet)
    with atomic_path(directory / packs.ADAPTATION_RECORD) as temporary:
        temporary.write_text(json.dumps(record | figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
