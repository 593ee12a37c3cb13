"""Rules on imports: order of layers and rooms, places of codecs, weights and file names, effects of an import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.helpers.origins import Project, Use

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {"utils": 0, "models": 1, "scripts": 2, "benchmarks": 4}  # a layer imports itself and what is below it
ENTRY_LAYER = 3  # these do not import each other
ROOMS = {  # in the order in which they may import: a room uses itself and those before it on its floor
    "utils": (
        *("core", "files", "weights", "media", "imaging", "people"),
        *("results", "data", "curation", "training", "metrics"),
    ),
    "models": (
        *("layers", "audio", "face3d", "motion", "lipsync", "tracking"),
        *("editing", "generation", "training", "pipeline", "evaluation"),
    ),
}
# Codecs of video and sound, and readers of weights, by the beginnings of their origins.
CODECS = (
    *("av", "cv2.VideoCapture", "cv2.VideoWriter", "imageio", "librosa.load", "librosa.stream", "librosa.core.audio"),
    *(
        "parselmouth.read",
        "scipy.io.wavfile",
        "soundfile",
        "torchaudio",
        "torchvision.io",
        "wave",
        "whisper.load_audio",
    ),
    *("whisper.audio.load_audio",),
)
WEIGHT_READERS = (
    *("h5py", "joblib", "onnx.load", "onnxruntime.InferenceSession", "pickle.load", "pickle.loads", "pickle.Unpickler"),
    *("safetensors.safe_open", "safetensors.torch.load", "safetensors.torch.load_file", "safetensors.numpy"),
    *(
        "scipy.io.loadmat",
        "torch.hub",
        "torch.jit.load",
        "torch.load",
        "torch.serialization.load",
        "whisper.load_model",
    ),
)
LOADING_METHODS = ("from_pretrained", "from_single_file", "load_from_checkpoint")  # of a library's class
ARRAY_READERS = ("numpy.load", "numpy.lib.format.read_array")  # anywhere, but never with pickle
OPENED_ELSEWHERE = {
    # ONNX Runtime reads a graph together with its weights; the path comes from utils/weights/packs.py.
    ("models.tracking.dwpose", "onnxruntime.InferenceSession"),
}
RESULT_NAMES = {
    *(f"{name}.npy" for name in ("boxes", "valid", "coeffs", "landmarks", "source_landmarks", "frame_index")),
    *("strength.npy", "audio.npy", "track.json", "speakers.png"),
}  # intermediate files
ARRAY_NAMES_ELSEWHERE = {  # rooms and modules that name .npy files which are no intermediate results
    "utils.weights",  # files of weights
    "models.face3d.bfm_folder",  # the index file of the Basel Face Model
    "utils.data.shards",  # the table of a shard
    "utils.data.shard_writer",
}
SHAPE_TYPES = {"Float", "Float16", "Float32", "Float64", "Int", "Int32", "Int64", "UInt8", "Bool", "Num", "Shaped"}
REQUIREMENT_FILES = ("requirements.txt", "requirements-nodeps.txt", "requirements-cluster.txt")
SLOW_PACKAGES = (
    "accelerate",
    "av",
    "cv2",
    "diffusers",
    "librosa",
    "mediapipe",
    "numba",
    "onnxruntime",
    "parselmouth",
    "scipy",
    "torch",
    "transformers",
    "whisper",
)


def files_of(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


ENTRY_FILES = sorted(ROOT.glob("*.py"))
OWN_PACKAGES = {*LAYERS, *(path.stem for path in ENTRY_FILES)}
LIBRARY_FILES = files_of("utils", "models")
ALL_FILES = LIBRARY_FILES + files_of("scripts", "benchmarks") + ENTRY_FILES


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    return name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def layer_of(path: Path) -> int:
    return LAYERS.get(path.relative_to(ROOT).parts[0], ENTRY_LAYER)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(path: Path) -> Iterator[str]:
    """Every imported module, also those inside functions; for `from a import b` both a and a.b."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def called_names(path: Path) -> Iterator[str]:
    return (ast.unparse(node.func) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))


