"""The residual block F(x) = x + g(x), invertible where Lip(g) < 1 ([B19] Thm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import overload

from iresnet_ref.arrays import Array, all_finite, device, namespace, public, size
from iresnet_ref.arrays.validation import require_alike, require_batch, require_finite, require_real, require_rows
from iresnet_ref.branches.branch import Branch
from iresnet_ref.branches.certificate import Certificate
from iresnet_ref.branches.certificates.box import CELLS, NARROW, BoxCertificate, box_certificate, require_box
from iresnet_ref.branches.certificates.two_sided import TwoSided, from_lipschitz
from iresnet_ref.errors import DTypeError, NonFiniteError, NotContractiveError, ShapeError
from iresnet_ref.layers.tape import Pulled
from iresnet_ref.rounding import FLOAT64_ROUNDOFF, down, unit_roundoff


@public
@dataclass(frozen=True, eq=False)  # arrays have no truth of equality; jax.jit(F) hashes F
class ResidualBlock:
    """F = id + g.

    L = Lip(g) is what `certify` proves of the weights. `lipschitz` states a smaller constant that you know and the
    certificate cannot prove: everything downstream then rests on it, and an iteration that contradicts it raises
    NotContractiveError. Residuals, distances and error bounds of the block are in the norm of its branch.
    Shapes: x, F(x) (batch, *event). Raises: ShapeError for a branch that does not keep the event shape, DTypeError for what is no branch.
    Reference: [B19] Thm 1.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ResidualBlock(ir.mlp((2, 8, 2), lipschitz=0.5))
    >>> F(np.ones((3, 2))).shape
    (3, 2)
    """

    branch: Branch
    lipschitz: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.branch, Branch):
            raise DTypeError(f"block: expected an ir.Branch, got {type(self.branch).__name__}; try ir.mlp, or from_torch of a module")
        if self.branch.out_shape != self.branch.event_shape:
            raise ShapeError(
                f"block: expected a branch that keeps the event shape {self.branch.event_shape}, for x + g(x), got "
                f"{self.branch.out_shape}; try a last layer with as many outputs"
            )

    def __repr__(self) -> str:
        """Name the layers of g."""
        stated = "" if self.lipschitz is None else f"; Lip(g) ≤ {self.lipschitz:g} is stated"
        return f"ResidualBlock {repr(self.branch).removeprefix('Branch ')}{stated}"

    @public
    def __call__(self, x: Array, *, check: bool = True) -> Array:
        """Return x + g(x) for x of shape (batch, *event). Raises ShapeError, DTypeError, NonFiniteError.

        The one look of `check` is at the result: where it is not finite, x, the weights or the range of the dtype is at fault.
        """
        self.require(x, "x", check=False)
        y = x + self.branch(x)
        if check and y.shape[0] and not all_finite(y):
            require_finite(x=x)
            raise NonFiniteError(
                "block: expected a finite F(x), got NaN or infinity; look for them in the weights (ir.certify names the layer), "
                "or try smaller x"
            )
        return y

    @public
    def pullback(
        self, x: Array, v: Array | None = None, y_bar: Array | None = None, t_bar: Array | None = None, *, check: bool = True
    ) -> Pulled:
        """Return (x̄, v̄, {parameter: gradient}) of Σ ȳᵀF(x) + Σ t̄ᵀJ_F(x)v, in one reverse pass; see `Branch.pullback`.

        Raises ShapeError, DTypeError, NonFiniteError.
        """
        self.require(x, "x", check=False)
        if y_bar is not None:
            self.require(y_bar, "y_bar", check=False)
            require_rows(y_bar, x, "y_bar")
        if (v is None) != (t_bar is None):
            raise ShapeError("pullback: expected v and t_bar, both or neither, got one of them; try both")
        for name, tangent in (("v", v), ("t_bar", t_bar)):
            if tangent is not None:
                require_real(tangent, name)
                require_alike(tangent, x, name)
                if tuple(tangent.shape[-x.ndim :]) != tuple(x.shape):
                    got, wanted = tuple(tangent.shape), tuple(x.shape)
                    raise ShapeError(f"{name}: expected shape (*probes, *{wanted}) for this x, got {got}; try one like x")
        if check:
            require_finite(x=x, y_bar=y_bar)
        x_bar, v_bar, gradients = self.branch.pullback(x, v, y_bar, t_bar)
        return x_bar if y_bar is None else y_bar + x_bar, v_bar if t_bar is None or v_bar is None else t_bar + v_bar, gradients

    def require(self, x: Array, name: str, *, check: bool = True, products: bool = False) -> None:
        """Refuse a batch that is not finite, or not of the block's shape, dtype, namespace and device; see `require_finite`."""
        require_batch(x, self.branch.event_shape, name, check=False)
        require_alike(x, self.branch.like, name)
        if check:
            require_finite(x if products else None, **{name: x})

    @property
    def norm(self) -> float:
        """The norm of events in which g contracts: 2, or that of the branch."""
        return self.branch.norm

    @property
    def certificate(self) -> Certificate:
        """What is proved of Lip(g)."""
        return self.branch.certificate

    def contraction(self) -> float:
        """Return L < 1: the stated constant if there is one, else the proved one. Raises NotContractiveError."""
        bound, how = (self.certificate.bound, "proved") if self.lipschitz is None else (self.lipschitz, "stated")
        if not 0.0 <= bound < 1.0:
            raise NotContractiveError(
                f"expected a residual branch with {how} Lip(g) < 1, got {bound:.6g} ({self.certificate.reason}); "
                "normalise its weights (ir.spectral.normalise), state lipschitz= if you know a smaller constant, or see what ir.certify "
                "and ir.bounds.two_sided prove"
            )
        return bound

    def once_proved(self, bound: float) -> float:
        """Return a bound that rests on L; inf where a training has still to prove what it normalised by."""
        return math.inf if self.branch.awaits_proof else bound

    def contracts_from(self, start: int) -> bool:
        """Return whether J_g(x) is proved to contract multiplied out from factor `start`: J itself from 0, else by the product of norms."""
        return self.lipschitz is None and self.branch.rotation_bound(start) < 1.0

    def least_stretch(self) -> float:
        """Return c > 0 with ‖ΔF‖ ≥ c‖Δx‖: 1 − L, or the μ of `ir.bounds.two_sided` where it was asked for. Raises NotContractiveError.

        0, and so radii that are inf, where a training has still to prove what it normalised by.
        """
        if self.branch.awaits_proof:
            return 0.0
        known = self.branch.two_sided
        bound = self.certificate.bound if self.lipschitz is None else self.lipschitz
        found = max(down(1.0 - bound, 1) if 0.0 <= bound < 1.0 else 0.0, 0.0 if known is None else known.lower)
        return found if found > 0.0 else down(1.0 - self.contraction(), 1)


