"""Branches that keep Lip(g) ≤ L whatever their parameters are (Wang, Manchester, *Direct parameterization of Lipschitz-bounded deep
networks*, ICML 2023, arXiv 2301.11526), for activations with slopes in [0, 1].

Any real matrix X gives A and B with AAᵀ + BBᵀ = I: one QR factorisation,

    [I; Xᵀ] = QR,  diag R > 0,      [A B] = Qᵀ,      that is A = S⁻¹, B = S⁻¹X with the Cholesky factor SSᵀ = I + XXᵀ.

With ψ = e^s of hidden layers, A₀ = I and ψ_ℓ = 1/L, the weights of g(x) = W_ℓ φ(⋯ φ(W₁x + b₁) ⋯) + b_ℓ are

    W_k = c_k diag(ψ_k)⁻¹ B_k A_{k−1}ᵀ diag(ψ_{k−1}),      c_k = √2 for each side of W_k on which φ stands:

two neighbouring ones of their layers h ↦ √2Aᵀψφ(√2ψ⁻¹Bh + b), each of Lipschitz constant 1, merged. In `certificates.bidiagonal` these
have P_k = B_kA_{k−1}ᵀ, and for every p, with p₀, …, p_ℓ its parts,

    pᵀ(I − J)p ≥ Σ_k (‖A_{k−1}ᵀp_{k−1}‖² + ‖B_kᵀp_k‖² − 2p_kᵀB_kA_{k−1}ᵀp_{k−1}) = Σ_k ‖A_{k−1}ᵀp_{k−1} − B_kᵀp_k‖² ≥ 0.

Gradients. dA = −Φ(P)A and dB = A dX − Φ(P)B with P = A dX Bᵀ + B dXᵀAᵀ and Φ its lower triangle, the diagonal halved. So

    X̄ = Aᵀ(B̄ − TB),      T the symmetric matrix with the lower triangle of ĀAᵀ + B̄Bᵀ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, HostArray, from_host, namespace, public, to_host
from iresnet_ref.arrays.validation import require_alike, require_parameters, require_real
from iresnet_ref.branches.branch import Branch
from iresnet_ref.branches.certificate import Certificate, biases_are_finite
from iresnet_ref.branches.certificates.bidiagonal import proves_lipschitz
from iresnet_ref.branches.dense import require_sizes
from iresnet_ref.branches.draws import array_like, drawn
from iresnet_ref.errors import NotContractiveError, ShapeError
from iresnet_ref.layers import Affine, Layer, Pointwise
from iresnet_ref.layers.activations import Activation
from iresnet_ref.layers.by_name import nonlinearity
from iresnet_ref.layers.tape import Tape

_MOST_SHRINKING = 2.0**10


@dataclass(frozen=True, eq=False)
class Made:
    """W_k, A_k, B_k and ψ_k on the host, the factor that the weights were shrunk by, and whether Lip(g) ≤ L is proved of them."""

    weights: list[Array]
    a: list[HostArray]
    b: list[HostArray]
    scales: list[HostArray]
    shrunk: float
    proved: bool


@public
@dataclass(frozen=True, eq=False, repr=False)
class SandwichBranch(Branch):
    """g of free parameters with Lip(g) ≤ `lipschitz` < 1 by construction: X_k, b_k and s_k of the module's formulas may be any numbers.

    `layers` are the dense layers W_k, b_k and activations that are evaluated; the weights are computed in host float64, shrunk by about
    n²u (float32: √n u) and stored in the dtype of X, and Lip(g) ≤ L is proved of what is stored. `parameters()` are X ("0.weight", …),
    b ("0.bias", …) and the logarithms s ("1.scale", …), as many as layer 1, 3, … has units; gradients are with respect to these. Training
    moves them as they are: there is nothing to divide or to project.

    Shapes: X_k (n_k, n_{k−1}), b_k (n_k,), s_k (n_k,), n₀ = n_ℓ = d; events (d,).
    Limits: where ψ_i/ψ_j leaves 10^±150, or an entry of W the dtype, nothing is proved, and the certificate says so. For ‖X‖ beyond 10¹⁵
    A is rounding: the proof holds, the gradient is that of other factors. Parameters of more digits than float64 are rounded.
    Raises: ShapeError for widths that do not fit, NotContractiveError unless 0 < lipschitz < 1, ValueError for an activation with slopes
    outside of [0, 1], DTypeError, HostArithmeticError. Reference: arXiv 2301.11526, §3.

    >>> import numpy as np, iresnet_ref as ir
    >>> g = ir.sandwich((2, 8, 2), lipschitz=0.9)
    >>> g = g.with_parameters({k: 100.0 * p for k, p in g.parameters().items() if "scale" not in k} | {"1.scale": np.arange(8.0)})
    >>> ir.ResidualBlock(g).contraction(), g.product.bound > 1.0
    (0.9, True)
    """

    layers: tuple[Layer, ...] = field(init=False)
    event_shape: tuple[int, ...] = field(init=False)
    norm: float = field(init=False, default=2.0)
    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    scales: tuple[Array, ...]
    activation: Activation
    lipschitz: float = 0.9

    def __post_init__(self) -> None:
        _require(self)
        made = _made([to_host(x) for x in self.weights], [to_host(s) for s in self.scales], self.lipschitz, self.weights[0])
        layers: list[Layer] = []
        for weight, bias in zip(made.weights, self.biases, strict=True):
            layers += [Pointwise(self.activation)] * bool(layers)
            layers.append(Affine(weight, bias))
        object.__setattr__(self, "layers", tuple(layers))
        object.__setattr__(self, "event_shape", (int(self.weights[0].shape[1]),))
        object.__setattr__(self, "_made", made)
        super().__post_init__()

    @property
    def by_construction(self) -> Certificate:
        """Lip(g) ≤ `lipschitz`; the product of norms where that is not proved."""
        made = self.made
        if not (made.proved and biases_are_finite(self.layers)):
            return self.product
        units = sum(len(s) for s in made.scales)
        how = f"a sandwich branch: the quadratic constraints on the slopes of its {units} units hold with its own multipliers"
        return Certificate(self.lipschitz, True, how)

    def of_layers(self, layers: Sequence[Layer]) -> Branch:
        """Return a branch of layers that are the same map, its own or those in a wider dtype, with what is proved of this one."""
        made = super().of_layers(layers)
        vars(made).setdefault("_tightest", self.by_construction)
        return made

    @property
    def made(self) -> Made:
        """What its layers were made of."""
        made: Made = self.__dict__["_made"]
        return made

    def parameters(self) -> dict[str, Array]:
        """Return X, b and s by the places of their layers."""
        found: dict[str, Array] = {}
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            found |= {f"{2 * k}.weight": weight, f"{2 * k}.bias": bias}
            if k < len(self.scales):
                found[f"{2 * k + 1}.scale"] = self.scales[k]
        return found

    @public
    def with_parameters(self, parameters: Mapping[str, Array]) -> SandwichBranch:
        """Return the branch with these parameters; whatever they are, Lip(g) ≤ `lipschitz`. Raises ShapeError."""
        own = self.parameters()
        require_parameters(parameters, own)
        weights, biases, scales = (
            tuple(parameters[name] for name in own if name.endswith(kind)) for kind in (".weight", ".bias", ".scale")
        )
        return SandwichBranch(weights, biases, scales, self.activation, self.lipschitz)

    def record(self, x: Array, *, linearize: bool = True) -> Tape:
        """Return the forward pass at x, whose reverse pass ends in X, b and s."""
        return replace(super().record(x, linearize=linearize), onto=self.pulled)

    def pulled(self, gradients: Mapping[str, Array]) -> dict[str, Array]:
        """Return the gradients with respect to X, b and s, from those with respect to the W_k and b_k of `layers`."""
        made, like = self.made, self.weights[0]
        xp, count = namespace(like), len(self.weights)
        a, b = ([from_host(m, like) for m in of] for of in (made.a, made.b))
        w_bars = [gradients[f"{2 * k}.weight"] for k in range(count)]
        a_bars: list[Array | None] = [None] * count
        b_bars: list[Array] = []
        for k, w_bar in enumerate(w_bars):  # W_k = left · B_k A_{k−1}ᵀ · right
            left, right = (from_host(v, like) for v in _sides(made.scales, k, count, self.lipschitz))
            p_bar = left[:, None] * w_bar * right * made.shrunk
            b_bars.append(xp.matmul(p_bar, a[k - 1]) if k else p_bar)
            if k:
                a_bars[k - 1] = xp.matmul(xp.matrix_transpose(p_bar), b[k])
        found = dict(gradients)
        for k, (a_bar, b_bar) in enumerate(zip(a_bars, b_bars, strict=True)):
            grown = xp.matmul(b_bar, xp.matrix_transpose(b[k]))
            grown = grown if a_bar is None else grown + xp.matmul(a_bar, xp.matrix_transpose(a[k]))
            lower = grown * from_host(np.tri(len(made.a[k])), like)
            t = lower + xp.matrix_transpose(grown * from_host(np.tri(len(made.a[k]), k=-1), like))
            found[f"{2 * k}.weight"] = xp.matmul(xp.matrix_transpose(a[k]), b_bar - xp.matmul(t, b[k]))
        for k in range(count - 1):
            into, out_of = (w_bars[j] * made.weights[j] for j in (k, k + 1))
            found[f"{2 * k + 1}.scale"] = xp.sum(out_of, axis=0) - xp.sum(into, axis=1)
        return {name: found[name] for name in self.parameters()}


def _require(branch: SandwichBranch) -> None:
    """Refuse what is no sandwich branch."""
    weights, biases, scales = branch.weights, branch.biases, branch.scales
    for array in (*weights, *biases, *scales):
        require_real(array, "sandwich")
        require_alike(array, (*weights, *biases, *scales)[0], "sandwich parameter")
    widths = [tuple(w.shape) for w in weights]
    fits = (
        weights
        and all(len(shape) == 2 and min(shape) > 0 for shape in widths)
        and all(after[1] == before[0] for before, after in pairwise(widths))
        and widths[0][1] == widths[-1][0]
        and [tuple(b.shape) for b in biases] == [shape[:1] for shape in widths]
        and [tuple(s.shape) for s in scales] == [shape[:1] for shape in widths[:-1]]
    )
    if not fits:
        raise ShapeError(
            "sandwich: expected weights (n_k, n_{k−1}) from d to d, biases (n_k,), and scales (n_k,) of all but the last, got "
            f"{widths}, {[tuple(b.shape) for b in biases]} and {[tuple(s.shape) for s in scales]}; try ir.sandwich((2, 64, 64, 2))"
        )
    if not 0.0 < branch.lipschitz < 1.0:
        raise NotContractiveError(f"sandwich: expected 0 < Lip(g) < 1 for F = id + g to be invertible, got {branch.lipschitz}; try 0.9")
    low, high = branch.activation.slope_interval
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(
            f"sandwich: expected an activation with slopes in [0, 1], got {branch.activation.name} with slopes in [{low:g}, {high:g}]; "
            "try 'rising sine', 'elu', 'softplus' or 'tanh'"
        )


def _made(x: Sequence[HostArray], logarithms: Sequence[HostArray], lipschitz: float, like: Array) -> Made:
    """Return the weights in the dtype of `like`, shrunk until Lip(g) ≤ L is proved of them: nearly always the first time."""
    factors = [_orthonormal(np.asarray(m, dtype=np.float64)) for m in x]
    a, b = [f[0] for f in factors], [f[1] for f in factors]
    scales, count = [np.exp(np.asarray(s, dtype=np.float64)) for s in logarithms], len(x)
    products: list[HostArray] = []
    for k in range(count):
        left, right = _sides(scales, k, count, lipschitz)
        products.append(left[:, None] * (b[k] @ a[k - 1].T if k else b[k]) * right)
    n = sum(m.shape[0] for m in x) + x[0].shape[1]
    margin = 2.0 * math.sqrt(n) * rounding.unit_roundoff(like) + (n * n / 8 + 2 * n + 16) * rounding.FLOAT64_ROUNDOFF
    while True:
        shrunk = 1.0 / (1.0 + margin)
        weights = [from_host(w * shrunk, like) for w in products]
        proved = proves_lipschitz([np.asarray(to_host(w), dtype=np.float64) for w in weights], scales, lipschitz)
        margin *= 2.0
        if proved or not margin < _MOST_SHRINKING:
            return Made(weights, a, b, scales, shrunk, proved)


def _orthonormal(x: HostArray) -> tuple[HostArray, HostArray]:
    """Return (A, B) with AAᵀ + BBᵀ = I to rounding, A lower triangular with a positive diagonal; NaN of what is not finite."""
    n = len(x)
    if not np.isfinite(x).all():
        return np.full((n, n), np.nan), np.full(x.shape, np.nan)
    q, r = np.linalg.qr(np.concatenate([np.eye(n), x.T]))
    q = q * np.where(np.diagonal(r) < 0.0, -1.0, 1.0)
    return q[:n].T, q[n:].T


def _sides(scales: Sequence[HostArray], k: int, count: int, lipschitz: float) -> tuple[HostArray, HostArray]:
    """Return what the rows and the columns of B_k A_{k−1}ᵀ are multiplied by in W_k, k = 0, …"""
    left = math.sqrt(2.0) / scales[k] if k < count - 1 else np.full(1, lipschitz)
    return left, math.sqrt(2.0) * scales[k - 1] if k else np.ones(1)


@public
def sandwich(
    sizes: Sequence[int], *, activation: str | Activation = "rising sine", lipschitz: float = 0.9, seed: int = 0, like: Array | None = None
) -> SandwichBranch:
    """Return g(x) = W_ℓ φ(⋯ φ(W₁x + b₁) ⋯) + b_ℓ with Lip(g) ≤ `lipschitz` < 1 by construction, for slopes of φ in [0, 1].

    The bound is that of the whole branch, not the product of its layers' norms: with the same constant the layers may be larger than those
    of `ir.mlp`. Its parameters are free (`SandwichBranch`). X_k and b_k are drawn N(0, 1/fan-in), scales begin at 1; draws
    depend on the seed alone.

    Shapes: `sizes` = (d, h₁, …, d). `like` gives namespace, dtype and device (default: NumPy float64).
    Raises: as `SandwichBranch`. Reference: arXiv 2301.11526.

    >>> import numpy as np, iresnet_ref as ir
    >>> F = ir.ResidualBlock(ir.sandwich((2, 16, 16, 2), activation="elu", lipschitz=0.97))
    >>> F.contraction(), bool((ir.invert(F, F(np.ones((1, 2)))).error_bound < 1e-4).all())
    (0.97, True)
    """
    require_sizes(sizes, "sandwich")
    like = array_like(like)
    layer = nonlinearity(activation, like)
    if not isinstance(layer, Pointwise):
        raise ValueError(f"sandwich: expected an activation entry by entry with slopes in [0, 1], got {layer.name}; try 'elu'")
    weights, biases = zip(*(drawn((m, n), like, seed, k) for k, (n, m) in enumerate(pairwise(sizes))), strict=True)
    scales = tuple(from_host(np.zeros(m), like) for m in sizes[1:-1])
    return SandwichBranch(weights, biases, scales, layer.activation, lipschitz)
