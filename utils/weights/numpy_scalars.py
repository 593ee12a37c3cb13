"""numpy scalars in a checkpoint, read as plain numbers.

Optimizer and scheduler states often hold a numpy scalar beside the tensors, which torch's safe reader refuses. The
pickle asks for two of numpy's constructors by name. Both are answered with stand-ins, so that a file reaches nothing
of numpy: they make a bool, int or float of at most eight bytes and refuse everything else.
"""

from __future__ import annotations

import pickle
from contextlib import AbstractContextManager

import numpy as np
import torch

_NUMBER_KINDS = "biuf"
_LARGEST = 8  # bytes


class NumberType:
    """Stands in for numpy.dtype: pickled as a call with a code such as "f8", then a state with the byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:  # noqa: ARG002 (pickled so)
        dtype = np.dtype(code) if isinstance(code, str) else None
        if dtype is None or dtype.kind not in _NUMBER_KINDS or dtype.itemsize > _LARGEST:
            raise pickle.UnpicklingError(f"GLOBAL numpy.{code} is no number")
        self.dtype = dtype

    def __setstate__(self, state: tuple[object, ...]) -> None:
        if state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


def number(of: NumberType, content: bytes) -> bool | int | float:
    """Stands in for numpy's function ``scalar``."""
    if not isinstance(of, NumberType) or not isinstance(content, bytes) or len(content) != of.dtype.itemsize:
        raise pickle.UnpicklingError("not a numpy scalar")
    return np.frombuffer(content, of.dtype)[0].item()


def numbers_allowed() -> AbstractContextManager[None]:
    """While this is open, torch's safe reader understands numpy scalars."""
    return torch.serialization.safe_globals(
        [
            (NumberType, "numpy.dtype"),
            (number, "numpy.core.multiarray.scalar"),
            (number, "numpy._core.multiarray.scalar"),  # since numpy 2
        ]
    )
