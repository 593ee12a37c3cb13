"""A key that says what a result was made from: same inputs, weights, options and code, same key.

Every file counts with the SHA-256 of its whole content. Digests of large files are remembered with the file's size,
inode and time of change, so that weights and clips of gigabytes are read once; set JOYGEN_CACHE to choose where.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from utils.files.digests import path_digest, sha256

if TYPE_CHECKING:
    from utils.weights.packs import Pack

_ROOT = Path(__file__).resolve().parents[2]


def content_key(values: Mapping[str, object], inputs: Mapping[str, Path]) -> str:
    """64 hexadecimal digits for options and other values (by their repr), files or folders (by content), and the code.

    Raises OSError for a file that cannot be read.
    """
    named = {name: repr(value) for name, value in values.items()}
    files = {name: path_digest(path) for name, path in inputs.items()}
    return hashlib.sha256(json.dumps([code_digest(), named, files], sort_keys=True).encode()).hexdigest()


def pack_paths(pack: Pack, without: Collection[str] = ()) -> dict[str, Path]:
    """The files and folders of a pack by their names there, but for those that a stage does not open."""
    parts = {field.name: getattr(pack, field.name) for field in fields(pack) if field.name not in without}
    return {name: path for name, path in parts.items() if isinstance(path, Path)}


@cache
def code_digest() -> str:
    """Of the project's own Python files that can take part in a result."""
    files = sorted([*_ROOT.glob("*.py"), *_ROOT.glob("models/**/*.py"), *_ROOT.glob("utils/**/*.py")])
    return hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()
