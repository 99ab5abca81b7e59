"""Slips of the pen in the networks of `maps`, `modules` and `traced`, three or four in each of eleven, drawn at random.

A site is an operator (+ and −, · and /, < and >), a number (one more, one less; twice, half of it if it is no integer), a minus, an
elementary function or a transposition left out, the name of a local variable, a function, an attribute or a key (any other of the same
function), everywhere but where parameters are drawn: 728. They were visited in the order of the source, one change was taken at each by
random.Random(20261201).choice; 341 networks neither raised nor had inverse, log-det and bound right afterwards (a round trip off by 1e-5, a
log-det off by 1e-5 from that of a Jacobian by differences, the mean of 1500 estimates off by six standard errors, ‖J_g‖ above the bound; of
JAX in float32 2e-3 and 5e-3). Of these another generator of that seed drew four a network of `modules`, and three a network of the others,
by its `sample`. One of the 37, heights for slopes in `Pieces.forward`, raised for inputs beyond those of this search, and was set aside.
"""

from __future__ import annotations

from iresnet_verify.mutants.december.changed import slip
from iresnet_verify.mutants.mutant import table
from iresnet_verify.mutants.unseen.trackers import BACK, VALUE

ALL = (*BACK, *VALUE)
ESTIMATE = ("estimator.unbiased", "logdet.matches-determinant")
MUTANTS = table("december", {
    "momenta are pushed the other way": (BACK, slip("maps", "leapfrog", "Leapfrog.forward", "* p + self", "* p - self")),
    "positions move the other way": (BACK, slip("maps", "leapfrog", "Leapfrog.forward", "q = q + self", "q = q - self")),
    "the step is divided by the force": (BACK, slip("maps", "leapfrog", "Leapfrog.forward", "step * self.force", "step / self.force")),
    "a square divides the product": (ALL, slip("maps", "cubic", "Cubic.value", "self.b * x**2", "self.b / x**2")),
    "x divides the linear coefficient": (ALL, slip("maps", "cubic", "Cubic.value", "self.e) * x", "self.e) / x")),
    "x for the linear term": (ALL, slip("maps", "cubic", "Cubic.value", "return linear + self", "return x + self")),
    "plus the knot below": (BACK, slip("maps", "pieces", "Pieces.forward", "x - self.knots", "x + self.knots")),
    "slopes for knots": (BACK, slip("maps", "pieces", "Pieces.inverse", "self.knots[j] + (y", "self.slopes[j] + (y")),
    "means for the scales of a mixture": (
        ALL, slip("maps", "logistic", "mixture", 'p["means"]) / p["scales"]', 'p["means"]) / p["means"]')),
    "the upper end stays where it was": (BACK, slip("maps", "logistic", "mixture_inverse", "middle, high)", "high, high)")),
    "means for the weights of the density": (
        VALUE, slip("maps", "logistic", "mixture", '(p["weights"] * lower * upper', '(p["means"] * lower * upper')),
    "exponential left out of the scales of a rotation": (BACK, slip("maps", "turning", "turning_inverse", 'np.exp(-p["s"])', '(-p["s"])')),
    "turned once more": (BACK, slip("maps", "turning", "turning_inverse", '-(p["a"][1]', '(p["a"][1]')),
    "sine of a component for that of the angle": (ALL, slip("maps", "turning", "turned", "np.sin(angle) * v", "np.sin(u) * v")),
    "the branch's half left out of its slope": (ESTIMATE, slip("maps", "thinned", "Thinned.log_det", "0.5 * np.cos", "1.0 * np.cos")),
    "two powers fewer in the survival": (ESTIMATE, slip("maps", "thinned", "Thinned.log_det", "** (k - 1)", "** (k - 2)")),
    "Banach's iteration from x": (BACK, slip("maps", "thinned", "Thinned.inverse", "x = y - self", "x = x - self")),
    "the kink at x for the one at z": (VALUE, slip("modules", "kinked", "Kinked.log_det", "leaky_relu(z,", "leaky_relu(x,")),
    "plus the shift before the rotation": (BACK, slip("modules", "kinked", "Kinked.inverse", "(z - self.shifts", "(z + self.shifts")),
    "exponential left out before the rotation": (
        BACK, slip("modules", "kinked", "Kinked.inverse", "torch.exp(-self.scales[i])", "(-self.scales[i])")),
    "the scale once more before the rotation": (BACK, slip("modules", "kinked", "Kinked.inverse", "exp(-self", "exp(self")),
    "x minus the pixels before": (BACK, slip("modules", "raster", "Raster.inverse", "(y - self", "(x - self")),
    "exponential left out of the pixels": (BACK, slip("modules", "raster", "Raster.inverse", "torch.exp(-self.s)", "(-self.s)")),
    "divided by the inverse scale of a pixel": (BACK, slip("modules", "raster", "Raster.inverse", ") * torch.exp", ") / torch.exp")),
    "minus the pixels before in forward": (BACK, slip("modules", "raster", "Raster.forward", "+ self.before", "- self.before")),
    "the scale's logarithm for the mean": (BACK, slip("modules", "series", "Series.inverse", "last = mean[", "last = log_scale[")),
    "divided by the scale of a step of time": (BACK, slip("modules", "series", "Series.inverse", "] * torch.exp", "] / torch.exp")),
    "no step of time before": (VALUE, slip("modules", "series", "Series.log_det", ":-1]", ":-0]")),
    "the scale's logarithm for x": (
        ("inverse.separates-inputs", *ALL), slip("modules", "series", "Series.forward", "(x - mean)", "(log_scale - mean)")),
    "logarithm left out of Cholesky's factor": (
        VALUE, slip("modules", "potential", "log_volume", "torch.log(factor.diagonal(dim1=1, dim2=2)", "(factor.diagonal(dim1=1, dim2=2)")),
    "divided by the gradient": (BACK, slip("modules", "potential", "descent", "rate * (gradient", "rate / (gradient")),
    "the strong convexity minus the norm": (BACK, slip("modules", "potential", "descent", "net.e + torch", "net.e - torch")),
    "the curvature for the rate": (BACK, slip("modules", "potential", "descent", "1 / (net.e", "1 * (net.e")),
    "a weight divided by its coefficient": (BACK, slip("traced", "residual", "bounded", "weight * jnp", "weight / jnp")),
    "the scale once more in JAX": (BACK, slip("traced", "residual", "inverse", '-p["scale"]', 'p["scale"]')),
    "one plus the square in JAX": (VALUE, slip("traced", "residual", "jacobian", "1 - jnp", "1 + jnp")),
})
