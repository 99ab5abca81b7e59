"""How a layer of a framework computes its log-determinant: the method as it is carried out, and its draws."""

from __future__ import annotations

from dataclasses import replace

import iresnet_ref as ir
from iresnet_ref.log_determinant.methods import Estimate, LogDetMethod, named


def settled(options: ir.Options, exact: bool) -> ir.Options:
    """Return the options with `ir.Auto` replaced by what it does where no standard error is asked for."""
    method = named(options.logdet)
    if isinstance(method, ir.Auto) and method.estimate.standard_error is None:
        method = ir.Exact() if exact else method.estimate
    return replace(options, logdet=method)


def is_random(options: ir.Options) -> bool:
    """Return whether the method draws probes."""
    return not isinstance(named(options.logdet), ir.Exact)


def with_probes(method: LogDetMethod, probes: ir.Probes) -> LogDetMethod:
    """Return the method with these probes; one that draws none as it is."""
    if isinstance(method, ir.Auto):
        return ir.Auto(replace(method.estimate, probes=probes))
    return replace(method, probes=probes) if isinstance(method, Estimate) else method


def probes_of(method: LogDetMethod) -> ir.Probes | None:
    """Return the probes of a method, None of one that draws none."""
    estimate = method.estimate if isinstance(method, ir.Auto) else method
    return estimate.probes if isinstance(estimate, Estimate) else None


def reseeded(method: LogDetMethod, seed: int) -> LogDetMethod:
    """Return the method with its probes from another seed."""
    probes = probes_of(method)
    return method if probes is None else with_probes(method, replace(probes, seed=seed))
