"""The part of a path that readers need: a stored file may lie in a folder or inside a shard."""

from __future__ import annotations

from typing import BinaryIO, Literal, Protocol, Self


class StoredPath(Protocol):
    """A file or folder that can be read: on disk (Path), or packed in a shard (utils/data/shards.py)."""

    @property
    def name(self) -> str: ...

    def __truediv__(self, name: str, /) -> Self: ...

    def is_file(self) -> bool: ...

    def open(self, mode: Literal["rb"]) -> BinaryIO: ...
