"""The options of all stages of one run, from a speech, a clip, a folder and flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.pipeline.options import AdaptOptions, EditOptions, MotionOptions, TalkOptions
from utils.core.options import Options, field_names, given_fields, words_of


@dataclass(frozen=True)
class PipelineOptions:
    """The options of all stages of one run; adapt: None without an adaptation to the clip's person."""

    motion: MotionOptions
    edit: EditOptions
    talk: TalkOptions
    adapt: AdaptOptions | None = None

    @classmethod
    def of(
        cls,
        audio_path: Path,
        video_path: Path,
        result_dir: Path,
        flags: Mapping[str, Any],
        adapt_steps: int | None = None,
    ) -> PipelineOptions:
        """The options of a speech and a clip, whose results go below ``result_dir``.

        flags: values by flag name, each for all stages that have the flag (PIPELINE_FLAGS). Raises BadInput for values
        that do not fit.
        """
        from utils.results.store import motion_name

        motion_dir, edit_dir = result_dir / "a2m", result_dir / "edit_expression"
        given = {kind: given_fields(kind, flags, names) for kind, names in PIPELINE_FLAGS.items()}
        motion = MotionOptions(
            audio_path=audio_path,
            result_dir=motion_dir,
            motion_name=motion_name(audio_path),
            **given[MotionOptions],
        )
        edit = EditOptions(
            video_path=video_path, motion_path=motion.motion_path, result_dir=edit_dir, **given[EditOptions]
        )
        talk = TalkOptions(
            audio_path=audio_path,
            video_path=video_path,
            edit_dir=edit_dir,
            result_dir=result_dir / "talk",
            pose_driven=True,
            **given[TalkOptions],
        )
        if adapt_steps is None:
            return cls(motion, edit, talk)
        adapt = AdaptOptions(
            video_path=video_path, result_dir=result_dir / "adapted", steps=adapt_steps, **given[AdaptOptions]
        )
        return cls(motion, edit, replace(talk, unet_path=adapt.unet_path), adapt)

    def commands(self) -> dict[str, list[str]]:
        """Command lines of the stages' scripts, by script, in the order in which they run."""
        stages = {
            "inference_audio2motion.py": self.motion,
            "inference_edit_expression.py": self.edit,
            "adapt.py": self.adapt,
            "inference_joygen.py": self.talk,
        }
        return {script: words_of(options) for script, options in stages.items() if options is not None}


# The fields of each stage that the pipeline takes as flags; it sets the others itself.
PIPELINE_FLAGS: dict[type[Options], list[str]] = {
    MotionOptions: field_names(MotionOptions, without=("audio_path", "result_dir", "motion_name")),
    EditOptions: field_names(EditOptions, without=("video_path", "motion_path", "result_dir", "ignored_whisper_path")),
    TalkOptions: field_names(
        TalkOptions, without=("audio_path", "video_path", "edit_dir", "result_dir", "pose_driven")
    ),
    AdaptOptions: ["seed", "gpu_id", "weights_dir"],
}
