"""A long piece of motion made in blocks, each with as much around it as its frames can hear.

    frames    |--------------|--------------|---- ...
    block 0   [==============---]               kept (=), computed besides (-)
    block 1              [---==============---]

The network is made of convolutions, so that the blocks are those of the whole length up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from models.motion.flow import FlowVAESizes

BLOCK_FRAMES = 1000  # 40 s of motion at 25 Hz
_CONDITION_REACH = 2  # frames: two convolutions of three taps


@dataclass(frozen=True)
class Block:
    """What one pass reads and what is kept of it, both counted in latent steps of the whole length."""

    read: range
    kept: range


def blocks(n_latent_steps: int, sizes: FlowVAESizes) -> Iterator[Block]:
    """Cut a length up; a short one is one block."""
    length = max(1, BLOCK_FRAMES // sizes.stride)
    reach = reach_in_latent_steps(sizes)
    if n_latent_steps <= length + 2 * reach:
        yield Block(range(n_latent_steps), range(n_latent_steps))
        return
    for start in range(0, n_latent_steps, length):
        stop = min(start + length, n_latent_steps)
        yield Block(range(max(0, start - reach), min(stop + reach, n_latent_steps)), range(start, stop))


def reach_in_latent_steps(sizes: FlowVAESizes) -> int:
    """How far to each side a frame of the output hears."""
    flow = sizes.n_couplings * sizes.n_flow_layers * (sizes.flow_kernel_size // 2)  # latent steps
    decoder = sizes.n_decoder_layers * (sizes.kernel_size // 2)  # frames
    frames = decoder + sizes.stride + _CONDITION_REACH  # the condition's windows overlap by half
    return flow + -(-frames // sizes.stride) + 1
