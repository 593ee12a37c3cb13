"""Evaluation of generated clips: figures against references and floors, as JSON, Markdown and plots.

python evaluate.py --generated results/talk --reference CLIPS_DIR --out report/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.core import cli
from utils.core.errors import BadInput
from utils.core.options import option, parse_options
from utils.core.types import VERSION
from utils.files.atomic import require_writable
from utils.metrics.clip_pairs import ClipPair, Matches, match_clips
from utils.metrics.figures import METRICS, NEEDS_WEIGHTS
from utils.weights import packs

if TYPE_CHECKING:
    from models.evaluation.clip_comparison import BadFrame
    from models.evaluation.clip_figures import SoundModel
    from models.evaluation.pair_results import Clip, Networks, PairResult
    from utils.metrics.report import Report
    from utils.metrics.report_plots import WorstFrame

MAX_WORST, WORST_PER_CLIP = 10, 3  # frames on the sheet; fewer clips give more each


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(cli.DeviceOptions):
    """Clips, their references, and what is measured with which weights."""

    generated: Path = option(help="generated clip, or folder of clips")
    reference: Path = option(help="real clip, or folder of clips; <video>#<audio> belongs to <video>")
    metrics: tuple[str, ...] | None = option(
        None, metavar="NAME", help=f"metrics to compute, of {', '.join(METRICS)} (default: all with weights)"
    )
    out: Path = option(Path("report"), help="folder for the report")
    lpips_weights: Path | None = option(None, help='saved lpips.LPIPS(net="alex").state_dict()')
    inception_weights: Path | None = option(None, help="pt_inception-2015-12-05-6726825d.pth, for FID")
    syncnet_weights: Path | None = option(None, help="syncnet_v2.model, for LSE-C and LSE-D")
    av_model: Path = option(packs.agreement_model(), help="model of audio-visual agreement")
    seed: int = option(0, help="random seed of the bootstrap (default: 0)")

    @property
    def weights(self) -> dict[str, Path | None]:
        """Weights by the metric that needs them."""
        return {
            "lpips": self.lpips_weights,
            "fid": self.inception_weights,
            "lse": self.syncnet_weights,
            "av": self.av_model,
            "av_log_mel": packs.log_mel_agreement_model(),
        }


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(EvaluationOptions, "Measure generated clips against references and floors.", arguments)
    metrics = wanted_metrics(options)
    matches = match_clips(options.generated, options.reference)
    require_writable(options.out)
    networks = load_networks(options, metrics)

    from models.evaluation.pair_results import overall_figures, with_agreement

    results, skipped = measure_all(matches, metrics, networks)
    measured = list(results)
    if networks.sound_models:
        results = dict(zip(measured, with_agreement(list(results.values())), strict=True))
    overall, remark = overall_figures(networks.features)

    report = make_report(options, metrics, matches, results, skipped, overall, remark)
    save(options.out, report, results)
    for line in summary_lines(report):
        print(line)
    print(f"{options.out}: {len(results)} clips measured, {len(skipped)} left out")


def wanted_metrics(options: EvaluationOptions) -> list[str]:
    """Metrics in the order of METRICS. Raises BadInput for an unknown name, or one whose weights are not given."""
    available = [name for name in METRICS if name not in NEEDS_WEIGHTS or options.weights[name]]
    if options.metrics is None:
        return available
    for name in options.metrics:
        if name not in METRICS:
            raise BadInput("unknown metric", None, f"some of {', '.join(METRICS)}", name)
        if name not in available:
            raise BadInput(f"{name} needs weights", None, f"{NEEDS_WEIGHTS[name]} FILE", "none", "see README.md")
    return [name for name in METRICS if name in options.metrics]


def load_networks(options: EvaluationOptions, metrics: Sequence[str]) -> Networks:
    from models.evaluation.clip_comparison import LowerFaceFeatures
    from models.evaluation.inception import InceptionV3
    from models.evaluation.lpips import Lpips
    from models.evaluation.pair_results import Networks
    from models.lipsync.syncnet import SyncNet

    device = options.device
    return Networks(
        sound_models=load_sound_models(options, metrics),
        lpips=Lpips.load(options.lpips_weights, device) if "lpips" in metrics else None,
        features=LowerFaceFeatures(InceptionV3.load(options.inception_weights, device)) if "fid" in metrics else None,
        syncnet=SyncNet.load(options.syncnet_weights, device) if "lse" in metrics else None,
    )


def load_sound_models(options: EvaluationOptions, metrics: Sequence[str]) -> dict[str, SoundModel]:
    """Models of agreement by metric. Raises BadInput for damaged files and a missing speech encoder."""
    from models.audio.speech_encoder import SpeechEncoder
    from models.evaluation.clip_figures import SoundModel
    from models.lipsync.av_agreement import AvModel, encoder_features
    from models.lipsync.av_log_mel import load_log_mel_model, log_mel_features

    found: dict[str, SoundModel] = {}
    if "av" in metrics:
        model, encoder = AvModel.load(options.av_model), SpeechEncoder.load(options.device)
        found["av"] = SoundModel(model, partial(encoder_features, encoder))
    if "av_log_mel" in metrics:
        model = load_log_mel_model(packs.log_mel_agreement_model())
        found["av_log_mel"] = SoundModel(model, lambda wave, n_frames: [log_mel_features(wave, n_frames)])
    return found


def measure_all(
    matches: Matches, metrics: Sequence[str], networks: Networks
) -> tuple[dict[ClipPair, PairResult], dict[str, str]]:
    """Results by pair, and reasons by name of pairs left out. Raises the first pair's BadInput if all failed."""
    from models.evaluation.pair_results import measure_pair

    results: dict[ClipPair, PairResult] = {}
    failures: dict[str, BadInput] = {}
    for pair in matches.pairs:
        try:
            generated, reference = open_clip(pair.generated), open_clip(pair.reference)
            results[pair] = measure_pair(generated, reference, metrics, networks)
        except BadInput as error:
            failures[pair.name] = error
        keep_worst(results)
    if not results:
        raise next(iter(failures.values()))
    return results, {name: str(error) for name, error in failures.items()}


