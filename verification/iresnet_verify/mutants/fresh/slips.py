"""Slips of the pen in the networks of `networks`, four of each of the ten kinds, drawn at random from all that make them wrong.

A site is an operator (+ and −, · and /, < and >), a number (one more, one less), a minus, an elementary function, the name of a local
variable or an attribute of the network (any other of the same function or network), in every method but `__init__`: 1019. The sites were
visited in the order of the source, one change was taken at each by random.Random(20261201).choice; 521 networks neither raised nor had
inverse, log-det and bound right afterwards (a round trip off by 1e-6, a log-det off by 1e-6 from that of autograd's Jacobian, the mean of
6000 estimates off by six standard errors, ‖J_g‖ above the bound). Of these the same generator drew four a kind, by its `sample`. A draw of
36 from all kinds together, 16 of them splines, was set aside before any was diagnosed.
"""

from __future__ import annotations

from iresnet_verify.mutants.fresh.networks import (
    Conditioned,
    Convolutions,
    Monotone,
    MultiScale,
    Radial,
    Roulette,
    Spline,
    Stack,
    Sylvester,
    Triangles,
)
from iresnet_verify.mutants.fresh.parts import BOUNDS
from iresnet_verify.mutants.mutant import table
from iresnet_verify.mutants.unseen.slips import ALL, slip
from iresnet_verify.mutants.unseen.trackers import BACK, VALUE

ESTIMATE = ("estimator.unbiased", "logdet.matches-determinant")
MUTANTS = table("fresh", {
    "three times the logarithm of the mean slope": (VALUE, slip(Spline, "log_det", "= 2 *", "= 3 *")),
    "the height for the slope": (VALUE, slip(Spline, "log_det", "torch.log(up)", "torch.log(height)")),
    "divided by the bend": (BACK, slip(Spline, "inverse", "+ rest * bend", "+ rest / bend")),
    "plus the left end": (VALUE, slip(Spline, "log_det", "- left)", "+ left)")),
    "two plus the slope": (VALUE, slip(Monotone, "value_and_slope", "1 +", "2 +")),
    "both ends of the bracket below": (BACK, slip(Monotone, "inverse", "+ reach", "- reach")),
    "the lower end of the bracket": (BACK, slip(Monotone, "inverse", "return x", "return low")),
    "amplitudes over tangents": (ALL, slip(Monotone, "value_and_slope", "* t).sum(2),", "/ t).sum(2),")),
    "the upper factor twice": (VALUE, slip(MultiScale, "matrix", "(lower", "(upper")),
    "minus the second coupling": (VALUE, slip(MultiScale, "log_det", "+ s.flatten(1).sum(1)", "- s.flatten(1).sum(1)")),
    "divided by the inverse scale of an image": (BACK, slip(MultiScale, "inverse", "* torch.exp(-self.scale)", "/ torch.exp(-self.scale)")),
    "tangent left out of the inverse scale": (BACK, slip(MultiScale, "inverse", "torch.exp(-torch.tanh(r))],", "torch.exp(-(r))],")),
    "divided by the coefficient over the norm": ((*BOUNDS, *BACK), slip(Convolutions, "normalised", "* (0.8**0.5", "/ (0.8**0.5")),
    "two minus the square": (VALUE, slip(Convolutions, "log_det", "1 -", "2 -")),
    "the branch at y": (BACK, slip(Convolutions, "inverse", "self.g(x)", "self.g(y)")),
    "one over the root of the coefficient": (BOUNDS, slip(Convolutions, "normalised", "(0.8**0.5", "(0.8**-0.5")),
    "a third of two probes": (ESTIMATE, slip(Roulette, "log_det", "/ 2", "/ 3")),
    "every term of the roulette with the sign of one": (ESTIMATE, slip(Roulette, "estimate", "(-1)", "(1)")),
    "the product with x again": (("gradient.log-det", *ESTIMATE), slip(Roulette, "estimate", "w)", "x)")),
    "two more powers in the survival": (ESTIMATE, slip(Roulette, "estimate", "- 1))", "+ 1))")),
    "scale minus a tenth": (VALUE, slip(Conditioned, "scale_and_shift", "+ 0.1", "- 0.1")),
    "minus the shift of a conditioned flow": (BACK, slip(Conditioned, "forward", "+", "-")),
    "logarithm left out": (VALUE, slip(Conditioned, "log_det", "torch.log(self.scale_and_shift(x,", "(self.scale_and_shift(x,")),
    "mask of the shift above the diagonal": (ALL, slip(Conditioned, "scale_and_shift", "self.w.tril(-1).T)", "self.w.tril(1).T)")),
    "slope of the other side of the elu": (VALUE, slip(Stack, "branch", "> 0,", "< 0,")),
    "slopes of the first rows for the weight": (VALUE, slip(Stack, "branch", "last[:3].T", "slope[:3].T")),
    "fixed point of x minus the branch": (BACK, slip(Stack, "inverse", "y -", "x -")),
    "the step from y for the step": (BACK, slip(Stack, "inverse", "(new", "(y")),
    "two over the product with the vector": (ALL, slip(Sylvester, "orthogonal", "* (q", "/ (q")),
    "tangent left out of Newton's equation": (BACK, slip(Sylvester, "inverse", "torch.tanh(u", "(u")),
    "three for two in a reflection": (ALL, slip(Sylvester, "orthogonal", "2", "3")),
    "minus the bias in forward": (ALL, slip(Sylvester, "forward", "+ self.b", "- self.b")),
    "plus the inner shift in the inverse": (BACK, slip(Triangles, "inverse", "- self.e)", "+ self.e)")),
    "minus the inner shift in the log-det": (VALUE, slip(Triangles, "log_det", "+ self.e)", "- self.e)")),
    "diagonal above the lower factor": (ALL, slip(Triangles, "factors", "-1)", "1)")),
    "one for the square": (VALUE, slip(Triangles, "log_det", "* z)", "/ z)")),
    "plus the radius in the root": (BACK, slip(Radial, "inverse", "- q", "+ q")),
    "another centre in forward": (ALL, slip(Radial, "forward", "self.m", "self.b")),
    "the centre with another sign": (VALUE, slip(Radial, "log_det", "- self.m,", "+ self.m,")),
    "four over the radius": (BACK, slip(Radial, "inverse", "* alpha", "/ alpha")),
})
