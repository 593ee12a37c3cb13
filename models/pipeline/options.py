"""The options of every stage: one frozen dataclass each, one place per default, help text beside the field.

Flags keep the original's names where it has them. Options that name files or do not change the result are no part of a
result's key (``keyed=False``): files count with their content.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from utils.core.cli import DeviceOptions, resolve_batch_size, resolve_dtype
from utils.core.config import Amount, Bounds, Count, OpenShare, Seed
from utils.core.errors import BadInput
from utils.core.options import file_name, option, true_or_false
from utils.core.types import MOTION_FPS, FrameRate, Length
from utils.people.speaker import SYNTAX, Speaker, parse_speaker
from utils.weights import packs
from utils.weights.official_files import fetch_advice

if TYPE_CHECKING:
    import torch

UPSTREAM_ONLY = "accepted for the original's command lines, without effect"
Smoothing = Literal["none", "box", "all"]
SamplingSeed = Annotated[int, Bounds(-(1 << 63), (1 << 63) - 1)]  # torch's range
Reference = Literal["auto", "composed", "open", "same"]


def frame_rate(text: str) -> str:
    """25.0 is 25; anything else stays as it is, to be checked against FrameRate."""
    try:
        return str(MOTION_FPS) if float(text) == MOTION_FPS else text
    except ValueError:
        return text


@dataclass(frozen=True, kw_only=True)
class WeightsOptions(DeviceOptions):
    """Where weights come from."""

    weights_dir: Path | None = option(
        None,
        help="folder of weights: a tree as pretrained_models/README.md lists it, or a mini pack (default: the official "
        "tree if it is complete, else the mini pack)",
        keyed=False,
    )


@dataclass(frozen=True, kw_only=True)
class StageOptions(WeightsOptions):
    """What every stage takes."""

    faithful: bool = option(False, help="upstream's behaviour in every point of FIDELITY.md")


@dataclass(frozen=True, kw_only=True)
class MotionOptions(StageOptions):
    """Stage 1: speech to expression coefficients."""

    audio_path: Path = option(flag="drv_aud", help="speech: any file with a sound track", keyed=False)
    result_dir: Path = option(Path("results/a2m"), help="folder of the result", keyed=False)
    motion_name: Path | None = option(
        None, flag="exp_file", parse=file_name, help="name of the result in --result_dir (default: <speech>.npy)"
    )
    audio2motion_path: Path | None = option(
        None, flag="a2m_ckpt", help="audio2motion checkpoint or its folder (default: the pack's)", keyed=False
    )
    hubert_path: Path | None = option(
        None, help="HuBERT folder (default: the pack's); used by networks on HuBERT features only", keyed=False
    )
    seed: SamplingSeed = option(0, help="random seed of motion sampling")
    temperature: Amount = option(0.2, help="scale of the sampling noise; 0: deterministic")
    mouth_amp: Amount = option(0.45, help="mouth amplitude, for networks that are conditioned on it")
    silence: Literal["close", "off"] | None = option(
        None,
        help="close: hold the mouth still where nobody speaks and close it in long pauses; off: the network's output "
        "as it is (default: close with the mini pack, off with official weights and with --faithful)",
    )

    @property
    def motion_path(self) -> Path:
        """Where the result goes."""
        from utils.results.store import motion_path

        return motion_path(self.result_dir, self.motion_name or Path(self.audio_path.stem))

    def resolve_pack(self) -> packs.Pack:
        return packs.resolve_pack(self.weights_dir, audio2motion=self.audio2motion_path, hubert=self.hubert_path)


@dataclass(frozen=True, kw_only=True)
class FaceOptions(StageOptions):
    """What finds, reconstructs and renders faces, in stage 2 and in the preparation of training data."""

    face_model_path: Path | None = option(
        None, flag="bfm_folder", help="BFM folder or face_model.safetensors (default: the pack's)", keyed=False
    )
    recon: Literal["auto", "net", "fit"] = option(
        "auto",
        help="coefficients from the image by ResNet-50 (net) or fitted to landmarks (fit); auto: net if it is there",
    )
    checkpoints_dir: Path | None = option(
        None, help="folder of ResNet-50 weights: <checkpoints_dir>/<name>/epoch_<epoch>.pth", keyed=False
    )
    recon_name: str | None = option(
        None, flag="name", help=f"name of the ResNet-50's training (default: {packs.RECON_NAME})", keyed=False
    )
    recon_epoch: str | None = option(
        None, flag="epoch", help=f"epoch of the ResNet-50's training (default: {packs.RECON_EPOCH})", keyed=False
    )
    use_opengl: bool = option(False, parse=true_or_false, help="nvdiffrast renders with OpenGL instead of CUDA")
    dwpose_model_path: Path | None = option(
        None, help="DWPose .onnx for the 68 face points (default: MediaPipe's)", keyed=False
    )
    dwpose_config_file: Path | None = option(None, help=f"{UPSTREAM_ONLY}; an .onnx needs none", keyed=False)
    ignored_whisper_path: Path | None = option(
        None, flag="whisper_model_path", help=f"{UPSTREAM_ONLY} here", keyed=False
    )
    smoothing: Smoothing | None = option(
        None,
        help="smoothing over time: none, box (the crop box) or all (the landmarks too) (default: box; none with "
        "--faithful)",
    )
    speaker: Speaker | None = option(
        None,
        parse=parse_speaker,
        metavar="WHO",
        help=f"person whose face is used: {SYNTAX} (a pixel on the face). Numbers count from the left; auto (default): "
        "the person whose mouth moves with the clip's own speech, if it has some, else the most prominent one",
    )

    @property
    def resolved_smoothing(self) -> Smoothing:
        return self.smoothing or ("none" if self.faithful else "box")

    def resolve_pack(self) -> packs.Pack:
        """The weights that the options name; ``recon`` is None where coefficients are fitted to landmarks.

        ``dwpose`` is None unless an option names it, or ``faithful`` asks for it and the pack has it.
        Raises BadInput if a named file is missing, or if --recon net finds no weights.
        """
        named_recon = self._named_recon()
        pack = packs.resolve_pack(
            self.weights_dir, face_model=self.face_model_path, recon=named_recon, dwpose=self._named_dwpose()
        )
        if self.dwpose_model_path is None and not self.faithful:
            pack = replace(pack, dwpose=None)
        is_mini_face = pack.face_model.is_file() and self.recon == "auto" and named_recon is None
        if self.recon == "fit" or is_mini_face:
            return replace(pack, recon=None)
        if self.recon == "net" and pack.recon is None:
            path = packs.recon_path(self.weights_dir or packs.OFFICIAL_DIR)
            raise BadInput("weights missing: recon", path, "a file", "nothing", fetch_advice(path))
        return pack

    def notes(self) -> list[str]:
        """One line for every option that is given and has no effect."""
        upstream = {"dwpose_config_file": self.dwpose_config_file, "whisper_model_path": self.ignored_whisper_path}
        lines = [f"note: --{name} has no effect in this stage" for name, value in upstream.items() if value]
        if self.recon == "fit" and (self.checkpoints_dir or self.recon_name or self.recon_epoch):
            lines.append("note: --checkpoints_dir, --name and --epoch have no effect with --recon fit")
        return lines

    def _named_dwpose(self) -> Path | None:
        """The .onnx beside a .pth that is named, as the original's command lines do."""
        named = self.dwpose_model_path
        if named is not None and named.suffix == ".pth" and named.with_suffix(".onnx").is_file():
            return named.with_suffix(".onnx")
        return named

    def _named_recon(self) -> Path | None:
        """The ResNet-50 that the options name, None if they name none or landmarks are to be fitted anyway."""
        named = (self.checkpoints_dir, self.recon_name, self.recon_epoch)
        if self.recon == "fit" or named == (None, None, None):
            return None
        return packs.recon_path(
            self.checkpoints_dir or self.weights_dir or packs.OFFICIAL_DIR,
            self.recon_name or packs.RECON_NAME,
            self.recon_epoch or packs.RECON_EPOCH,
        )


