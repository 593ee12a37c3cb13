"""Images in PNG and JPEG files."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.errors import BadInput
from utils.files.arrays import StoredPath
from utils.files.atomic import naming


def write_gray(path: Path, image: np.ndarray) -> None:
    """Write uint8 [h, w] as PNG."""
    _write_image(path, image)


def write_rgb(path: Path, image: np.ndarray) -> None:
    """Write uint8 RGB [h, w, 3] as PNG or JPEG (quality 95), by the suffix."""
    _write_image(path, image)


def _write_image(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"quality": 95} if path.suffix == ".jpg" else {"compress_level": 1}
    encoded = BytesIO()
    Image.fromarray(image).save(encoded, "JPEG" if path.suffix == ".jpg" else "PNG", **options)
    with naming(path):
        path.write_bytes(encoded.getbuffer())  # Pillow's own errors of writing give no reason


def read_gray(path: StoredPath, advice: str) -> np.ndarray:
    """uint8 [h, w]. Raises BadInput with ``advice`` if the file is damaged."""
    return _read_image(path, "L", advice)


def read_rgb(path: StoredPath, advice: str) -> np.ndarray:
    """uint8 RGB [h, w, 3]. Raises BadInput with ``advice`` if the file is damaged."""
    return _read_image(path, "RGB", advice)


def _read_image(path: StoredPath, mode: str, advice: str) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with path.open("rb") as file, Image.open(file) as image:
            return np.asarray(image.convert(mode))
    except (
        *(UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, MemoryError, struct.error),
        Image.DecompressionBombError,
    ) as error:  # raised by Pillow on damaged files; found by fuzzing
        raise BadInput("unreadable image", str(path), "a PNG or JPEG file", str(error), advice) from error
