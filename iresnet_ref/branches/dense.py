"""Dense branches: multilayer perceptrons with a proved Lipschitz bound."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from iresnet_ref.arrays import Array, public
from iresnet_ref.branches.branch import Branch
from iresnet_ref.branches.draws import array_like, drawn
from iresnet_ref.errors import ShapeError
from iresnet_ref.layers import Affine, Layer
from iresnet_ref.layers.activations import Activation
from iresnet_ref.layers.by_name import nonlinearity, widening
from iresnet_ref.normalisation.division import normalise
from iresnet_ref.normalisation.shares import lipschitz_shares


def require_sizes(sizes: Sequence[int], name: str) -> None:
    """Refuse what are no widths of dense layers from d to d. Raises ShapeError."""
    if len(sizes) < 2 or min(sizes) < 1 or sizes[0] != sizes[-1]:
        raise ShapeError(
            f"{name}: expected sizes (d, h₁, …, d) of positive integers with equal ends, got {tuple(sizes)}; try (2, 64, 64, 2)"
        )


@public
def mlp(
    sizes: Sequence[int],
    *,
    activation: str | Activation | Layer = "lipswish",
    lipschitz: float = 0.9,
    norm: float = 2.0,
    seed: int = 0,
    like: Array | None = None,
) -> Branch:
    """Return g(x) = W_L φ(⋯ φ(W₁x + b₁) ⋯) + b_L with proved Lip(g) ≤ `lipschitz` < 1 in the norm of events, 1, 2 or ∞.

    Each of the ℓ weight matrices is drawn N(0, 1/fan-in), and divided so that its operator norm is *proved* at most
    `lipschitz`^(1/ℓ); biases are N(0, 1/fan-in). Draws depend on the seed alone: the same network on every backend.

    `activation` is a name ("lipswish", "clipswish", "learnable lipswish", "elu", "maxmin", "fullsort", …), an `Activation`
    with its constants such as `activations.elu(2.0)`, or a layer such as `sorting.GroupSort(4)`.

    Shapes: `sizes` = (d, h₁, …, d), the rows of each W; CLipSwish doubles the columns of the next. `like` gives namespace,
    dtype and device (default: NumPy float64).
    Raises: ShapeError, NotContractiveError, ValueError for an unknown activation or another norm.
    Reference: [B19] §2.1, [C19] §4 for the norms.

    >>> import numpy as np
    >>> g = mlp((2, 16, 2), activation="elu", lipschitz=0.9)
    >>> g(np.zeros((5, 2))).shape
    (5, 2)
    """
    require_sizes(sizes, "mlp")
    count = len(sizes) - 1
    like = array_like(like)
    phi = nonlinearity(activation, like)
    share = lipschitz_shares(lipschitz / max(1.0, phi.norm_bound(norm)) ** (count - 1), count)
    layers: list[Layer] = []
    for i, (width, m) in enumerate(pairwise(sizes)):
        n = width * widening(phi) if i else width
        weight, bias = drawn((m, n), like, seed, i)
        layers += [phi] * bool(i)
        layers.append(Affine(normalise(weight, share, norm=norm), bias))
    return Branch(tuple(layers), (sizes[0],), norm)
