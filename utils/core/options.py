"""Frozen dataclasses of options and their command lines: type, default, bounds and help stand beside each field.

    @dataclass(frozen=True, kw_only=True)
    class MotionOptions(Options):
        audio_path: Path = option(flag="drv_aud", help="speech: any file with a sound track")
        temperature: Amount = option(0.2, help="scale of the sampling noise; 0: deterministic")

Field types: bool, int, float, str, Path, Literal, bounded numbers (utils/core/config.py), ``X | None``, tuple[X, ...]
for flags with several values, and any other type whose field has ``parse``.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import os
import sys
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from utils.core.config import Bounds
from utils.core.errors import BadInput

T = TypeVar("T", bound="Options")

_KIND_NAMES = {int: "a whole number", float: "a number"}
_OTHER_NAMES = {bool: "True or False", str: "text", Path: "a path"}
_PLAIN = (bool, int, float, str)  # of which no subclass serves: True is no number


@dataclass(frozen=True)
class Flag:
    """How a field appears on the command line. keyed: whether the value is part of a result's key."""

    help: str
    name: str | None
    aliases: tuple[str, ...]
    parse: Callable[[str], Any] | None
    metavar: str | None
    keyed: bool
    is_positional: bool


def option(
    default: Any = MISSING,
    *,
    help: str,  # argparse's own word
    flag: str | None = None,
    aliases: tuple[str, ...] = (),
    parse: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    keyed: bool = True,
    positional: bool = False,
) -> Any:
    """A field of an Options class; without ``default`` the flag is required. A tuple may be empty if its default is ().

    flag: its name if it differs from the field's. parse: text → value, raises ValueError("expected …, found …").
    keyed: False for what does not change the result, and for files, whose content counts instead.
    """
    stated = Flag(help, flag, aliases, parse, metavar, keyed, positional)
    return dataclasses.field(default=default, metadata={"flag": stated})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all option classes: values of another type become what the command line makes of their text.

    Such as "3", numpy's 3 or a path as text. Raises BadInput for what is no such text, a number out of bounds, or an
    unknown choice.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), _kind_of(type(self), field.name)
            if value is None and kind.is_optional:
                continue
            flag, items = flag_of(field), value if isinstance(value, tuple | list) and kind.is_tuple else (value,)
            try:
                items = tuple(kind.converted(item, flag.parse) for item in items)
            except ValueError as error:
                raise BadInput(f"--{flag_name(field)}: {error}") from error
            for item in items:
                if problem := kind.problem(item):
                    raise BadInput(f"--{flag_name(field)}", expected=problem, found=str(item))
            object.__setattr__(self, field.name, items if kind.is_tuple else items[0])


@dataclass(frozen=True)
class _Kind:
    """A field's type, taken apart."""

    base: Any
    bounds: Bounds | None
    choices: tuple[Any, ...]
    is_optional: bool
    is_tuple: bool

    def converted(self, value: Any, parse: Callable[[str], Any] | None) -> Any:
        """The value as an instance of the type, where its text can be read as one.

        Raises ValueError("expected …, found …") for what ``parse`` does not understand.
        """
        if parse is not None and isinstance(value, str):
            return parse(value)
        is_exact = type(value) is self.base or (self.base not in _PLAIN and isinstance(value, self.base))
        if is_exact or value is None or (self.base is Path and not isinstance(value, str | os.PathLike)):
            return value
        if self.base is bool:
            parse = parse or true_or_false
        try:
            return (parse or self.base)(str(value))
        except (ValueError, TypeError):  # the second: no constructor from text
            if parse is not None:
                raise
            return value

    def problem(self, value: Any) -> str | None:
        """What was expected instead of ``value``, of a tuple one item; None if it fits."""
        if self.choices:
            return None if value in self.choices else f"one of {', '.join(map(str, self.choices))}"
        if self.base not in _KIND_NAMES:
            return None if isinstance(value, self.base) else _OTHER_NAMES.get(self.base, self.base.__name__)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        is_number &= self.base is float or isinstance(value, int)
        bounds = f" {self.bounds}" if self.bounds else ""
        if is_number and (self.bounds is None or self.bounds.holds(value)):
            return None
        return f"{_KIND_NAMES[self.base]}{bounds}"


def _kind_of(cls: type[Options], name: str) -> _Kind:
    hint, is_optional, bounds = get_type_hints(cls, include_extras=True)[name], False, None
    if get_origin(hint) in (types.UnionType, Union):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
        is_optional = True
    is_tuple = get_origin(hint) is tuple
    if is_tuple:
        hint = get_args(hint)[0]
    if get_origin(hint) is Annotated:
        hint, bounds = get_args(hint)
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    return _Kind(str if choices else hint, bounds, choices, is_optional, is_tuple)


