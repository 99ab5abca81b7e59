"""Between proofs: a branch normalised by estimates of its norms, on the device of its weights, without a look at the host.

Subspace iteration on AᵀA, from the vectors of the step before, gives σ̂ = ‖Av‖. With c the bound of the last proof and σ̂₀ the
estimate of the same weights, r = c/σ̂₀ holds what the estimate misses, and for zero-padded convolutions what the circular bound is above
the norm. Until the next proof the weights are multiplied by

    s = min(1, share/((1 + ε) r σ̂)),      ε = MARGIN.

Nothing is proved of such a branch, and its certificate says so. `EstimatedBranch.proved` proves of these very weights that they are
within their shares; ε has to cover what r changes by in between, and where it does not, that is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from iresnet_ref.arrays import HostArray, contiguous, from_host, namespace, size
from iresnet_ref.branches.branch import Branch
from iresnet_ref.branches.certificate import Certificate
from iresnet_ref.branches.normalised import NormalisedBranch, linear_layers
from iresnet_ref.errors import NotContractiveError
from iresnet_ref.jacobian.convolution import Convolution, Operator
from iresnet_ref.jacobian.factors import Dense
from iresnet_ref.layers import Concatenation, Layer
from iresnet_ref.normalisation.raw_proof import Warm, carrying, raw_proofs, scaled_bounds

MARGIN = 2e-3
"""ε: what the ratio of bound and estimate may change by between two proofs, and what every layer loses for it."""
BLOCK = 8
_STEPS = 3
_FIRST = 20
_SQUARINGS = 10
_UNPROVED = Certificate(math.inf, False, "normalised by estimates between two proofs: ask the state of the training for `proved()`")


@dataclass(frozen=True, eq=False)
class Estimate:
    """What estimates of a layer's norm begin with: the `block`, the ratio r and the layer's share of the Lipschitz bound.

    The block has orthonormal vectors (p, *in). Of a convolution whose norm is proved on a grid it has one for each frequency,
    (2·min(in, out),), and `waves` (2, taps, frequencies) are the cosines and sines there.
    """

    block: Any
    ratio: float
    share: float
    waves: Any = None


@dataclass(frozen=True, eq=False)
class _Scaled:
    layer: Any
    scale: Any
    sigma: Any
    slope: Any
    block: Any


@dataclass(frozen=True, eq=False)
class EstimatedBranch:
    """Raw weights, and the branch made of them by estimates: `branch`, `pullback` and `after` as those of `NormalisedBranch`.

    >>> import numpy as np, iresnet_ref as ir
    >>> raw = ir.mlp((2, 8, 2), lipschitz=0.9)
    >>> raw = raw.with_parameters({k: 3.0 * p for k, p in raw.parameters().items()})
    >>> estimated = first_estimate(NormalisedBranch(raw, 0.8, {}))
    >>> estimated.branch.certificate.proved, 0.78 < estimated.proved({})[0].certificate.bound <= 0.8
    (False, True)
    """

    raw: Branch
    estimates: Mapping[str, Estimate]

    @cached_property
    def _scaled(self) -> dict[str, _Scaled]:
        scaled: dict[str, _Scaled] = {}

        def scale(key: str, layer: Any) -> Any:
            estimate = self.estimates[key]
            sigma, slope, block = _leading(layer, estimate)
            xp, weight = namespace(sigma), layer.parameters["weight"]
            s = estimate.share / (((1.0 + MARGIN) * estimate.ratio) * sigma)
            s = xp.where(s < 1.0, s, xp.ones_like(s))
            new = layer.with_parameters({**layer.parameters, "weight": weight * s})
            scaled[key] = _Scaled(new, s, sigma, slope, block)
            return new

        _mapped(self.raw.layers, scale)
        return scaled

    @cached_property
    def branch(self) -> Branch:
        """The branch; nothing is proved of it."""
        return self._with({key: s.layer for key, s in self._scaled.items()}, proved=False)

    def _with(self, layers: Mapping[str, Any], *, proved: bool) -> Branch:
        made = Branch(tuple(_mapped(self.raw.layers, lambda key, _: layers[key])), self.raw.event_shape, self.raw.norm)
        if not proved:
            vars(made).update(_product=_UNPROVED, _awaits_proof=True)
        return made

    def pullback(self, gradients: Mapping[str, Any]) -> dict[str, Any]:
        """Return the gradients with respect to the raw parameters, those of the σ̂ that the weights were divided by."""
        raw, weights = dict(gradients), self.raw.parameters()
        for prefix, scaled in self._scaled.items():
            key = f"{prefix}weight"
            if key in gradients:
                xp, gradient, s = namespace(gradients[key]), gradients[key], scaled.scale
                along = xp.sum(gradient * weights[key]) / scaled.sigma
                along = xp.where(s < 1.0, along, xp.zeros_like(along))
                raw[key] = s * (gradient - along * scaled.slope)
        return raw

    @property
    def after(self) -> dict[str, Estimate]:
        """What the estimates of weights near these begin with."""
        return {key: replace(self.estimates[key], block=s.block) for key, s in self._scaled.items()}

    def proved(self, warm: Mapping[str, Warm]) -> tuple[Branch, dict[str, Estimate], dict[str, Warm]]:
        """Return the same branch with what is proved of it, the estimates with new ratios, and what the next proofs begin with.

        Raises NotContractiveError where a layer has left its share.
        """
        after, raws = self.after, dict(linear_layers(self.raw.layers))
        proofs = raw_proofs(list(raws.values()), [warm.get(key) for key in raws])
        layers: dict[str, Layer] = {}
        next_warm: dict[str, Warm] = {}
        for (key, raw), proof in zip(raws.items(), proofs, strict=True):
            scaled = self._scaled[key]
            s, share = float(scaled.scale), self.estimates[key].share
            if proof is None:
                layers[key] = scaled.layer
                bound = scaled.layer.norm_bound()
                of_raw = bound / s if s > 0.0 else math.inf
            else:
                bounds = scaled_bounds(proof.bound, proof.absolute, s, raw.parameters["weight"])
                layers[key] = carrying(scaled.layer, *bounds)
                next_warm[key], bound, of_raw = proof.warm, bounds[0], proof.bound
            if not bound <= share:
                raise NotContractiveError(
                    f"training: expected the margin of {MARGIN:g} to keep {scaled.layer.name} within its share {share:.6g} between two "
                    f"proofs, got a proved bound of {bound:.6g}; try a smaller certify_every= or learning_rate="
                )
            after[key] = replace(after[key], ratio=of_raw / float(scaled.sigma))
        return self._with(layers, proved=True), after, next_warm


def first_estimate(proved: NormalisedBranch) -> EstimatedBranch:
    """Return the branch of the same raw weights by estimates whose ratios are those of its proofs. The host is looked at."""
    estimates: dict[str, Estimate] = {}
    raws = dict[str, Any](linear_layers(proved.raw.layers))
    proofs = raw_proofs(list(raws.values()), [proved.after.get(key) for key in raws])
    for (key, layer), proof in zip(raws.items(), proofs, strict=True):
        warm, operator, weight = proved.after.get(key), _operator(layer), layer.parameters["weight"]
        waves, shape = None, (min(BLOCK, size(operator.in_shape), size(operator.out_shape)), *operator.in_shape)
        if warm is not None and warm.twists:
            waves = from_host(grid_waves(layer.operator, warm.twists), weight)
            shape = (waves.shape[2], 2 * min(weight.shape[:2]))
        start = np.sin(np.arange(1.0, size(shape) + 1.0) ** 2).reshape(shape[0], -1)
        start = start if waves is not None else np.ascontiguousarray(np.linalg.qr(start.T)[0].T)
        estimate = Estimate(from_host(start.reshape(shape), weight), 1.0, proved.shares[key], waves)
        for _ in range(_FIRST):
            sigma, _, block = _leading(layer, estimate)
            estimate = replace(estimate, block=block)
        bound = layer.norm_bound() if proof is None else proof.bound
        estimates[key] = replace(estimate, ratio=bound / float(sigma) if bound else 1.0)
    return EstimatedBranch(proved.raw, estimates)


def _operator(layer: Any) -> Any:
    """Return the operator, of a 1×1 convolution that of a pixel."""
    weight = layer.parameters["weight"]
    return Dense(weight[:, :, 0, 0]) if tuple(weight.shape[2:]) == (1, 1) else layer.operator


def _leading(layer: Any, estimate: Estimate) -> tuple[Any, Any, Any]:
    """Return (σ̂, ∂σ̂/∂W, next block)."""
    weight = layer.parameters["weight"]
    if estimate.waves is not None:
        return leading_wave(weight, estimate.waves, estimate.block)
    operator = _operator(layer)
    sigma, u, v, block = leading_pair(operator, estimate.block)
    return sigma, namespace(weight).reshape(operator.weight_gradient(u, v), weight.shape), block


def grid_waves(operator: Convolution, twists: tuple[int, ...]) -> HostArray:
    """Return cos and sin of ω·t, (2, taps, frequencies), on the grid of these twists, on the host."""
    (rows, columns), (kh, kw) = operator.image, operator.weight.shape[2:]
    around = 0 if operator.padding == "circular" else 1
    n1, n2 = rows + around * (kh // 2), columns + around * (kw // 2)
    down = np.pi * np.outer(np.arange(kh), 2 * np.arange(n1) + twists[0]) / n1
    across = np.pi * np.outer(np.arange(kw), 2 * np.arange(n2 // 2 + 1) + twists[1]) / n2
    angle = (down[:, None, :, None] + across[None, :, None, :]).reshape(kh * kw, -1)
    return np.stack([np.cos(angle), np.sin(angle)])


def leading_wave(kernel: Any, waves: Any, vectors: Any) -> tuple[Any, Any, Any]:
    """Return (σ̂, ∂σ̂/∂K, next vectors): max_ω ‖B(ω)v(ω)‖ after steps of power iteration on B(ω)ᴴB(ω) at every frequency, as real matrices.

    B(ω)ᴴB(ω) = Σ_{t,t'} K_tᵀK_t' e^{iω·(t'−t)} comes from the products of the taps, as in `norms.gram_symbol`, B(ω) is formed where the
    norm is largest. With fewer outputs than inputs it is that of the transposed kernel, and the vectors are on the other side.
    """
    xp, standing = namespace(kernel), kernel.shape[0] >= kernel.shape[1]
    k = kernel if standing else xp.permute_dims(kernel, (1, 0, 2, 3))
    m, n, kh, kw = k.shape
    taps, frequencies = kh * kw, waves.shape[2]
    rows = contiguous(xp.reshape(xp.permute_dims(xp.reshape(k, (m, n, taps)), (0, 2, 1)), (m, taps * n)))
    products = xp.reshape(xp.matmul(xp.matrix_transpose(rows), rows), (taps, n, taps, n))
    products = xp.reshape(xp.permute_dims(products, (0, 2, 1, 3)), (taps * taps, n * n))
    cos, sin = waves[0, :, :], waves[1, :, :]

    def gram(of_differences: Any) -> Any:
        factors = xp.matrix_transpose(xp.reshape(of_differences, (taps * taps, frequencies)))
        return xp.reshape(xp.matmul(factors, products), (frequencies, n, n))

    re = gram(cos[:, None, :] * cos[None, :, :] + sin[:, None, :] * sin[None, :, :])
    im = gram(cos[:, None, :] * sin[None, :, :] - sin[:, None, :] * cos[None, :, :])
    g = xp.concat([xp.concat([re, -im], axis=2), xp.concat([im, re], axis=2)], axis=1)
    known = vectors.shape[1] == 2 * n
    v = xp.expand_dims(vectors if known else vectors[:, : 2 * n], axis=2)  # states of 0.2.0 have vectors of the inputs, many or few
    for _ in range(_STEPS if known else _STEPS * _FIRST):
        v = _of_length_one(xp.matmul(g, v))
    best = xp.reshape(xp.argmax(xp.sum(v * xp.matmul(g, v), axis=(1, 2))), (1,))
    wave, w = xp.reshape(xp.take(waves, best, axis=2), (2, taps)), xp.reshape(xp.take(v, best, axis=0), (2, n))
    b = xp.permute_dims(xp.reshape(xp.matmul(xp.reshape(k, (m * n, taps)), xp.matrix_transpose(wave)), (m, n, 2)), (2, 0, 1))
    parts = xp.matmul(b, xp.matrix_transpose(w))  # of B and of v, real and imaginary
    u = xp.stack([parts[0, :, 0] - parts[1, :, 1], parts[0, :, 1] + parts[1, :, 0]])
    sigma, tiny = xp.sqrt(xp.sum(u * u)), float(xp.finfo(kernel.dtype).smallest_normal)
    sigma = xp.where(sigma > tiny, sigma, xp.full_like(sigma, tiny))
    u = u / sigma
    real, imaginary = xp.matmul(xp.matrix_transpose(u), w), u[0, :, None] * w[1, None, :] - u[1, :, None] * w[0, None, :]
    slope = xp.reshape(real[:, :, None] * wave[0, :] - imaginary[:, :, None] * wave[1, :], (m, n, kh, kw))
    return sigma, slope if standing else xp.permute_dims(slope, (1, 0, 2, 3)), v[:, :, 0]


def _of_length_one(v: Any) -> Any:
    xp = namespace(v)
    v = v / xp.where((largest := xp.max(xp.abs(v), axis=1, keepdims=True)) > 0.0, largest, xp.ones_like(largest))
    length = xp.sqrt(xp.sum(v * v, axis=1, keepdims=True))
    return v / xp.where(length > 0.0, length, xp.ones_like(length))


def leading_pair(operator: Operator, block: Any) -> tuple[Any, Any, Any, Any]:
    """Return (σ̂, u, v, next block) from a block (p, *in): σ̂ = uᵀAv ≤ ‖A‖, a 0-d array; no host is asked.

    Three steps of subspace iteration on AᵀA, and Rayleigh–Ritz: the largest eigenvector of the p×p matrix of the images comes from its
    power 2¹⁰, so that ties are no trouble.
    """
    xp, p = namespace(block), block.shape[0]
    tiny = float(xp.finfo(block.dtype).smallest_normal)
    moved = block
    for _ in range(_STEPS):
        moved = _over_largest(operator.transpose(operator.apply(moved)))
    q = xp.linalg.qr(xp.matrix_transpose(xp.reshape(moved, (p, -1))))[0]
    after = xp.reshape(xp.reshape(xp.matrix_transpose(q), (-1,)), block.shape)  # contiguous, as it is after saving and loading
    flat = xp.reshape(after, (p, -1))
    images = xp.reshape(operator.apply(after), (p, -1))
    power = _over_largest(xp.matmul(images, xp.matrix_transpose(images)))
    for _ in range(_SQUARINGS):
        power = _over_largest(xp.matmul(power, power))
    w = xp.take(power, xp.reshape(xp.argmax(xp.linalg.diagonal(power)), (1,)), axis=1)
    length = xp.sqrt(xp.sum(w * w))
    w = xp.matrix_transpose(w / xp.where(length > tiny, length, xp.ones_like(length)))
    image = xp.matmul(w, images)
    sigma = xp.sqrt(xp.sum(image * image))
    sigma = xp.where(sigma > tiny, sigma, xp.full_like(sigma, tiny))
    u, v = xp.reshape(image / sigma, (1, *operator.out_shape)), xp.reshape(xp.matmul(w, flat), (1, *operator.in_shape))
    return sigma, u, v, after


def _over_largest(a: Any) -> Any:
    """Return a over its largest entry, so that no power of it leaves the range of the dtype."""
    xp = namespace(a)
    largest = xp.max(xp.abs(a))
    return a / xp.where(largest > 0.0, largest, xp.ones_like(largest))


def _mapped(layers: Iterable[Layer], change: Callable[[str, Any], Any], prefix: str = "") -> list[Layer]:
    """Return the layers with every linear one, inside dense connections too, replaced by change(prefix of its parameters, layer)."""
    new: list[Layer] = []
    for i, layer in enumerate(layers):
        key = f"{prefix}{i}."
        if isinstance(layer, Concatenation):
            new.append(replace(layer, inner=tuple(_mapped(layer.inner, change, key))))
        else:
            new.append(change(key, layer) if "weight" in layer.parameters else layer)
    return new
