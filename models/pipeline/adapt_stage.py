"""Adaptation: the generator and the refiner fine-tuned on one person's clip, kept if held-back frames gain."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from models.editing.clip_preparation import PreparationJob, prepare_clip
from models.pipeline.options import AdaptOptions
from models.training.adaptation import Adaptation, AdaptationResult, AdaptationSettings
from utils.core.errors import BadInput
from utils.core.monitor import Monitor
from utils.files.atomic import atomic_path, folders_above, require_writable
from utils.files.digests import sha256
from utils.files.image_files import write_rgb
from utils.files.work_folder import sole_run
from utils.media.audio import require_media
from utils.results.training_clip import is_finished
from utils.weights import packs
from utils.weights.checkpoints import REFINER_WEIGHTS, weights_file

WORK_PREFIX = ".adapting-"


def adapt_person(options: AdaptOptions, monitor: Monitor) -> Path:
    """Fine-tune on the clip and return the generator's folder, which stage 3 takes as --unet_model_path.

    The refiner lies beside it. An adaptation that is there already is kept; a stopped one is resumed.
    Raises BadInput for a clip that cannot be used.
    """
    settings = AdaptationSettings(options.steps, options.batch_size, options.lr, options.held_back, options.seed)
    pack, directory = packs.resolve_pack(options.weights_dir), options.unet_path.parent
    require_writable(directory)
    monitor.say(packs.describe(pack))
    record = describe(options.video_path, pack, settings)
    if is_done(directory, record):
        monitor.say(f"{options.unet_path}: already adapted to this clip")
        return options.unet_path
    with folders_above(directory / packs.ADAPTATION_RECORD), sole_run(directory):
        try:
            adapt_to_clip(options, pack, settings, record, monitor)
        except BadInput:  # nothing can be resumed
            shutil.rmtree(work_folder(directory, record), ignore_errors=True)
            raise
    return options.unet_path


def adapt_to_clip(
    options: AdaptOptions, pack: packs.Pack, settings: AdaptationSettings, record: dict[str, object], monitor: Monitor
) -> None:
    """Prepare the clip, train, and export the better networks to the result folder, which this run has locked."""
    start, directory = time.monotonic(), options.unet_path.parent
    require_own(directory)
    work_dir = work_folder(directory, record)
    remove_other_work(directory, work_dir)
    clip_dir = work_dir / "data" / options.video_path.stem
    if not is_finished(clip_dir):
        prepare_clip(PreparationJob(pack, clip_dir.parent, gpu_id=options.gpu_id, keep_silent=True), options.video_path)
    adaptation = Adaptation(pack, clip_dir, work_dir, settings, options.device)
    result = adaptation.run(lambda step, psnr: monitor.say(f"step {step}: {psnr:.2f} dB on held-back frames"))

    (directory / packs.ADAPTATION_RECORD).unlink(missing_ok=True)  # of another adaptation, whose generator goes now
    adaptation.export(directory)
    save(directory, record, result)
    shutil.rmtree(work_dir)
    gain = f"{result.psnr_before:.2f} dB before, {result.psnr_after:.2f} dB after {result.best_step} steps"
    floor = f"a reference's own mouth {result.psnr_reference:.2f} dB"
    seconds = time.monotonic() - start
    monitor.say(f"{options.unet_path}: on held-back frames {gain} ({floor}), {seconds:.0f} s")


def work_folder(directory: Path, record: dict[str, object]) -> Path:
    return directory / f"{WORK_PREFIX}{str(record['key'])[:12]}"


def describe(clip: Path, pack: packs.Pack, settings: AdaptationSettings) -> dict[str, object]:
    """What the result depends on, and its digest as ``key``."""
    require_media(clip)
    base = "mini" if pack.name.startswith("mini") else "official"
    parts: dict[str, object] = {
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
    """Remove what a stopped adaptation with other settings has left."""
    for path in directory.glob(f"{WORK_PREFIX}*"):
        if path != work_dir:
            shutil.rmtree(path)


def save(directory: Path, record: dict[str, object], result: AdaptationResult) -> None:
    """Write the record, which marks the adaptation as finished, and a contact sheet of held-back frames."""
    figures = {name: value for name, value in vars(result).items() if name != "sheet"}
    write_rgb(directory / "held_back.png", result.sheet)
    with atomic_path(directory / packs.ADAPTATION_RECORD) as temporary:
        temporary.write_text(json.dumps(record | figures, indent=2) + "\n", encoding="utf-8")