@pytest.mark.parametrize("path", ALL_FILES, ids=name_of)
def test_arrows_go_down(path):
    own_layers = LAYERS | {entry.stem: ENTRY_LAYER for entry in ENTRY_FILES}
    for module in imported_modules(path):
        layer = own_layers.get(module.partition(".")[0])
        if layer is None:
            continue
        assert layer <= layer_of(path), f"{name_of(path)} imports {module}, which stands above it"
        is_sibling = layer == layer_of(path) == ENTRY_LAYER
        assert not is_sibling, f"{name_of(path)} imports the entry script {module}; move what both need"


@pytest.mark.parametrize("path", LIBRARY_FILES, ids=name_of)
def test_rooms_import_in_their_order(path):
    floor, *inside = path.relative_to(ROOT).parts
    if inside == ["__init__.py"]:
        return
    assert len(inside) == 2, f"{name_of(path)} stands in no room"
    rooms = ROOMS[floor]
    for module in imported_modules(path):
        other_floor, _, rest = module.partition(".")
        other = rest.partition(".")[0]
        if other_floor == floor and other:
            assert other in rooms, f"{name_of(path)} imports {module}, which stands in no room"
            assert rooms.index(other) <= rooms.index(inside[0]), f"{name_of(path)} imports {module}, a later room"


@cache
def project() -> Project:
    return Project.read(ROOT, ALL_FILES)


def begins_with(origin: str, names: Iterable[str]) -> bool:
    return any(origin == name or origin.startswith(f"{name}.") for name in names)


def codec_uses(project: Project, module: str) -> list[Use]:
    return [use for use in project.uses(module) if begins_with(use.origin, CODECS)]


def weight_reads(project: Project, module: str) -> list[Use]:
    """Uses of readers of weights, and calls of numpy that unpickle."""
    found = []
    for use in project.uses(module):
        is_own = use.origin.partition(".")[0] in OWN_PACKAGES
        is_loading = use.origin.rpartition(".")[2] in LOADING_METHODS and not is_own
        if begins_with(use.origin, WEIGHT_READERS) or is_loading or (use.origin in ARRAY_READERS and runs_pickles(use)):
            found.append(use)
    return found


def runs_pickles(use: Use) -> bool:
    stated = [word.value for word in use.call.keywords if word.arg == "allow_pickle"] if use.call else []
    return any(not isinstance(value, ast.Constant) or value.value is not False for value in stated)


def named_results(project: Project, module: str) -> set[str]:
    """Intermediate files that a module names by a string or by a constant of another module."""
    constants = {project.constant(use.origin) for use in project.uses(module)}
    return {name for name in project.texts(module) | constants if name in RESULT_NAMES}


@pytest.mark.parametrize("path", ALL_FILES, ids=name_of)
def test_only_media_decodes_and_encodes(path):
    module = module_of(path)
    uses = [
        use for use in codec_uses(project(), module) if (module, use.origin.partition(".")[0]) not in OPENED_ELSEWHERE
    ]
    assert not uses or begins_with(module, ["utils.media"]), f"{name_of(path)}:{uses[0].line}: {uses[0].origin}"


@pytest.mark.parametrize("path", ALL_FILES, ids=name_of)
def test_only_weights_opens_weights(path):
    module = module_of(path)
    uses = [use for use in weight_reads(project(), module) if (module, use.origin) not in OPENED_ELSEWHERE]
    assert not uses or begins_with(module, ["utils.weights"]), f"{name_of(path)}:{uses[0].line}: {uses[0].origin}"


@pytest.mark.parametrize("path", ALL_FILES, ids=name_of)
def test_only_results_names_intermediate_files(path):
    module = module_of(path)
    if begins_with(module, ["utils.results"]):
        return
    named = named_results(project(), module)
    assert not named, f"{name_of(path)} names {named}: ask utils/results"
    if path in LIBRARY_FILES + ENTRY_FILES and not begins_with(module, ARRAY_NAMES_ELSEWHERE):
        arrays = [text for text in project().texts(module) if text.endswith(".npy")]
        assert not arrays, f"{name_of(path)} names {arrays}: ask utils/results, or list it in ARRAY_NAMES_ELSEWHERE"


