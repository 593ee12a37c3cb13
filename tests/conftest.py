"""Settings of the whole suite: shapes in signatures are checked, marked tests skip where they cannot run."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

ROOT = Path(__file__).resolve().parents[1]
CHECKED_PACKAGES = ("models", "utils")
SHAPE_TYPE = re.compile(r"\b(Float\d*|BFloat16|U?Int\d*|Bool|Num|Real|Inexact|Shaped)\[")
OFFICIAL_WEIGHTS = ROOT / "pretrained_models" / "joygen" / "config.json"


class WrongShapeError(Exception):
    """An array does not have the shape or number type that a signature states."""


class ShapeChecks(MetaPathFinder):
    """Wraps functions and methods whose signature states a shape, when their module is imported.

    jaxtyping's own import hook wraps every function, which numba-compiled ones and test doubles do not survive.
    """

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in CHECKED_PACKAGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _CheckingLoader(spec.loader)
        return spec


class _CheckingLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for owner in [module, *(item for item in vars(module).values() if inspect.isclass(item))]:
            for name, item in list(vars(owner).items()):
                if isinstance(item, FunctionType) and item.__module__ == module.__name__ and _states_shape(item):
                    setattr(owner, name, _checked(item))


def _checked(function: FunctionType) -> Callable[..., object]:
    typed = jaxtyped(typechecker=beartype)(_with_shapes_alone(function))

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        try:
            return typed(*args, **kwargs)
        except TypeCheckError as error:
            message = str(error)
        function(*args, **kwargs)  # the function's own refusal, if it has one, is the one to see
        raise WrongShapeError(message)

    return call


def _with_shapes_alone(function: FunctionType) -> FunctionType:
    """The function without its other type hints: tests may pass stand-ins, and an int for a float."""
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    functools.update_wrapper(copy, function)
    del copy.__wrapped__
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__annotations__ = {
        name: hint for name, hint in function.__annotations__.items() if SHAPE_TYPE.search(str(hint))
    }
    return copy


def _states_shape(function: FunctionType) -> bool:
    if inspect.isgeneratorfunction(function):  # runs after its call, where no shapes are remembered
        return False
    return any(SHAPE_TYPE.search(str(hint)) for hint in function.__annotations__.values())


sys.meta_path.insert(0, ShapeChecks())


@pytest.fixture(autouse=True)
def fresh_accelerate_state() -> Iterator[None]:
    """accelerate keeps one mixed precision and one state of accumulation per process; each test may choose its own."""
    yield
    if "accelerate.state" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    has_weights = OFFICIAL_WEIGHTS.is_file()
    for item in items:
        if item.get_closest_marker("weights") and not has_weights:
            item.add_marker(pytest.mark.skip(reason=f"no official weights ({OFFICIAL_WEIGHTS})"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
