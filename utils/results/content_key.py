"""A key that says what a result was made from: same inputs, options and weights, same key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from utils.files.digests import path_digest

SCHEMA = 2  # of what stages 2 and 3 compute: raise it when a change of the code changes their results


def content_key(values: Mapping[str, object], inputs: Mapping[str, Path]) -> str:
    """64 hexadecimal digits for options and other values (by their repr), and files or folders (by content).

    Raises OSError for a file that cannot be read.
    """
    named = {name: repr(value) for name, value in values.items()}
    files = {name: path_digest(path) for name, path in inputs.items()}
    return hashlib.sha256(json.dumps([SCHEMA, named, files], sort_keys=True).encode()).hexdigest()