def open_clip(path: Path) -> Clip:
    from models.evaluation.pair_results import Clip
    from utils.media.audio import load_waveform
    from utils.media.video import probe_video, read_frames

    info = probe_video(path)
    n_frames = round(info.duration * 25) or None

    def frames() -> Iterator[np.ndarray]:
        return cli.progress(read_frames(path), n_frames, path.stem)

    return Clip(path.stem, frames, load_waveform(path) if info.has_audio else None, info.picture)


def make_report(
    options: EvaluationOptions,
    metrics: Sequence[str],
    matches: Matches,
    results: dict[ClipPair, PairResult],
    skipped: dict[str, str],
    overall: dict[str, float],
    remark: str,
) -> Report:
    from utils.metrics.report import ClipResult, Report

    clips = [
        ClipResult(
            pair.name, str(pair.generated), str(pair.reference), result.n_frames, result.figures, tuple(result.notes)
        )
        for pair, result in results.items()
    ]
    return Report(
        settings={**settings(options, metrics), **({"FID": remark} if remark else {})},
        clips=clips,
        overall=overall,
        skipped=skipped,
        lone_generated=[path.name for path in matches.lone_generated],
        lone_references=[path.name for path in matches.lone_references],
        seed=options.seed,
    )


def settings(options: EvaluationOptions, metrics: Sequence[str]) -> dict[str, object]:
    """Settings that published figures differ by: crops, offsets, implementation and weights."""
    from importlib.metadata import version

    from utils.files.digests import sha256
    from utils.metrics.methods import METHODS, METHODS_OF_ALL

    used = {name: path for name, path in options.weights.items() if name in metrics and path is not None}
    return {
        "implementation": f"joygen {VERSION}, MediaPipe {version('mediapipe')}",
        "metrics": ", ".join(metrics),
        **METHODS_OF_ALL,
        **{title: text for metric, title, text in METHODS if metric in metrics},
        "weights": {name: f"{path.name} sha256 {sha256(path)}" for name, path in used.items()},
    }