def test_no_exception_is_left_over():
    uses = {(module_of(path), use.origin) for path in ALL_FILES for use in project().uses(module_of(path))}
    assert uses >= OPENED_ELSEWHERE
    naming = {
        module_of(path) for path in ALL_FILES if any(t.endswith(".npy") for t in project().texts(module_of(path)))
    }
    assert all(any(begins_with(module, [name]) for module in naming) for name in ARRAY_NAMES_ELSEWHERE)


@pytest.mark.parametrize("path", ALL_FILES, ids=name_of)
def test_imported_packages_are_required(path):
    required = required_packages()
    distributions = distributions_of_packages()
    for package in {module.partition(".")[0] for module in imported_modules(path)}:
        names = {canonical(name) for name in distributions.get(package, [])}
        assert not names or names & required, f"{name_of(path)}: add {package} to requirements.txt"


@cache
def required_packages() -> set[str]:
    lines = [line for name in REQUIREMENT_FILES for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    return {canonical(line.partition("==")[0]) for line in lines if "==" in line.partition("#")[0]}


@cache
def distributions_of_packages() -> Mapping[str, list[str]]:
    return packages_distributions()


def canonical(name: str) -> str:
    return name.lower().replace("_", "-")


@pytest.mark.parametrize("path", ALL_FILES, ids=name_of)
def test_device_and_search_path_are_left_alone(path):
    calls = list(called_names(path))
    assert not [call for call in calls if call.endswith(".cuda")], "a device is an argument: use .to(device)"
    assert not [call for call in calls if call.startswith("sys.path.")]


def test_commands_parse_with_one_line_errors_and_pass_typed_options():
    parsers = [name_of(path) for path in ALL_FILES if "argparse.ArgumentParser" in called_names(path)]
    assert not parsers, "use parse_options or CommandParser of utils/core/options.py"
    parameters = [
        f"{name_of(path)}:{node.lineno}"
        for path in ALL_FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.arg) and node.annotation and ast.unparse(node.annotation) == "argparse.Namespace"
    ]
    assert not parameters, "pass an Options dataclass"


@pytest.mark.parametrize("path", ALL_FILES, ids=name_of)
def test_shapes_are_strings(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in SHAPE_TYPES:
            stated = node.slice.elts[-1] if isinstance(node.slice, ast.Tuple) else node.slice
            is_string = isinstance(stated, ast.Constant) and isinstance(stated.value, str)
            assert is_string, f"{name_of(path)}:{node.lineno}: write the shape in quotes: {ast.unparse(node)}"


@pytest.fixture(scope="module")
def import_of_everything():
    """Import every module in a fresh interpreter in which no network can be built."""
    modules = [module_of(path) for path in LIBRARY_FILES + ENTRY_FILES]
    program = f"""
import importlib, os, sys
import torch
def refuse(*args, **kwargs):
    raise RuntimeError("a network was built by an import")
torch.nn.Module.__init__ = refuse
search_path, folder = list(sys.path), os.getcwd()
for name in {modules!r}:
    importlib.import_module(name)
assert sys.path == search_path and os.getcwd() == folder, "an import changed the search path or the folder"
assert not torch.cuda.is_initialized(), "an import touched the GPU"
"""
    return run_python("-c", program)


def test_importing_builds_nothing(import_of_everything):
    assert import_of_everything.returncode == 0, import_of_everything.stderr
    assert import_of_everything.stdout == ""


@pytest.mark.parametrize("path", ENTRY_FILES, ids=name_of)
def test_help_works_and_loads_no_slow_package(path):
    program = f"""
import runpy, sys
sys.argv = [{name_of(path)!r}, "--help"]
try:
    runpy.run_path({name_of(path)!r}, run_name="__main__")
except SystemExit as end:
    assert end.code in (0, None), end.code
loaded = [name for name in {SLOW_PACKAGES!r} if name in sys.modules]
assert not loaded, f"--help loads {{loaded}}"
"""
    result = run_python("-c", program)
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stdout


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
