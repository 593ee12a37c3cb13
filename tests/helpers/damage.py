"""Hypothesis strategies: damaged files, and wrong values as from other programs and typing errors."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from datetime import timedelta
from io import BytesIO
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

# More examples by hand: JOYGEN_FUZZ=20 multiplies them, and then they differ from run to run.
FACTOR = int(os.environ.get("JOYGEN_FUZZ", "1"))
LONGEST = 20.0  # seconds that one input may take on a busy machine

EXTREMES = [bytes(4), b"\xff" * 4, b"\x7f" + b"\xff" * 3, b"\x80" + bytes(3), b"\0\0\0\1", b"\xff" * 8, b"\xff\0\0\0"]
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2, 3, 7, 255, 2**31 - 1, 2**31, -(2**31), 2**63, 10**30, 0.5, -0.5, 1e-320, 1e300]),
    st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    st.integers(-1000, 100_000),
    st.floats(width=32),
)
SCALARS = st.one_of(
    NUMBERS, st.none(), st.booleans(), st.text(max_size=8), st.sampled_from(["", "nan", "1e5", "-", "²"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
TYPES = ["f8", "f4", "f2", ">f4", "i8", "i4", "u1", "?", "c8", "S3", "U2", "M8[s]", "m8[s]", "O", "i4,f4", "V5"]


def examined(n_examples: int) -> Callable[[Any], Any]:
    """The settings of one test."""
    return settings(
        max_examples=n_examples * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=timedelta(seconds=LONGEST),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
        phases=[Phase.explicit, Phase.generate],  # report the first failing input without shrinking
        report_multiple_bugs=False,
        print_blob=True,
    )


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of a file with some overwritten, and perhaps truncated, or a part removed, doubled or replaced."""
    spoilt = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        piece = draw(st.sampled_from(EXTREMES) | st.binary(min_size=1, max_size=8))
        start = draw(st.integers(0, max(0, len(spoilt) - 1)))
        spoilt[start : start + len(piece)] = piece
    start, length = draw(st.integers(0, len(spoilt))), draw(st.integers(0, 200))
    part = spoilt[start : start + length]
    match draw(st.sampled_from(["whole", "whole", "cut", "lost", "doubled", "foreign"])):
        case "cut":
            del spoilt[start:]
        case "lost":
            del spoilt[start : start + length]
        case "doubled":
            spoilt[start:start] = part
        case "foreign":
            spoilt[start:start] = draw(st.binary(max_size=40))
    return bytes(spoilt)


@st.composite
def arrays(draw: st.DrawFn, like: np.ndarray) -> bytes:
    """A .npy file, nearly valid or not at all."""
    shape = draw(
        st.just(like.shape)
        | st.lists(st.integers(0, 5), max_size=4).map(tuple)
        | st.just((1, *like.shape))
        | st.just(like.shape[::-1])
        | st.integers(0, len(like) + 2).map(lambda n: (n, *like.shape[1:]))
    )
    kind = np.dtype(draw(st.just(like.dtype.str) | st.sampled_from(TYPES)))
    array = np.zeros(shape, kind)
    if kind.kind in "fiub" and array.size:
        array = np.resize(like, shape).astype(kind)
        for _ in range(draw(st.integers(0, 3))):
            place = draw(st.integers(0, array.size - 1))
            with np.errstate(all="ignore"):
                array.flat[place] = _fitting(draw(NUMBERS), kind)
    file = BytesIO()
    np.save(file, np.asfortranarray(array) if draw(st.booleans()) else array, allow_pickle=True)
    content = file.getvalue()
    return draw(damaged(content)) if draw(st.integers(0, 3)) == 0 else content


def _fitting(number: float, kind: np.dtype) -> Any:
    if kind.kind == "f":
        return np.float64(float(number)).astype(kind)
    if kind.kind == "b" or not math.isfinite(number):
        return False
    limits = np.iinfo(kind)
    return min(max(int(number), limits.min), limits.max)


@st.composite
def spoilt_values(draw: st.DrawFn, values: dict[str, Any]) -> dict[str, Any]:
    """Nested values (of a YAML or JSON file) with another value somewhere, a key lost, or one too many."""
    result = _copied(values)
    for _ in range(draw(st.integers(1, 2))):
        group = result
        while True:
            inner = [key for key, value in group.items() if isinstance(value, dict) and value]
            if not inner or draw(st.booleans()):
                break
            group = group[draw(st.sampled_from(inner))]
        key = draw(st.sampled_from(sorted(group))) if group else "x"
        match draw(st.sampled_from(["value", "value", "value", "lost", "extra"])):
            case "value":
                group[key] = draw(VALUES)
            case "lost":
                group.pop(key, None)
            case "extra":
                group[draw(st.text(max_size=6))] = draw(VALUES)
    return result


def _copied(value: Any) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, dict) else value
