"""Activations that saturate or grow linearly on one side: sigmoid, log-sigmoid, softsign, tanhshrink, SELU, CELU, softplus with a slope.

    sigmoid σ, Lip ¼;   log-sigmoid −log(1 + e^{−z}), 1;   softsign z/(1 + |z|), 1;   tanhshrink z − tanh z, 1;
    SELU λ(z⁺ + α(e^{z⁻} − 1)), λα = 1.7580993…;   CELU z⁺ + α(e^{z⁻/α} − 1), 1;   softplus log(1 + e^{βz})/β, 1,

z⁺ = max(z, 0), z⁻ = min(z, 0). docs/proofs.md proves the constants. References: Klambauer and others, arXiv 1706.02515 (SELU); Barron,
arXiv 1704.07483 (CELU).
"""

from __future__ import annotations

import math

from iresnet_ref.arrays import Array, namespace, public
from iresnet_ref.layers.activations import ACTIVATIONS, Activation, Turn, get, sech_squared, sigmoid

SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


def _sigmoid_both(z: Array) -> tuple[Array, Array]:
    s, t = sigmoid(z)
    return s, s * t


def _sigmoid_second(z: Array) -> Array:
    s, t = sigmoid(z)
    return s * t * (t - s)


def _logsigmoid(z: Array) -> Array:
    return -ACTIVATIONS["softplus"].value(-z)


def _logsigmoid_both(z: Array) -> tuple[Array, Array]:
    return _logsigmoid(z), sigmoid(-z)[0]


def _softsign_both(z: Array) -> tuple[Array, Array]:
    xp = namespace(z)
    shrunk = 1.0 / (1.0 + xp.abs(z))
    return z / (1.0 + xp.abs(z)), shrunk * shrunk


def _softsign_second(z: Array) -> Array:
    xp = namespace(z)
    shrunk = 1.0 / (1.0 + xp.abs(z))
    return -2.0 * xp.sign(z) * (shrunk * shrunk * shrunk)


def _tanhshrink_both(z: Array) -> tuple[Array, Array]:
    t = namespace(z).tanh(z)
    return z - t, t * t


def _tanhshrink_second(z: Array) -> Array:
    return 2.0 * namespace(z).tanh(z) * sech_squared(z)


def _parts(z: Array) -> tuple[Array, Array, Array]:
    """Return (max(z, 0), min(z, 0), [z > 0])."""
    xp = namespace(z)
    zero = xp.zeros_like(z)
    return xp.maximum(z, zero), xp.minimum(z, zero), xp.astype(z > 0.0, z.dtype)


def _selu_both(z: Array) -> tuple[Array, Array]:
    xp = namespace(z)
    right, left, positive = _parts(z)
    steep = SELU_SCALE * SELU_ALPHA
    value = SELU_SCALE * right + steep * xp.expm1(left)
    return value, SELU_SCALE * positive + steep * xp.exp(left) * (1.0 - positive)


def _selu_second(z: Array) -> Array:
    _, left, positive = _parts(z)
    return (SELU_SCALE * SELU_ALPHA) * namespace(z).exp(left) * (1.0 - positive)


@public
def celu(alpha: float = 1.0) -> Activation:
    """Return CELU: z for z > 0, α(e^{z/α} − 1) below; 1-Lipschitz. Raises ValueError unless 0 < α < ∞.

    Limits: within `Activation.error`·u(|φ| + 1) of φ, the same for φ′. Reference: Barron 2017, arXiv 1704.07483.

    >>> celu(2.0).lipschitz
    1.0
    """
    if not 0.0 < alpha < math.inf:
        raise ValueError(f"celu: expected 0 < α < inf, got {alpha}; try alpha=1.0")
    if alpha == 1.0:
        return get("elu")

    def both(z: Array) -> tuple[Array, Array]:
        xp = namespace(z)
        right, left, _ = _parts(z)
        return right + alpha * xp.expm1(left / alpha), xp.exp(left / alpha)

    def second(z: Array) -> Array:
        _, left, positive = _parts(z)
        return namespace(z).exp(left / alpha) * (1.0 - positive) / alpha

    curvature = 1.0 / alpha * (1.0 + 2.0**-50)
    return Activation(
        f"celu α={alpha:.6g}", lambda z: both(z)[0], both, second, 1.0, curvature=curvature, made=("celu", alpha), slopes=(0.0, 1.0),
        turns=(),
    )


