"""How a layer computes: its draws from torch's generator, the tolerance of its dtype."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

import iresnet_ref as ir
from iresnet_backends.layer_options import is_random, reseeded, settled
from iresnet_ref.log_determinant.methods import named


def default_options(x: Any) -> ir.Options:
    """Return the options where none are given: exact log-determinants of narrow branches, inverses to three quarters of the digits."""
    return ir.Options(rtol=float(torch.finfo(x.dtype).eps / 2.0) ** 0.75)


def auto_is_exact(block: ir.ResidualBlock) -> bool:
    """Return whether `ir.Auto` computes the determinant of this block: that depends on its widths alone."""
    like: Any = block.branch.like
    with suppress(ir.NotContractiveError):  # raised again, with the reason, by the first call
        origin = torch.zeros((1, *block.branch.event_shape), dtype=like.dtype, device=like.device)
        return ir.logdet(block, origin, ir.Auto()).method == "exact"
    return False


def drawn(options: ir.Options) -> ir.Options:
    """Return the options with draws of their own: the probes' seed comes from torch's generator of the CPU.

    So `torch.manual_seed` determines them, alike on every device, and whatever keeps that generator (checkpoints, a recomputed
    forward pass) keeps them.
    """
    return replace(options, logdet=reseeded(named(options.logdet), int(torch.randint(2**63 - 1, (), device="cpu"))))


__all__ = ["auto_is_exact", "default_options", "drawn", "is_random", "settled"]
