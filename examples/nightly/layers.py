"""Layers of normflows with fresh weights, for nightly audits: one factory, whose argument names the layer."""

from __future__ import annotations

import normflows as nf
import torch

from iresnet_verify import Subject
from iresnet_verify.adapters import pair


def layer(kind: str = "coupling", d: int = 4) -> Subject:
    """One layer; the audit's seed has seeded torch, so equal seeds give equal weights."""
    made = {
        "coupling": lambda: nf.flows.AffineCouplingBlock(nf.nets.MLP([d // 2, 16, 2 * (d - d // 2)])),
        "spline": lambda: nf.flows.AutoregressiveRationalQuadraticSpline(d, 1, 16),
        "coupled-spline": lambda: nf.flows.CoupledRationalQuadraticSpline(d, 1, 16),
        "lu-linear": lambda: nf.flows.LULinearPermute(d),
        "residual": lambda: nf.flows.Residual(nf.nets.LipschitzMLP([d, 16, d], lipschitz_const=0.9), reduce_memory=False),
    }
    module = made[kind]().to(torch.get_default_dtype())
    fields = {"log_det_is": "unbiased"} if kind == "residual" else {}
    return pair(module, (d,), name=kind, module=module, **fields)
