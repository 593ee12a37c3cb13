"""YAML files become typed, frozen dataclasses once, at the edge; anything unknown or mistyped is an error.

The dataclass is the only place for a default: a field without one must stand in the file.
Field types: bool, int, float, str, Path, Literal, ``X | None``, tuple[X, ...], tuple[X, Y] and nested dataclasses;
numbers may have bounds (``batch_size: Count = 16``), and are always finite.
"""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from utils.core.errors import BadInput

T = TypeVar("T")


_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
# Raised by PyYAML on damaged YAML; found by fuzzing.
_UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Bounds:
    """Range of a number, ``low`` to ``high``; an open end is excluded."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, number: float) -> bool:
        above = number > self.low if self.open_low else number >= self.low
        return above and (number < self.high if self.open_high else number <= self.high)

    def __str__(self) -> str:
        texts = [f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"]
        if self.high < math.inf:
            texts.append(f"below {self.high:g}" if self.open_high else f"at most {self.high:.9g}")
        return ", ".join(texts)


Whole = Annotated[int, Bounds(0)]
Count = Annotated[int, Bounds(1)]
Size = Annotated[int, Bounds(1, 1 << 20)]  # of a network; more does not fit into memory
Layers = Annotated[int, Bounds(1, 1000)]  # more take minutes to build
Seed = Annotated[int, Bounds(0, (1 << 63) - 1)]
Amount = Annotated[float, Bounds(0)]
Positive = Annotated[float, Bounds(0, open_low=True)]
Share = Annotated[float, Bounds(0, 1)]
OpenShare = Annotated[float, Bounds(0, 1, open_low=True, open_high=True)]
Decay = Annotated[float, Bounds(0, 1, open_high=True)]  # of a running average
Factor = Annotated[float, Bounds(0, 1, open_low=True)]  # of a learning rate


def load_config(cls: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into the dataclass ``cls``; ``overrides`` such as "opti.max_steps=20" come on top.

    Raises BadInput for a missing or unreadable file, an unknown or missing key, or a value of the wrong type.
    """
    if not path.is_file():
        raise BadInput("config file missing", path, "a YAML file", "nothing", "check the path")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise BadInput("unreadable config", path, "a text file", str(error)) from error
    values = parse_yaml(text, path)
    if not isinstance(values, dict):
        raise BadInput("config file is not a mapping", path, "key: value lines", type(values).__name__)
    for override in overrides:
        _apply_override(values, override, path)
    return _build(cls, values, path, prefix="")


def to_dict(config: Any) -> dict[str, Any]:
    """The plain values of a config (paths as text, tuples as lists), ready for YAML or JSON."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the config values that differ."""
    changed = []
    for key in new:
        before, after = old.get(key), new[key]
        if isinstance(before, dict) and isinstance(after, dict):
            changed += changed_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(prefix + key)
    return changed


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def parse_yaml(text: str, path: Path) -> Any:
    """Parse YAML text. Raises BadInput for whatever PyYAML raises."""
    try:
        return yaml.safe_load(text)
    except _UNREADABLE as error:
        raise BadInput("unreadable config", path, "YAML", str(error) or type(error).__name__) from error


def _apply_override(values: dict[str, Any], override: str, path: Path) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise BadInput("unreadable override", expected="key=value", found=override)
    *groups, last = dotted.split(".")
    for group in groups:
        values = values.setdefault(group, {})
        if not isinstance(values, dict):
            raise BadInput("override does not fit", path, f"{group} to be a group of keys", override)
    values[last] = parse_yaml(text, path)


def _build(cls: type[T], values: Mapping[str, Any], path: Path, prefix: str) -> T:
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise BadInput("unknown config key", path, f"one of {', '.join(fields)}", f"{prefix}{_short(key)}")
    hints = get_type_hints(cls, include_extras=True)
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], path, prefix + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise BadInput("config key missing", path, f"{prefix}{name}", "nothing", "add it, or start from config/")
    try:
        return cls(**arguments)
    except ValueError as error:  # values that do not go together
        raise BadInput("config values of no use", path, found=f"{prefix.rstrip('.') or 'values'}: {error}") from error


def _convert(hint: Any, value: Any, path: Path, name: str) -> Any:
    """Check one value against its annotation; only int → float and text → Path or float change its type."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kind, bounds = options
        number = _convert(kind, value, path, name)
        if not bounds.holds(number):
            raise BadInput(f"config value out of range: {name}", path, f"a number {bounds}", _short(value))
        return number
    if origin in (types.UnionType, Union) and type(None) in options:
        (inner,) = (option for option in options if option is not type(None))
        return None if value is None else _convert(inner, value, path, name)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _build(hint, value, path, prefix=f"{name}.")
    if origin is Literal and value in options:
        return value
    if origin is tuple and isinstance(value, list):
        inner = options[:1] * len(value) if options[-1] is Ellipsis else options
        if len(inner) == len(value):
            return tuple(_convert(i, v, path, f"{name}[]") for i, v in zip(inner, value, strict=True))
    if hint is float and (number := _finite_number(value)) is not None:
        return number
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    raise BadInput(f"config value of the wrong type: {name}", path, _hint_text(hint), reprlib.repr(value))


def _finite_number(value: Any) -> float | None:
    """Numbers, and text such as 1e-5, which YAML 1.1 does not take for a number; None: anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _short(value: Any) -> str:
    return value if isinstance(value, str) and len(value) < 60 else reprlib.repr(value)


def _hint_text(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if hint is float:
        return "float, a finite number"
    return getattr(hint, "__name__", None) or str(hint)
