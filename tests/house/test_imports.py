"""The house rules that imports can break: which layer knows which, who opens what, and what an import may do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

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
        *("editing", "generation", "pipeline", "training", "evaluation"),
    ),
}
MEDIA_FILES = {
    "utils/media/video.py",
    "utils/media/video_parts.py",
    "utils/media/audio.py",
    "utils/media/video_timing.py",
}  # the only files that decode or encode
WEIGHT_FILES = {"utils/weights/checkpoints.py"}  # the only file that opens weights
RESULT_FILES = {"utils/results/store.py", "models/editing/clip_store.py"}  # the results, and the finished parts of one
RESULT_NAMES = {
    *(f"{name}.npy" for name in ("boxes", "valid", "coeffs", "landmarks", "source_landmarks", "frame_index")),
    *("strength.npy", "audio.npy", "track.json", "speakers.png"),
}  # intermediate files; other modules use the names' constants
WEIGHT_READERS = {"torch.load", "load_file", "safe_open", "loadmat", "safetensors.torch.load_file", "scipy.io.loadmat"}
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


@pytest.mark.parametrize("path", ALL_FILES, ids=name_of)
def test_media_and_weights_are_opened_in_one_place(path):
    packages = {module.partition(".")[0] for module in imported_modules(path)}
    assert "av" not in packages or name_of(path) in MEDIA_FILES
    readers = WEIGHT_READERS.intersection(called_names(path))
    assert not readers or name_of(path) in WEIGHT_FILES, f"{name_of(path)} opens weights with {readers}"


@pytest.mark.parametrize("path", LIBRARY_FILES + ENTRY_FILES, ids=name_of)
def test_intermediate_files_are_named_in_one_place(path):
    texts = {node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant)}
    assert name_of(path) in RESULT_FILES or not texts & RESULT_NAMES, (
        f"take {texts & RESULT_NAMES} from utils/results/store.py"
    )


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
