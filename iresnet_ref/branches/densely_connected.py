"""The densely connected layer h ↦ [η₁h; η₂f(h)] and branches made of it (Perugachi-Diaz, Tomczak, Bhulai, *Invertible
DenseNets with Concatenated LipSwish*, NeurIPS 2021, arXiv 2102.02694).

    Lip ≤ √(η₁² + η₂²K²) for Lip(f) ≤ K,      ηᵢ = softplus(rawᵢ)/√(softplus(raw₁)² + softplus(raw₂)²)    (their eq. 10, §3.2),

so that η₁² + η₂² = 1 and Lip ≤ 1 for K ≤ 1 *whatever the learnt concatenation is*; without parameters both are 1/√2.
The Jacobian is [η₁I; η₂J_f]: one factor of the chain, made of those of f.
"""

from __future__ import annotations

from iresnet_ref import rounding
from iresnet_ref.arrays import Array, device, namespace, public
from iresnet_ref.branches.branch import Branch
from iresnet_ref.branches.draws import array_like, drawn
from iresnet_ref.errors import ShapeError
from iresnet_ref.layers import Affine, Concatenation, Layer
from iresnet_ref.layers.activations import Activation
from iresnet_ref.layers.by_name import nonlinearity, widening
from iresnet_ref.normalisation.division import normalise
from iresnet_ref.normalisation.shares import lipschitz_shares


@public
def densenet(
    d: int,
    *,
    depth: int = 3,
    growth: int = 16,
    activation: str | Activation | Layer = "clipswish",
    learnable: bool = True,
    lipschitz: float = 0.9,
    seed: int = 0,
    like: Array | None = None,
) -> Branch:
    """Return the densely connected branch g = W ∘ D_depth ∘ ⋯ ∘ D₁, D: h ↦ [η₁h; η₂φ(Wh + b)], with proved Lip(g) ≤ `lipschitz` < 1.

    Each D appends `growth` features and keeps those before, so that the last W sees d + depth·growth of them. The W inside
    have norm at most 1/Lip(φ), hence Lip(D) ≤ 1 whatever the `learnable` concatenation (η₁, η₂) becomes, and the last W has
    norm at most `lipschitz`. Draws depend on the seed alone: the same network on every backend.

    Shapes: events (d,). `activation` as in `mlp`; for CLipSwish W has growth/2 rows.
    Limits: the stored weights are those that are proved, so that the bound counts the rounding of the division.
    Raises: ShapeError, NotContractiveError, ValueError. Reference: arXiv 2102.02694, §3.

    >>> import numpy as np
    >>> g = densenet(2, depth=2, growth=8)
    >>> g(np.zeros((5, 2))).shape, [tuple(p.shape) for k, p in g.parameters().items() if k.endswith("weight")]
    ((5, 2), [(4, 2), (4, 10), (2, 18)])
    """
    like = array_like(like)
    phi = nonlinearity(activation, like)
    if d < 1 or depth < 1 or growth < 1 or growth % widening(phi):
        raise ShapeError(
            f"densenet: expected d, depth and growth ≥ 1 and growth a multiple of {widening(phi)} for {phi.name}, got d={d}, "
            f"depth={depth}, growth={growth}; try growth=16"
        )
    inside = 1.0 / max(1.0, phi.norm_bound()) * (1.0 - 32.0 * rounding.FLOAT64_ROUNDOFF)
    layers: list[Layer] = []
    width = d
    for i in range(depth + 1):
        weight, bias = drawn((growth // widening(phi) if i < depth else d, width), like, seed, i)
        if i == depth:
            last = lipschitz_shares(lipschitz, 1) * (1.0 - 16.0 * depth * rounding.FLOAT64_ROUNDOFF)
            layers.append(Affine(normalise(weight, last), bias))
            break
        raw = namespace(like).zeros((2,), dtype=like.dtype, device=device(like)) if learnable else None
        layers.append(Concatenation((Affine(normalise(weight, inside), bias), phi), raw))
        width += growth
    return Branch(tuple(layers), (d,))