@public
def softplus(beta: float = 1.0) -> Activation:
    """Return log(1 + e^{βz})/β, 1-Lipschitz, with φ′ = σ(βz). Raises ValueError unless 0 < β < ∞.

    Limits: nothing overflows: where e^{−|βz|} leaves the range of the dtype φ is max(z, 0) to rounding.
    Reference: Dugas and others, *Incorporating Second-Order Functional Knowledge for Better Option Pricing*, 2001.

    >>> softplus(2.0).lipschitz
    1.0
    """
    if not 0.0 < beta < math.inf:
        raise ValueError(f"softplus: expected 0 < β < inf, got {beta}; try beta=1.0")
    if beta == 1.0:
        return get("softplus")

    def stretched(z: Array) -> Array:
        """βz, kept where its exponential is in range: beyond, softplus is max(z, 0) to rounding."""
        xp = namespace(z)
        edge = xp.full_like(z, math.log(float(xp.finfo(z.dtype).max)) / beta)
        return beta * xp.minimum(xp.maximum(z, -edge), edge)

    def value(z: Array) -> Array:
        xp = namespace(z)
        return _parts(z)[0] + xp.log1p(xp.exp(-xp.abs(stretched(z)))) / beta

    def both(z: Array) -> tuple[Array, Array]:
        return value(z), sigmoid(stretched(z))[0]

    def second(z: Array) -> Array:
        s, t = sigmoid(stretched(z))
        return beta * (s * t)

    curvature = 0.25 * beta * (1.0 + 2.0**-50)
    return Activation(
        f"softplus β={beta:.6g}", value, both, second, 1.0, curvature=curvature, made=("softplus", beta), slopes=(0.0, 1.0), turns=()
    )


SATURATING: tuple[Activation, ...] = (
    Activation(
        "sigmoid", lambda z: sigmoid(z)[0], _sigmoid_both, _sigmoid_second, 0.25, curvature=0.09622504486493764, slopes=(0.0, 0.25),
        turns=(Turn(0.0, 0.0, 0.25, 0.25),),
    ),
    Activation(
        "log sigmoid", _logsigmoid, _logsigmoid_both, lambda z: -_sigmoid_both(z)[1], 1.0, curvature=0.25, slopes=(0.0, 1.0), turns=(),
    ),
    Activation(
        "softsign", lambda z: _softsign_both(z)[0], _softsign_both, _softsign_second, 1.0, curvature=2.0, slopes=(0.0, 1.0),
        turns=(Turn(0.0, 0.0, 1.0, 1.0),),
    ),
    Activation(
        "tanhshrink", lambda z: _tanhshrink_both(z)[0], _tanhshrink_both, _tanhshrink_second, 1.0, curvature=0.77,
        slopes=(0.0, 1.0), errors=(("jax", 14.0),),  # φ′ is the square of a tanh that errs by 3.5u: 6.9u measured, twice that
        turns=(Turn(0.0, 0.0, 0.0, 0.0),),
    ),
    Activation(
        "selu", lambda z: _selu_both(z)[0], _selu_both, _selu_second, 1.7580993408473773, curvature=1.7580993408473773,
        jump=0.7073983534918968, slopes=(0.0, 1.7580993408473773), turns=(Turn(0.0, 0.0, SELU_SCALE, 1.7580993408473773),),
    ),
)  # fmt: skip