@overload
def certify(subject: Branch | ResidualBlock) -> Certificate: ...
@overload
def certify(
    subject: Branch | ResidualBlock, *, within: tuple[Array, Array], slack: float = 0.05, cells: int | None = None
) -> BoxCertificate: ...
@public
def certify(
    subject: Branch | ResidualBlock, *, within: tuple[Array, Array] | None = None, slack: float = 0.05, cells: int | None = None
) -> Certificate:
    """Return the tightest bound on Lip(g) that is proved here, and keep it: the product of norms, or incremental quadratic constraints.

    The product multiplies proved operator norms and activation constants. In the 2-norm multipliers t ≥ 0 for the slopes of all
    activations prove more, Lip(g) ≤ √ρ wherever a matrix M(t, ρ) ⪰ 0: .58 for a product of .9 at 64-128-64. They are looked for, in
    seconds for widths in the hundreds, and one Cholesky factorisation proves them. `reason` says which bound it is. Where none is
    proved `bound` is inf, and `reason` names the layer.

    The certificate belongs to the weights as they are now: branches are values, so it is computed once per object, and everything that
    reads `F.contraction()` uses it from then on. `F.certificate` starts no search: it is the product until `certify` was called.

    `within` = (lower, upper), arrays of the event's shape, asks for Lip(g) on that box alone, in any norm: interval bounds on the Jacobian,
    rounded outwards, on boxes that are halved until the bound is within the factor 1 + `slack` of a ‖J‖ that was met, or `cells` of them
    were looked at (2¹⁷ in up to three dimensions, else 1: one evaluation). It always ends, and is no worse than what is known to hold
    everywhere; of sorting, sums of paths, dense connections and layers of your own nothing more is proved on a box. The `BoxCertificate`
    is kept nowhere: outside of the box it says nothing. `ir.bounds.inverse_ball(…, within=…)` is what it means for an inverse.

    Raises HostArithmeticError where the host flushes subnormal numbers to zero; all is proved in its float64. Of `within`: ShapeError,
    DTypeError, NonFiniteError for sides that are not finite, ValueError for lower > upper, slack < 0 or cells < 1.

    Reference: [B19] §2 (Lip of a composition); Rump 2006 for the norms; Fazlyab and others 2019 (arXiv 1906.04893).

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), activation="elu", lipschitz=0.9))
    >>> before = F.contraction()
    >>> c = ir.certify(F)
    >>> c.proved and 0 < c.bound == F.contraction() < before <= 0.9
    True
    >>> box = ir.certify(F, within=(np.zeros(2), np.ones(2)))
    >>> box.met <= box.bound <= min(1.05 * box.met, c.bound)
    True
    """
    branch = subject.branch if isinstance(subject, ResidualBlock) else subject
    if within is not None:
        box = require_box(within, branch.like, branch.event_shape)
        if not 0.0 <= slack < math.inf or (cells is not None and cells < 1):
            raise ValueError(f"certify: expected 0 ≤ slack < inf and cells ≥ 1, got {slack} and {cells}; try slack=0.05 and no cells=")
        limit = cells or (CELLS if size(branch.event_shape) <= NARROW else 1)
        return box_certificate(branch.layers, branch.event_shape, branch.norm, branch.certificate, box, slack, limit)
    branch.tighten()
    return branch.certificate