def save(directory: Path, report: Report, results: dict[ClipPair, PairResult]) -> None:
    from utils.metrics.report import write_report
    from utils.metrics.report_plots import BARS_NAME, DENSITY_NAME, WORST_NAME, save_bars, save_densities, save_worst

    write_report(directory, report)
    save_bars(directory / BARS_NAME, report)
    save_densities(directory / DENSITY_NAME, density_curves(list(results.values()), report))
    save_worst(directory / WORST_NAME, worst_frames(results))


def density_curves(results: Sequence[PairResult], report: Report) -> dict:
    """Series of all clips, concatenated, by panel."""
    from utils.metrics.report_plots import Curve

    def pixels(name: str) -> np.ndarray:
        return np.concatenate([result.pixels[name] for result in results])

    def curve(name: str) -> np.ndarray:
        return np.concatenate([getattr(result.curves, name) for result in results])

    panels = {
        "psnr": [Curve("still mouth", pixels("psnr_still"), True), Curve("generated", pixels("psnr"))],
        "ssim": [Curve("still mouth", pixels("ssim_still"), True), Curve("generated", pixels("ssim"))],
        "lmd": [Curve("still mouth", curve("lmd_still"), True), Curve("generated", curve("lmd"))],
        "opening": [Curve("reference", curve("opening_reference"), True), Curve("generated", curve("opening"))],
        "width": [Curve("reference", curve("width_reference"), True), Curve("generated", curve("width"))],
        "detail": [Curve("reference", pixels("laplacian_ref"), True), Curve("generated", pixels("laplacian"))],
        "upper_drift": [Curve("generated", pixels("upper_drift"))],
        "lpips": [Curve("generated", pixels("lpips"))],
    }
    measured = {figure.metric for figure in report.measured()}
    confidences = [result.sync.frame_confidences for result in results if result.sync is not None]
    if confidences:
        panels["lse"] = [Curve("confidence per window", np.concatenate(confidences))]
    return {name: curves for name, curves in panels.items() if name in measured} or {"psnr": panels["psnr"]}


def keep_worst(results: dict[ClipPair, PairResult]) -> None:
    """Drop frames that worst_frames cannot show any more, however many clips follow, to bound memory."""
    if len(results) * WORST_PER_CLIP < MAX_WORST:  # each clip's share may still fall
        return
    n_kept = Counter(pair for _, pair in worst_of(results))
    for pair, result in results.items():
        if len(result.worst) > n_kept[pair]:
            results[pair] = replace(result, worst=result.worst[: n_kept[pair]])


def worst_of(results: dict[ClipPair, PairResult]) -> list[tuple[BadFrame, ClipPair]]:
    """The frames of lowest PSNR, with a limited share per clip."""
    share = max(WORST_PER_CLIP, -(-MAX_WORST // max(1, len(results))))
    candidates = [(bad, pair) for pair, result in results.items() for bad in result.worst[:share]]
    return sorted(candidates, key=lambda item: item[0].psnr)[:MAX_WORST]


def worst_frames(results: dict[ClipPair, PairResult]) -> list[WorstFrame]:
    from utils.metrics.report_plots import WorstFrame

    return [
        WorstFrame(f"{pair.name[:14]} {bad.index}: {bad.psnr:.1f}", bad.reference, bad.generated)
        for bad, pair in worst_of(results)
    ]


def summary_lines(report: Report) -> list[str]:
    found = ((figure, report.interval(figure.name)) for figure in report.measured())
    return [
        f"{figure.name:20s} {interval.mean:8.3f}  [{interval.low:.3f}, {interval.high:.3f}]  n {interval.n}"
        for figure, interval in found
        if interval is not None
    ]


if __name__ == "__main__":
    cli.run(main)
