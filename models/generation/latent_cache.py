"""Cache of encoded images, for clips whose frames repeat (--length pingpong or loop)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from threading import Lock

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

LIMIT_BYTES = 32 * 1024 * 1024  # 80 s of the official networks' latents, 36 s of the mini pack's


class LatentCache:
    """Least-recently-used cache of latents by image content, of at most ``limit_bytes``; safe for threads.

    one_by_one: encode each missing image alone; else the whole batch if any image is missing. Either way an image's
    latents do not depend on the cache's content.
    """

    def __init__(self, one_by_one: bool, limit_bytes: int = LIMIT_BYTES) -> None:
        self.one_by_one, self.limit_bytes = one_by_one, limit_bytes
        self.n_bytes, self.n_encoded = 0, 0
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._lock = Lock()

    def __call__(
        self,
        images: UInt8[Tensor, "b c p q"],
        encode: Callable[[UInt8[Tensor, "k c p q"]], Float[Tensor, "k z h w"]],
    ) -> Float[Tensor, "b z h w"]:
        """``encode(images)``, computed for the missing ones."""
        keys = [blake2b(image.cpu().numpy().tobytes(), digest_size=16).digest() for image in images]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = {key: row for row, key in enumerate(keys) if key not in found}
        whole = [list(range(len(keys)))] if missing else []
        groups = [[row] for row in missing.values()] if self.one_by_one else whole
        for rows in groups:
            found |= zip((keys[row] for row in rows), encode(images[rows]).clone(), strict=True)
        with self._lock:
            self.n_encoded += sum(map(len, groups))
            for key in keys:
                self._keep(key, found[key])
        return torch.stack([found[key] for key in keys])

    def _keep(self, key: bytes, latents: Tensor) -> None:
        if key not in self._kept:
            self._kept[key] = latents
            self.n_bytes += latents.nbytes
        self._kept.move_to_end(key)
        while self.n_bytes > self.limit_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.n_bytes -= dropped.nbytes
