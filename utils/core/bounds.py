"""Numbers of a config that must lie between bounds; utils/core/config.py checks them. Every number is finite anyway.

batch_size: Count = 16
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Bounds:
    """What a number may be, from ``low`` to ``high``; an open end is itself excluded."""

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
Size = Annotated[int, Bounds(1, 1 << 20)]  # of a network: more fits into no memory
Layers = Annotated[int, Bounds(1, 1000)]  # more would take minutes to make
Seed = Annotated[int, Bounds(0, (1 << 63) - 1)]
Amount = Annotated[float, Bounds(0)]
Positive = Annotated[float, Bounds(0, open_low=True)]
Share = Annotated[float, Bounds(0, 1)]
Decay = Annotated[float, Bounds(0, 1, open_high=True)]  # what is kept of a running average
Factor = Annotated[float, Bounds(0, 1, open_low=True)]  # what is left of a rate