@dataclass(frozen=True, kw_only=True)
class ClipOptions(FaceOptions):
    """A clip, its result folder, and whose face is edited in it: what --list-speakers needs of stage 2."""

    video_path: Path = option(flag="infer_video_path", help="clip to edit", keyed=False)
    result_dir: Path = option(
        Path("results/edit_expression"),
        flag="infer_result_dir",
        help="folder that gets a folder <clip>/<speech>",
        keyed=False,
    )


@dataclass(frozen=True, kw_only=True)
class EditOptions(ClipOptions):
    """Stage 2: a clip's face with a new expression, as landmarks and depth images."""

    motion_path: Path = option(
        flag="infer_exp_coeff_path", help="expression coefficients of stage 1, .npy [T, 64]", keyed=False
    )
    fps: FrameRate | None = option(
        None,
        parse=frame_rate,
        help="frame rate of the result: 25, or the clip's own (source) (default: source; 25 with --faithful)",
    )
    length: Length = option(
        "pingpong",
        help="length of the result where the speech outlasts the clip: show the clip backwards and forwards (pingpong, "
        "default) or again (loop), hold its last frame, or cut the speech; silence: the whole clip, silent after the "
        "speech",
    )
    style: Literal["auto", "off"] = option(
        "auto",
        help="auto (default): adapt the motion to the speaker's resting face, liveliness and slow changes of "
        "expression, with the mini pack's face model; off: stage 1's motion as it is, as with --faithful or BFM",
    )
    force: bool = option(False, help="start anew, even if the result or finished parts are there", keyed=False)

    @property
    def resolved_fps(self) -> FrameRate:
        return self.fps or ("25" if self.faithful else "source")


