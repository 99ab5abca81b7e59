"""Slips of the pen: one operator, number or call changed in a correct network, drawn at random from all that make it wrong.

All changes of one operator (+ and −, · and /, < and >), one number by 1, one minus or one elementary function left out, in the methods
of `networks`, are 180; 101 of them neither raise nor leave inverse and log-det right. These are 34 of the 101, by
random.Random(20261130).
"""

from __future__ import annotations

import inspect
import sys
import textwrap

from iresnet_verify.mutants.mutant import Factory, table
from iresnet_verify.mutants.unseen.networks import Autoregression, Both, Coupling, Network, Pixels, Planar, Residual
from iresnet_verify.mutants.unseen.trackers import BACK, VALUE


def slip(kind: type[Network], method: str, before: str, after: str) -> Factory:
    """The network with `after` for `before` in the source of one method."""
    source = textwrap.dedent(inspect.getsource(getattr(kind, method)))
    if source.count(before) != 1:
        raise ValueError(f"expected {before!r} once in {kind.__name__}.{method}, got {source.count(before)} times")
    networks = sys.modules[kind.__module__]
    found = dict(vars(networks))
    exec(source.replace(before, after), found)
    make: Factory = networks.of(type(kind.__name__, (kind,), {method: found[method]}))
    return make


ALL = (*BACK, *VALUE)
MUTANTS = table("unseen", {
    "terms times k": (VALUE, slip(Residual, "log_det", "sum(1) / k", "sum(1) * k")),
    "exponential left out of the inverse": (
        BACK, slip(Both, "inverse", "b = (b - t) * torch.exp(-torch.tanh(r))", "b = (b - t) * -torch.tanh(r)")),
    "plus the shift of a channel": (BACK, slip(Pixels, "inverse", "z - self.shift", "z + self.shift")),
    "minus the shift in forward": (ALL, slip(Both, "forward", "a * torch.exp(torch.tanh(r)) + t", "a * torch.exp(torch.tanh(r)) - t")),
    "divided by the weight in the direction": (BACK, slip(Planar, "direction", "* self.w / self", "/ self.w / self")),
    "minus the direction in forward": (ALL, slip(Planar, "forward", "x + torch", "x - torch")),
    "divided by the inverse scale": (BACK, slip(Autoregression, "inverse", "* torch.exp", "/ torch.exp")),
    "tangent left out of forward": (ALL, slip(Both, "forward", "a * torch.exp(torch.tanh(r))", "a * torch.exp(r)")),
    "minus the bias in the slope": (VALUE, slip(Residual, "jacobian", "+ self.c", "- self.c")),
    "activation left out of the branch": (VALUE, slip(Residual, "g", "torch.tanh(x @ first.T + self.c)", "(x @ first.T + self.c)")),
    "slope without its square": (VALUE, slip(Residual, "jacobian", "** 2", "** 1")),
    "channels times width": (VALUE, slip(Pixels, "log_det", "x.shape[2] * x", "x.shape[1] * x")),
    "one plus the square": (VALUE, slip(Residual, "jacobian", "1 - torch", "1 + torch")),
    "plus the shift of the first half": (BACK, slip(Both, "inverse", "(a - t)", "(a + t)")),
    "plus the shift of each component": (BACK, slip(Autoregression, "inverse", "(y - t)", "(y + t)")),
    "minus the shift in a coupling": (BACK, slip(Coupling, "forward", "torch.exp(r) + t", "torch.exp(r) - t")),
    "slope with a cube": (VALUE, slip(Residual, "jacobian", "** 2", "** 3")),
    "tangent left out of the log-det": (VALUE, slip(Both, "log_det", "first = torch.tanh(r).sum(1)", "first = r.sum(1)")),
    "divided by the scale in forward": (ALL, slip(Both, "forward", "b * torch.exp", "b / torch.exp")),
    "exponential left out between the steps": (
        VALUE, slip(Both, "log_det", "a * torch.exp(torch.tanh(r)) + t", "a * torch.tanh(r) + t")),
    "minus two in the direction": (BACK, slip(Planar, "direction", "- 1 - inner", "- 2 - inner")),
    "plus the tangent in the inverse": (BACK, slip(Planar, "inverse", "y - torch", "y + torch")),
    "mask above the diagonal": (ALL, slip(Autoregression, "scale_and_shift", "self.v.tril(-1)", "self.v.tril(+1)")),
    "exponential left out of forward": (ALL, slip(Both, "forward", "a * torch.exp(torch.tanh(r))", "a * torch.tanh(r)")),
    "one over the traces": (VALUE, slip(Residual, "log_det", "** k * power", "** k / power")),
    "one minus the slope": (VALUE, slip(Planar, "log_det", "1 + psi", "1 - psi")),
    "divided by the inverse scale of a channel": (BACK, slip(Pixels, "inverse", "* torch.exp", "/ torch.exp")),
    "divided by the inverse scale of a coupling": (BACK, slip(Coupling, "inverse", "* torch.exp", "/ torch.exp")),
    "height over width": (VALUE, slip(Pixels, "log_det", "x.shape[2] * x", "x.shape[2] / x")),
    "minus the second log-det": (VALUE, slip(Both, "log_det", "first + torch", "first - torch")),
    "bracket of no length": (BACK, slip(Planar, "inverse", "target - slope.abs()", "target + slope.abs()")),
    "the scale once more": (BACK, slip(Autoregression, "inverse", "exp(-r)", "exp(+r)")),
    "divided by the scale of a channel": (ALL, slip(Pixels, "forward", "* torch.exp", "/ torch.exp")),
    "the scale of the first half once more": (
        BACK, slip(Both, "inverse", "(a - t) * torch.exp(-torch", "(a - t) * torch.exp(+torch")),
})
