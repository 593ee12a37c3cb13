"""Speech and a clip in, a talking video out: the three stages in turn, and the class that programs call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from threading import Thread
from typing import Any

from models.layers.diffusers_classes import diffusers_class
from models.pipeline.adapt_stage import adapt_person
from models.pipeline.edit_stage import edit_clip
from models.pipeline.motion_stage import make_motion
from models.pipeline.pipeline_options import PIPELINE_FLAGS, PipelineOptions
from models.pipeline.talk_stage import TalkResult, draw_talk
from models.tracking.mediapipe import SOLUTIONS, mediapipe_solution
from utils.core.monitor import CallbackMonitor, Monitor
from utils.core.options import flag_name
from utils.weights.packs import resolve_pack


class TalkingFacePipeline:
    """The three stages with one set of weights.

        pipeline = TalkingFacePipeline.from_pretrained()
        result = pipeline(audio="speech.wav", video="clip.mp4", out="results/anna")
        print(result.path)

    weights_dir: an official tree or a mini pack; None: the official tree if it is complete, else the embedded pack.
    gpu_id: CUDA device, if there is one; -1: the CPU.
    """

    def __init__(self, weights_dir: Path | None = None, gpu_id: int = 0) -> None:
        self.weights_dir, self.gpu_id = weights_dir, gpu_id

    @classmethod
    def from_pretrained(cls, directory: Path | str | None = None, gpu_id: int = 0) -> TalkingFacePipeline:
        """Raises BadInput if the folder holds no complete set of weights. Networks are loaded when they are needed."""
        weights_dir = None if directory is None else Path(directory)
        resolve_pack(weights_dir)
        return cls(weights_dir, gpu_id)

    def __call__(
        self,
        audio: Path | str,
        video: Path | str,
        out: Path | str,
        progress: Callable[[str, int, int | None], None] | None = None,
        is_cancelled: Callable[[], bool] | None = None,
        adapt: int | None = None,
        **flags: Any,
    ) -> TalkResult:
        """Write <out>/talk/<video>#<audio>.mp4, and the files of stages 1 and 2 beside it, as the commands do.

        progress(step, n_done, total): called for every frame of a step. is_cancelled: asked before every frame; if
        true, Cancelled is raised, finished parts stay, and the same call resumes. adapt: steps of fine-tuning on the
        clip before stage 3, None for no fine-tuning. flags: the others of inference_pipeline.py without their dashes,
        such as seed=3, length="loop", speaker="left", unet_model_path="models/unet".
        Raises BadInput and StageFailure with the messages of the commands, TypeError for an unknown flag.
        """
        require_known(flags)
        given = {"gpu_id": self.gpu_id} | flags
        if self.weights_dir is not None:
            given = {"weights_dir": self.weights_dir} | given
        options = PipelineOptions.of(Path(audio), Path(video), Path(out), given, adapt)
        return run_pipeline(options, CallbackMonitor(progress, is_cancelled))


def require_known(flags: Mapping[str, Any]) -> None:
    """Raise TypeError for a flag that no stage has."""
    known = {
        flag_name(field) for kind, names in PIPELINE_FLAGS.items() for field in fields(kind) if field.name in names
    }
    if unknown := sorted(flags.keys() - known):
        raise TypeError(f"unknown flag {unknown[0]!r}: expected some of {', '.join(sorted(known))}")


def run_pipeline(options: PipelineOptions, monitor: Monitor) -> TalkResult:
    """Run all stages in this process. What is finished when one of them fails stays."""
    make_motion(options.motion, monitor)
    Thread(target=load_ahead).start()  # while stage 2 tracks, one core is idle
    edit_clip(options.edit, monitor)
    if options.adapt is not None:
        adapt_person(options.adapt, monitor)
    result = draw_talk(options.talk, monitor)
    if options.talk.clean:
        clean(options)
    return result


def load_ahead() -> None:
    """Import the libraries that stages 2 and 3 wait for; a failure shows again where they are used."""
    with suppress(ImportError, OSError, RuntimeError, MemoryError):  # diffusers makes RuntimeErrors of some
        for name in SOLUTIONS:
            mediapipe_solution(name)
        for name in ("AutoencoderKL", "UNet2DConditionModel"):
            diffusers_class(name)


def clean(options: PipelineOptions) -> None:
    """Remove stage 1's file, and the folders of stages 1 and 2 unless other speeches' files are in them."""
    options.motion.motion_path.unlink(missing_ok=True)
    for emptied in (options.motion.result_dir, options.edit.result_dir):
        if emptied.is_dir() and not any(emptied.iterdir()):
            emptied.rmdir()