@public
def two_sided(subject: Branch | ResidualBlock) -> TwoSided:
    """Return what the slopes of the activations prove of F = id + g from both sides, and keep it for radii and for `invert`.

        ⟨Δg, Δx⟩ ≥ −m‖Δx‖²,    μ‖Δx‖ ≤ ‖ΔF‖ ≤ ν‖Δx‖,    x ↦ x − θ(F(x) − y) contracts by r,

    m ≤ L, μ ≥ 1 − m and ν ≤ 1 + L for L = Lip(g). Afterwards radii of inverses are ‖r‖/μ where that is less than ‖r‖/(1 − L). Where
    m < 1 F is a homeomorphism (Minty, Browder) although L may be 1 or more: `invert` then solves F(x) = y as θF(x) = θy, whose
    branch θF − id has the proved constant r. Each figure has its own multipliers and its own proof; docs/proofs.md derives them.

    Cost: four searches of the kind of `certify`, a dozen more where L ≥ 1 > m.
    Raises HostArithmeticError. Reference: Wang, Manchester 2023 (arXiv 2301.11526); Minty 1962.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.mlp((2, 8, 2), activation="elu", lipschitz=0.9))
    >>> found = ir.bounds.two_sided(F)
    >>> 1 - F.contraction() < found.lower < 1 < found.upper < 1 + F.contraction()
    True
    """
    branch = subject.branch if isinstance(subject, ResidualBlock) else subject
    branch.find_two_sided()
    found = branch.two_sided
    return from_lipschitz(branch.certificate.bound) if found is None else found


def in_float64(block: ResidualBlock, *arrays: Array) -> tuple[ResidualBlock, tuple[Array, ...]]:
    """Return (block, arrays) in float64 if that is finer and the device has it: the same values, but for what it flushes."""
    x = arrays[0]
    xp = namespace(x)
    if unit_roundoff(x) <= FLOAT64_ROUNDOFF:
        return block, arrays
    offered = xp.__array_namespace_info__().dtypes(kind="real floating", device=device(x))
    if "float64" not in offered:
        return block, arrays
    wide = offered["float64"]
    layers = [layer.with_parameters({name: xp.astype(p, wide) for name, p in layer.parameters.items()}) for layer in block.branch.layers]
    branch = block.branch.of_layers(layers)
    for old, new in zip(block.branch.layers, branch.layers, strict=True):
        if "_norms" in vars(old):  # the values are the same, and so is what is proved of them
            vars(new)["_norms"] = vars(old)["_norms"]
    return ResidualBlock(branch, block.lipschitz), tuple(xp.astype(a, wide) for a in arrays)
