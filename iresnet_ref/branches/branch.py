"""The residual branch g: a sequence of layers with its linearisation, its certificate and its running error.

Branches are values: changing a parameter gives a new branch (`with_parameters`), so a certificate never goes stale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, device, lazy, namespace, outside_the_graph, public, row_norm, to_host
from iresnet_ref.arrays.validation import require_alike, require_parameters
from iresnet_ref.branches.affine_model import AffineModel, affine_model
from iresnet_ref.branches.certificate import Certificate, biases_are_finite, product_certificate
from iresnet_ref.branches.certificates.tightest import best_two_sided, tightest_certificate
from iresnet_ref.branches.certificates.two_sided import TwoSided
from iresnet_ref.error_analysis.forward import no_error, running_error
from iresnet_ref.error_analysis.variance import variance_along
from iresnet_ref.errors import ShapeError
from iresnet_ref.jacobian.chain import Chain
from iresnet_ref.layers import sequence
from iresnet_ref.layers.layer import Layer
from iresnet_ref.layers.linear import LinearLayer
from iresnet_ref.layers.tape import Pulled, Tape, record
from iresnet_ref.norms.induced import require_norm


@public
@dataclass(frozen=True, eq=False)  # arrays have no truth of equality; jax.jit(F) hashes F
class Branch:
    """g = layer_n ∘ ⋯ ∘ layer_1 on events of `event_shape`.

    `g(x)` is the value, `g.linearize(x)` the value and J_g(x) as a `Chain`; `g.certificate` a proved bound on Lip(g) in the
    `norm` of events: 2, or 1 or ∞ (`iresnet_ref.norms.induced`); `ir.certify(g)` looks for the tightest.

    Shapes: x (batch, *event_shape). Raises: ShapeError where layers do not fit or none has parameters, DTypeError for
    mixed dtypes or devices. Limits: values round as the layers' do (`ir.bounds`); the certificate is rounded up. Reference: [B19] §2.

    >>> import numpy as np, iresnet_ref as ir
    >>> g = ir.Branch((ir.layers.Affine(0.5 * np.eye(2), np.zeros(2)), ir.layers.Pointwise(ir.activations.get("tanh"))), (2,))
    >>> g(np.zeros((3, 2))).tolist()[0], g.certificate.proved
    ([0.0, 0.0], True)
    """

    layers: tuple[Layer, ...]
    event_shape: tuple[int, ...]
    norm: float = 2.0

    def __post_init__(self) -> None:
        require_norm(self.norm)
        object.__setattr__(self, "event_shape", tuple(self.event_shape))
        arrays = list(self.parameters().values())
        if not arrays:
            raise ShapeError("branch: expected at least one layer with parameters, got none; try ir.mlp")
        for array in arrays[1:]:
            require_alike(array, arrays[0], "branch parameter")
        self.out_shape  # noqa: B018 - the layers must fit

    @lazy
    def out_shape(self) -> tuple[int, ...]:
        """The event shape of g(x). Raises ShapeError where a layer does not fit the one before."""
        return sequence.out_shape(self.layers, self.event_shape)

    @property
    def like(self) -> Array:
        """A parameter: it carries the namespace, the dtype and the device."""
        return next(iter(self._parameters.values()))

    def __repr__(self) -> str:
        """Name the layers; the arrays are in `parameters()`."""
        return f"{type(self).__name__} {self.event_shape}: " + ", ".join(layer.name for layer in self.layers)

    def __call__(self, x: Array) -> Array:
        """Return g(x)."""
        return sequence.value(self.layers, x)

    def linearize(self, x: Array) -> tuple[Array, Chain]:
        """Return g(x) and the chain of J_g(x); products with J repeat no forward pass."""
        y, factors = sequence.linearized(self.layers, x)
        return y, Chain(factors, x.shape[0], y)

    def jacobian(self, x: Array) -> Chain:
        """Return the chain of J_g(x) alone: what a last linear layer makes of its input is not computed."""
        batch, last = x.shape[0], self.layers[-1]
        x, factors = sequence.linearized(self.layers[:-1], x)
        return Chain((*factors, last.operator if isinstance(last, LinearLayer) else last.linearize(x)[1]), batch, x)

    def pullback(self, x: Array, v: Array | None = None, y_bar: Array | None = None, t_bar: Array | None = None) -> Pulled:
        """Return (x̄, v̄, {parameter: gradient}): one reverse pass over the pairs (x, v) of every layer.

        ȳ is the cotangent of y = g(x), t̄ that of the tangent t = J_g(x) v, so this differentiates Σ ȳᵀg(x) + Σ t̄ᵀJ_g(x)v.
        x and ȳ are (batch, *event), v and t̄ (*probes, batch, *event), both or neither of them given; None is zero.
        x̄ is summed over the probes, gradients over probes and batch. v̄ is None without v.
        """
        tape = self.record(x, linearize=v is not None)
        return tape.pullback(y_bar, () if v is None else tape.push_in_front(v), t_bar)

    def record(self, x: Array, *, linearize: bool = True) -> Tape:
        """Return the forward pass at x with what a reverse pass needs of it."""
        return record(self.layers, x, linearize=linearize)

    def parameters(self) -> dict[str, Array]:
        """Return all parameters as {"0.weight": …}, in the order of the layers."""
        return dict(self._parameters)

    @lazy
    def _parameters(self) -> dict[str, Array]:
        return sequence.parameters(self.layers)

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> Branch:
        """Return the branch with these parameters; the keys are those of `parameters()`. Raises ShapeError."""
        require_parameters(parameters, self._parameters)
        made = self.of_fitting(sequence.with_parameters(self.layers, parameters))
        made.__post_init__()
        return made

    def of_fitting(self, layers: Sequence[Layer]) -> Branch:
        """Return a branch of layers that fit: of the same shapes as its own, of one dtype and device."""
        made = Branch.__new__(Branch)
        vars(made).update(layers=tuple(layers), event_shape=self.event_shape, norm=self.norm, out_shape=self.out_shape)
        return made

    @property
    def certificate(self) -> Certificate:
        """The best bound on Lip(g) that is proved so far: that by construction, or what `tighten` has found. It starts no search."""
        given = self.by_construction  # before the look at the cache: torch's compiler reads __dict__ once
        found: Certificate | None = self.__dict__.get("_tightest")
        return given if found is None else found

    @property
    def by_construction(self) -> Certificate:
        """What is proved without a search: the product."""
        return self.product

    @property
    def product(self) -> Certificate:
        """The product of the layers' proved bounds, computed once. It bounds every rotation of J_g as well, which the others do not."""
        self._multiply()
        proved: Certificate = self.__dict__["_product"]
        return proved

    def rotation_bound(self, start: int) -> float:
        """Return a proved bound on the norm of J_g(x) multiplied out from factor `start` once around."""
        return self.certificate.bound if start == 0 else self.product.bound

    def of_layers(self, layers: Sequence[Layer]) -> Branch:
        """Return a branch of layers that are the same map, its own or those in a wider dtype, with what is proved of this one."""
        made = Branch(tuple(layers), self.event_shape, self.norm)
        vars(made).update({key: found for key, found in vars(self).items() if key in ("_tightest", "_two_sided")})
        return made

    @property
    def awaits_proof(self) -> bool:
        """Whether the weights were normalised by estimates, and the proof is still to come (`branches.estimated`)."""
        return "_awaits_proof" in self.__dict__

    @outside_the_graph
    def _multiply(self) -> None:
        if "_product" not in self.__dict__:
            object.__setattr__(self, "_product", product_certificate(self.layers, self.norm))

    @outside_the_graph
    def tighten(self) -> None:
        """Look for the tightest certificate, once, and keep it (`branches.certificates`)."""
        if "_tightest" not in self.__dict__:
            found = tightest_certificate(self.layers, self.event_shape, self.norm, self.by_construction)
            object.__setattr__(self, "_tightest", found)

    @property
    def two_sided(self) -> TwoSided | None:
        """What `find_two_sided` has proved of F = id + g, or nothing."""
        return self.__dict__.get("_two_sided")

    @outside_the_graph
    def find_two_sided(self) -> None:
        """Look for ⟨Δg, Δx⟩ ≥ −m‖Δx‖² and its relatives, once, and keep them; the tightest Lip(g) first."""
        if "_two_sided" not in self.__dict__:
            self.tighten()
            found = best_two_sided(self.layers, self.event_shape, self.norm, self.certificate.bound)
            object.__setattr__(self, "_two_sided", found)

    def running_error(self, x: Array, flushed: float = 0.0) -> tuple[Array, Array, float, Array]:
        """Return (ĝ, s, a, b): ĝ = fl g(x), s ≥ ‖ĝ − g(x)‖ per row, and |s(x′) − s(x)| ≤ a‖x − x′‖ + b for every x′.

        `flushed` is what a flush to zero may have taken of an entry of x and of the parameters, where they were converted.
        The s returned is rounded, and widened so that it is no smaller than the s of docs/proofs.md, which moves so.
        """
        y, after = running_error(self.layers, x, no_error(x, self.norm, flushed))
        return y, after.error, after.growth, after.drift

    @cached_property
    def rounding(self) -> tuple[float, float]:
        """(α, β) with ‖fl g(x) − g(x)‖ ≤ α + β‖x‖ for every x: the running error at 0, and how it grows from there."""
        like = self.like
        origin = namespace(like).zeros((1, *self.event_shape), dtype=like.dtype, device=device(like))
        _, error, growth, drift = self.running_error(origin)
        return (float(to_host(error)[0]) + float(to_host(drift)[0])) * (1.0 + 8.0 * rounding.unit_roundoff(like)), growth

    @cached_property
    def affine_model(self) -> AffineModel | None:
        """The affine model of id + g at the origin; None where it is singular."""
        return affine_model(self.layers, self.event_shape, self.like)

    def rounding_noise(self, x: Array) -> Array:
        """Return the estimated norm, per row, of the rounding error of g(x): a typical size, no bound."""
        xp, values = namespace(x), [x, *(y for _, _, y in sequence.steps(self.layers, x))]
        sizes = xp.max(xp.stack([row_norm(v, v.ndim - 1, math.inf) for v in values], axis=0), axis=0)
        unit = xp.where(sizes > 0.0, sizes, xp.ones_like(sizes))
        variance = variance_along(self.layers, x, xp.zeros_like(x), unit)
        return unit * row_norm(xp.sqrt(variance), x.ndim - 1, self.norm)


def multiply_together(branches: Sequence[Branch]) -> None:
    """Find the products of all branches, with one look at whether all biases are finite."""
    if biases_are_finite([layer for branch in branches for layer in branch.layers]):
        for branch in branches:
            if "_product" not in vars(branch):
                vars(branch)["_product"] = product_certificate(branch.layers, branch.norm, whole=True)
