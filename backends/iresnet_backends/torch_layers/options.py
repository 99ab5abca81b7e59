"""How a layer computes: the method, its draws from torch's generator, the tolerance of its dtype."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

import iresnet_ref as ir
from iresnet_ref.log_determinant.methods import LogDetMethod, named


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


def settled(options: ir.Options, exact: bool) -> ir.Options:
    """Return the options with `ir.Auto` replaced by what it does where no standard error is asked for."""
    method = named(options.logdet)
    if isinstance(method, ir.Auto) and method.estimate.standard_error is None:
        method = ir.Exact() if exact else method.estimate
    return replace(options, logdet=method)


def is_random(options: ir.Options) -> bool:
    """Return whether the method draws probes."""
    return not isinstance(named(options.logdet), ir.Exact)


def drawn(options: ir.Options) -> ir.Options:
    """Return the options with draws of their own: the probes' seed comes from torch's generator of the CPU.

    So `torch.manual_seed` determines them, alike on every device, and whatever keeps that generator (checkpoints, a recomputed
    forward pass) keeps them.
    """
    return replace(options, logdet=_reseeded(named(options.logdet), int(torch.randint(2**63 - 1, (), device="cpu"))))


def _reseeded(method: Any, seed: int) -> LogDetMethod:
    if isinstance(method, ir.Auto):
        return ir.Auto(replace(method.estimate, probes=replace(method.estimate.probes, seed=seed)))
    reseeded: LogDetMethod = replace(method, probes=replace(method.probes, seed=seed))
    return reseeded