@dataclass(frozen=True, kw_only=True)
class TalkOptions(StageOptions):
    """Stage 3: the clip with the generated mouth and the speech."""

    audio_path: Path = option(help="speech: any sound file", keyed=False)
    video_path: Path = option(help="clip that stage 2 edited", keyed=False)
    edit_dir: Path = option(
        Path("results/edit_expression"), flag="intermediate_dir", help="stage 2's --infer_result_dir", keyed=False
    )
    result_dir: Path = option(Path("results/talk"), help="folder that gets <clip>#<speech>.mp4", keyed=False)
    pose_driven: bool = option(False, flag="enable_pose_driven", help="follow stage 2's depth, not only the sound")
    unet_path: Path | None = option(
        None, flag="unet_model_path", help="folder of the generator (default: the pack's)", keyed=False
    )
    vae_path: Path | None = option(
        None, flag="vae_model_path", help="folder of the VAE (default: the pack's)", keyed=False
    )
    vae: Literal["full", "tiny"] = option(
        "full", help="kind of VAE; tiny: diffusers' AutoencoderTiny from --vae_model_path, a fast approximation"
    )
    whisper_path: Path | None = option(
        None, flag="whisper_model_path", help="Whisper's .pt (default: the pack's)", keyed=False
    )
    image_size: int | None = option(None, flag="img_size", help="side of the face crop in pixels (default: the pack's)")
    fps: FrameRate | None = option(
        None,
        parse=frame_rate,
        help="frame rate of stage 2's result, to check: 25 or source (default: accept any)",
        keyed=False,
    )
    batch_size: Count | None = option(
        None, help="frames per batch (default: 8; on a GPU up to 32, by its memory)", keyed=False
    )
    dtype: Literal["auto", "float32", "bfloat16"] = option(
        "auto",
        help="number format of generator and VAE (auto: 16 bits where the hardware supports them; float32 with "
        "--faithful)",
        keyed=False,
    )
    reference: Reference | None = option(
        None,
        help="reference image of the face: the frame itself warped to the new lips, with the teeth of frames with "
        "similar lips (composed); frames with an open mouth and a similar pose (open); each frame itself (same, "
        "default with --faithful); or what the generator was trained with (auto, default)",
        keyed=False,
    )
    seed: SamplingSeed = option(0, help="random seed of the latents that --faithful samples")
    debug: bool = option(False, help="write a contact sheet (.png) beside the video", keyed=False)
    force: bool = option(False, help="start anew, even if the result or finished parts are there", keyed=False)
    clean: bool = option(False, help="remove stage 2's folder of this speech in the end", keyed=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vae == "tiny" and self.vae_path is None:
            advice = "give --vae_model_path FOLDER, such as a download of madebyollin/taesd"
            raise BadInput("tiny VAE without weights", None, "a folder of diffusers' AutoencoderTiny", "none", advice)

    def resolve_pack(self) -> packs.Pack:
        return packs.resolve_pack(self.weights_dir, unet=self.unet_path, vae=self.vae_path, whisper=self.whisper_path)

    def resolve_image_size(self, pack: packs.Pack) -> int:
        return pack.image_size if self.image_size is None else self.image_size

    def resolve_reference(self, pack: packs.Pack) -> Reference:
        """auto: what the generator of ``pack`` was trained with."""
        named = self.reference or ("same" if self.faithful else "auto")
        if named != "auto":
            return named
        return "composed" if pack.refiner else "open"

    def resolve_dtype(self) -> torch.dtype:
        """auto: the device's fastest format that stays faithful; float32 with ``faithful``."""
        import torch

        if self.dtype != "auto":
            named: torch.dtype = getattr(torch, self.dtype)
            return named
        return torch.float32 if self.faithful else resolve_dtype(self.device)

    def resolve_batch_size(self) -> int:
        return self.batch_size or resolve_batch_size(self.device)


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(WeightsOptions):
    """Fine-tuning of the generator on one clip."""

    video_path: Path = option(help="clip of the person, with or without sound")
    result_dir: Path = option(Path("results/adapted"), help="folder that gets a folder <clip>")
    steps: Count = option(300, help="steps of the optimiser, at most; fewer once held-back frames gain nothing more")
    batch_size: Count = option(8, help="frames per step")
    lr: OpenShare = option(5e-4, help="highest learning rate")
    held_back: OpenShare = option(0.1, help="share of the clip, at its end, that measures the gain")
    seed: Seed = option(0, help="random seed of the frames that a step sees")

    @property
    def unet_path(self) -> Path:
        """Where the adapted generator goes."""
        return self.result_dir / self.video_path.stem / "unet"
