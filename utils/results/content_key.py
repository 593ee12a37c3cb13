"""Content key of a result: equal inputs, options and weights give the same key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from utils.files.digests import path_digest

SCHEMA = 3  # version of the computation: raise it when a change of the code changes the results of stages 2 and 3


def content_key(values: Mapping[str, object], inputs: Mapping[str, Path]) -> str:
    """64 hexadecimal digits for options and other values (by their repr), and files or folders (by content).

    Raises OSError for a file that cannot be read.
    """
    named = {name: repr(value) for name, value in values.items()}
    files = {name: path_digest(path) for name, path in inputs.items()}
    return hashlib.sha256(json.dumps([SCHEMA, named, files], sort_keys=True).encode()).hexdigest()