def flag_name(field: dataclasses.Field[Any]) -> str:
    """A field's flag without its dashes."""
    return flag_of(field).name or field.name


def flag_of(field: dataclasses.Field[Any]) -> Flag:
    flag: Flag = field.metadata["flag"]
    return flag


class CommandParser(argparse.ArgumentParser):
    """A wrong command line ends with one line on stderr and exit code 2; an unknown flag is answered by the nearest."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; --help lists all flags", file=sys.stderr)
        sys.exit(2)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        is_mixed = any(action.nargs == "*" and not action.option_strings for action in self._actions)
        values, unknown = (self.parse_known_intermixed_args if is_mixed else self.parse_known_args)(args, namespace)
        if unknown:
            word = unknown[0]
            known = [name for action in self._actions for name in action.option_strings]
            near = difflib.get_close_matches(word.partition("=")[0], known, n=1, cutoff=0.5)
            advice = f"; did you mean {near[0]}?" if near and word.startswith("-") else ""
            kind = "unknown flag" if word.startswith("-") else "unexpected argument"
            self.error(f"{kind} {word!r}{advice}")
        return values


def parse_options(cls: type[T], description: str, words: Sequence[str] | None) -> T:
    """The options that a command line states; exits as CommandParser does, raises BadInput as the class does."""
    parser = CommandParser(description=description)
    add_flags(parser, cls)
    return cls(**given_fields(cls, vars(parser.parse_args(words))))


def field_names(cls: type[Options], without: Collection[str] = ()) -> list[str]:
    return [field.name for field in fields(cls) if field.name not in without]


def add_flags(
    parser: argparse._ActionsContainer,
    cls: type[Options],
    names: Collection[str] | None = None,
    not_required: Collection[str] = (),
) -> None:
    """Add the fields ``names`` (None: all) to a parser or a group of one.

    Flags that are not given do not appear in the parsed namespace.
    """
    for field in fields(cls):
        if names is not None and field.name not in names:
            continue
        flag, kind, name = flag_of(field), _kind_of(cls, field.name), flag_name(field)
        settings: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help_text(field)}
        if kind.base is bool and flag.parse is None:
            settings["action"] = "store_true"
        else:
            settings |= {"type": _converter(flag.parse or kind.base), "metavar": flag.metavar}
            settings |= {"choices": kind.choices} if kind.choices else {}
            settings |= {"nargs": "*" if field.default == () else "+"} if kind.is_tuple else {}
        if flag.is_positional:
            parser.add_argument(name, **settings)
            continue
        if "action" not in settings:
            settings["required"] = field.default is MISSING and field.name not in not_required
        parser.add_argument(f"--{name}", *flag.aliases, dest=name, **settings)


def _help_text(field: dataclasses.Field[Any]) -> str:
    text = flag_of(field).help.replace("%", "%%")
    if field.default in (MISSING, None, False, ()) or "default" in text:
        return text
    default = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    return f"{text} (default: {default})"


def _converter(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """For argparse: the error of ``convert`` becomes the message."""

    def converted(text: str) -> Any:
        try:
            return convert(text)
        except ValueError as error:
            expected = _KIND_NAMES.get(convert)  # type: ignore[call-overload]
            raise argparse.ArgumentTypeError(
                f"expected {expected}, found {text!r}" if expected else str(error)
            ) from None

    return converted


def given_fields(cls: type[Options], flags: Mapping[str, Any], names: Collection[str] | None = None) -> dict[str, Any]:
    """The fields of ``cls`` (of ``names`` alone, if given) among values by flag name."""
    chosen = [field for field in fields(cls) if names is None or field.name in names]
    return {field.name: flags[flag_name(field)] for field in chosen if flag_name(field) in flags}


def words_of(options: Options) -> list[str]:
    """The command line that states these options, none of them positional or a tuple: the inverse of parse_options."""
    words = []
    for field in fields(options):
        value, name = getattr(options, field.name), flag_name(field)
        if value == field.default:
            continue
        words += [f"--{name}"] if value is True and flag_of(field).parse is None else [f"--{name}={value}"]
    return words


def keyed_values(options: Options) -> dict[str, Any]:
    """The values that are part of a result's key, by field name."""
    return {field.name: getattr(options, field.name) for field in fields(options) if flag_of(field).keyed}


def true_or_false(text: str) -> bool:
    """The reference's ``--flag True|False`` style."""
    lowered = text.lower()
    if lowered in ("true", "1", "yes", "on"):
        return True
    if lowered in ("false", "0", "no", "off"):
        return False
    raise ValueError(f"expected True or False, found {text!r}")


def file_name(text: str) -> Path:
    """A path with a last component."""
    path = Path(text)
    if not path.name:
        raise ValueError(f"expected the name of a file, found {text!r}")
    return path
