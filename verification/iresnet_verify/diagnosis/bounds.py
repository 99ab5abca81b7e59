"""Hypotheses of a claimed Lipschitz bound: which wrong norm of the weights the claim is, to the last digits.

The norm of a convolution is that of its operator on the grid where it is used (Sedghi, Gupta and Long 2019); its kernel reshaped to a
matrix, another grid, padding or stride, and few power iterations all give smaller numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from iresnet_verify.diagnosis.case import SEED, Case
from iresnet_verify.diagnosis.hypothesis import Array, Cause, Explanation
from iresnet_verify.diagnosis.parts import parameter_values, with_parameter
from iresnet_verify.diagnosis.runs.seen_layers import Layer, layers
from iresnet_verify.subject.module_state import set_mode

EXACT = 3e-9
"""Relative: a claim that is a norm by design agrees with it to rounding and to a safety margin below this."""
MOST = 12
"""Weights of which every pair is tried."""
LARGEST = 1500
"""Numbers of an image of which the operator is written out as a matrix."""

RESHAPED = Cause("reshaped-kernel-norm", "The claim is the norm of the kernel reshaped to a matrix, not of the convolution.",
                 "Take the norm of the operator on the grid where it is used.")
GRID = Cause("norm-at-another-grid", "The claim is the norm of the convolution on another grid: {detail}.",
             "Take the norm of the operator on the grid where it is used.")
PADDING = Cause("norm-without-padding", "The claim is the norm of the convolution with another padding: {detail}.",
                "Take the norm with the padding that is used.")
STRIDE = Cause("norm-with-another-stride", "The claim is the norm of the convolution with another stride: {detail}.",
               "Take the norm with the stride that is used.")
CENTRE = Cause("norm-of-the-centre", "The claim is the norm of the kernel's centre, as for a 1×1 convolution.",
               "Take the norm of the operator on the grid where it is used.")
VECTOR = Cause("norm-along-one-vector", "The claim is ‖Wv‖ for a v that is no singular vector: {detail}.",
               "Iterate until ‖Wv‖ no longer grows, keep v from step to step, and add a margin, since it stays below the norm.")
ENTRY = Cause("entry-for-norm", "The claim is {detail} of the weights, which is not their norm.", "Divide by the spectral norm.")
WEIGHTS = Cause("weights-above-claim", "The norms of the weights multiply to {detail}: a norm is underestimated or a layer not normalised.",
                "Normalise every layer by its spectral norm, or raise the claim.")
BEYOND = Cause("beyond-the-weights", "The norms of the weights keep the claim ({detail}), but something between them stretches further: "
               "an activation, a coefficient, a concatenation, a sum of branches, a hook.", "Multiply the claim by the constants of the "
               "activations, √(1 + η²) of a concatenation, or add up a sum.")


NEWLY_BUILT = Cause("lipschitz.newly-built", "A newly built network does not keep its claimed bound until it is first called in training "
                    "mode.", "Normalise when the network is built, not in its first training step.")


@dataclass(frozen=True)
class Norm:
    """A wrong norm that somebody might take, of every layer alike."""

    cause: Cause
    values: tuple[float, ...]
    """One a layer."""
    detail: str = ""
    differs: int = 1
    """In how many respects from the right one."""


def bound(case: Case, claims: Sequence[float]) -> Explanation | None:
    """Explain a broken claim `lipschitz` (or broken claims of layers) by the weights."""
    L = case.ctx.subject.lipschitz
    if L is not None and "lipschitz.newly-built" in case.failed and _kept_after_training(case, L):
        return Explanation(NEWLY_BUILT, "lipschitz", "", case.rows, 0.0, 0, f"After one call in training mode the bound holds at all "
                           f"{case.rows} inputs tried.")
    if L is None:
        return None
    wanted = [float(L), *[c for c in claims if 0.0 < c < math.inf]]
    weights, chain = _effective(case), layers(case)
    if not weights or (chain and not any(_among(layer.weight, weights.values()) for layer in chain)):
        return _of_layers(case, chain, float(L), wanted)
    norms = [] if _keeps(case, weights, float(L)) else list(_norms(case, weights))
    norms = list(_wrong(norms, _true_norms(case, weights))) if norms and _small(case, weights) else norms
    found = _recognised(norms, wanted)
    return found if found is not None or _ambiguous(norms, wanted) else _products(case, weights, float(L))


def _among(weight: Array, weights: Iterable[Array]) -> bool:
    return any(np.array_equal(weight, w) or (w.ndim == 2 and np.array_equal(weight, w.T)) for w in weights)


def _of_layers(case: Case, chain: Sequence[Layer], L: float, wanted: Sequence[float]) -> Explanation | None:
    """Explain it by the layers that g applies, where what normalises the weights is in g itself."""
    if not chain:
        return None
    each = [layer.norm for layer in chain]
    product, largest = math.prod(each), float(np.linalg.norm(case.truth.jacobian.residual, 2, axis=(1, 2)).max())
    if product > L * (1.0 + EXACT):
        norms = [*_norms(case, {str(i): layer.weight for i, layer in enumerate(chain)}), *_of_stored_vectors(case, chain, L)]
        norms = list(_wrong(norms, each))
        found = _recognised(norms, wanted)
        if found is not None or _ambiguous(norms, wanted):
            return found
        if largest > product * (1.0 + 1e-6):
            return _beyond_their_own(each, largest, L, wanted[1:], case)
        shown = f"{' · '.join(f'{n:.6g}' for n in each)} = {product:.6g}, the claim is {L:.6g}"
        return Explanation(WEIGHTS, "lipschitz", f"{shown}{_without_coefficient(each, L)}", case.rows, 0.0, 0,
                           f"g is a chain of these {len(each)} layers, and ‖J_g‖ stays below the product at {case.rows} inputs.")
    if largest <= product * (1.0 + 1e-6):
        return None
    return Explanation(BEYOND, "lipschitz", f"{' · '.join(f'{n:.6g}' for n in each)} = {product:.6g}, the claim is {L:.6g}", case.rows,
                       0.0, 0, f"g is a chain of these {len(each)} layers, and ‖J_g‖ is {largest:.6g}.")


def _beyond_their_own(each: Sequence[float], largest: float, L: float, claims: Sequence[float], case: Case) -> Explanation | None:
    """What stretches further than layers of which each has a claim of its own and keeps it: a coefficient, say."""
    kept = len(claims) == len(each) and "lipschitz.layers" not in case.failed
    if not kept or any(n > c * (1.0 + EXACT) for n, c in zip(sorted(each), sorted(claims), strict=True)):
        return None
    return Explanation(BEYOND, "lipschitz", f"each its own, together {math.prod(each):.6g}, that on g is {L:.6g}", case.rows, 0.0, 0,
                       f"g is a chain of these {len(each)} layers, and ‖J_g‖ is {largest:.6g}.")


def _wrong(norms: Iterable[Norm], right: Sequence[float]) -> Iterator[Norm]:
    """Those that are not the true norms to a safety margin: a power iteration that has converged is no mistake."""
    for norm in norms:
        if len(norm.values) != len(right) or any(abs(a - b) > EXACT * b for a, b in zip(norm.values, right, strict=True)):
            yield norm


def _without_coefficient(each: Sequence[float], L: float) -> str:
    """What the norms say of the coefficient, in words."""
    root = L ** (1.0 / len(each))
    known = ((1.0, "each layer is normalised to 1, without the coefficient"), (1.0 / root, "each layer has one over the coefficient"),
             (L ** (0.5 / len(each)), "each layer has the root of the coefficient"), (L, "each layer has all of the claim"))
    words = next((w for c, w in known if max(abs(n - c) for n in each) <= 1e-6 * c), "")
    above = [i for i, n in enumerate(each, 1) if n > root * (1.0 + EXACT)]
    return f" ({words})" if words else f" (above {root:.6g}: layer {', '.join(map(str, above))})" if len(above) < len(each) else ""


def _of_stored_vectors(case: Case, chain: Sequence[Layer], L: float) -> Iterator[Norm]:
    """|uᵀMv|, ‖Mv‖ and ‖Mᵀu‖ of each layer for vectors that the module holds: the one nearest to its share of the claim."""
    module = case.ctx.subject.module
    held = [v.detach().cpu().double().numpy() for v in (*module.buffers(), *module.parameters()) if v.numel() > 1]
    vectors = [np.asarray(v).reshape(-1) for v in held]
    unit = [v / np.linalg.norm(v) for v in vectors if np.linalg.norm(v) > 0.0]
    values = []
    for layer in chain:
        M = layer.matrix
        right, left = [v for v in unit if v.size == M.shape[1]], [u for u in unit if u.size == M.shape[0]]
        made = [float(np.linalg.norm(M @ v)) for v in right] + [float(np.linalg.norm(M.T @ u)) for u in left]
        made += [abs(float(u @ M @ v)) for u in left for v in right]
        if not made:
            return
        values.append(min(made, key=lambda n: abs(n - L ** (1.0 / len(chain)))))
    yield Norm(VECTOR, tuple(values), "along vectors that the module holds")


def _holding(norms: Sequence[Norm], wanted: Sequence[float]) -> list[tuple[Norm, float]]:
    """The wrong norms that the claim is, of those that differ least from the right one."""
    holding = [(n, miss) for n in norms for miss in [_miss(n.values, wanted)] if miss <= EXACT]
    least = min((n.differs for n, _ in holding), default=0)
    return [(n, miss) for n, miss in holding if n.differs == least]


def _ambiguous(norms: Sequence[Norm], wanted: Sequence[float]) -> bool:
    return len({n.cause.name for n, _ in _holding(norms, wanted)}) > 1


def _recognised(norms: Sequence[Norm], wanted: Sequence[float]) -> Explanation | None:
    """The one wrong norm that the claim is."""
    best = _holding(norms, wanted)
    if not best or _ambiguous(norms, wanted):
        return None
    chosen, miss = best[0]
    others = len({(n.cause.name, n.detail) for n in norms if n.cause.name != chosen.cause.name})
    return Explanation(chosen.cause, "lipschitz", chosen.detail, 1, miss / EXACT, others,
                       f"The two agree to {max(miss, 1e-16):.0e}; {others} other norms do not.")


def _true_norms(case: Case, weights: dict[str, Array]) -> list[float]:
    """The spectral norm of each weight: of a matrix, or of a convolution with stride 1 that keeps the size."""
    return [_spectral(w) if w.ndim == 2 else _operator(w, case.ctx.subject.event_shape[-1], 1, w.shape[2] // 2) for w in weights.values()]


def _small(case: Case, weights: dict[str, Array]) -> bool:
    return all(w.ndim == 2 or w.shape[1] * math.prod(case.ctx.subject.event_shape[1:]) <= LARGEST for w in weights.values())


def _keeps(case: Case, weights: dict[str, Array], L: float) -> bool:
    """Whether the claim is the product of the true norms."""
    return _small(case, weights) and abs(math.prod(_true_norms(case, weights)) - L) <= 1e-6 * L


def _products(case: Case, weights: dict[str, Array], L: float) -> Explanation | None:
    """Whether the product of the weights' norms is above the claim or keeps it."""
    if not _small(case, weights):
        return None
    branches = _branches(case, weights)
    each = [math.prod(_true_norms(case, part)) for part in branches]
    if len(each) > 1 and abs(max(each) - L) <= 1e-6 * L:
        return Explanation(BEYOND, "lipschitz", f"{max(each):.6g} in the largest of {len(each)} summands of g, the claim is {L:.6g}",
                           case.rows, 0.0, 0, f"No weight of one branch changes what another adds to g, at {case.rows} inputs.",
                           by_elimination=True)
    product = sum(each)
    shown = f"{product:.6g}, the claim is {L:.6g}"
    largest = float(np.linalg.norm(case.truth.jacobian.residual, 2, axis=(1, 2)).max())
    if product > L * (1.0 + EXACT) and largest <= product * (1.0 + 1e-6):
        digits = next((n for n in range(6, 15) if f"{product:.{n}g}" != f"{L:.{n}g}"), 15) + 2  # the excess is to be seen
        shown = f"{product:.{digits}g}, the claim is {L:.6g}" if digits > 8 else shown
        return Explanation(WEIGHTS, "lipschitz", shown, case.rows, 0.0, 0,
                           f"Each weight enters g as it is, and ‖J_g‖ stays below the product at {case.rows} inputs.", by_elimination=True)
    if "lipschitz.layers" not in case.failed and _keeps(case, weights, L):
        return Explanation(BEYOND, "lipschitz", shown, case.rows, 0.0, 0, "Each weight enters g as it is, and their norms are exact.",
                           by_elimination=True)
    return None


def _branches(case: Case, weights: dict[str, Array]) -> list[dict[str, Array]]:
    """The weights by summands of g: two are in one branch where g(2v, 2w) − g(2v, w) − g(v, 2w) + g(v, w) is not 0."""
    names = list(weights)
    if len(names) > MOST:
        return [weights]
    g = case.residual(case.x)
    alone = {}
    for name in names:
        with with_parameter(case, name, 2.0):
            alone[name] = case.residual(case.x)
    branch = {name: name for name in names}
    for v, w in combinations(names, 2):
        with with_parameter(case, v, 2.0), with_parameter(case, w, 2.0):
            mixed = case.residual(case.x) - alone[v] - alone[w] + g
        if np.abs(mixed).max() > 1e-9 * np.abs(g).max():
            old, new = branch[w], branch[v]
            branch = {name: new if b == old else b for name, b in branch.items()}
    return [{name: weights[name] for name in names if branch[name] == b} for b in dict.fromkeys(branch.values())]


def _effective(case: Case) -> dict[str, Array]:
    """The matrices and kernels that enter g as they are: g changes when one is scaled. Empty where some are normalised at use."""
    found = {}
    for name, w in parameter_values(case).items():
        if w.ndim not in (2, 4):
            continue
        before = case.residual(case.x)
        with with_parameter(case, name, 1.001):
            after = case.residual(case.x)
        if np.abs(after - before).max() <= 1e-9 * np.abs(before).max():
            return {}
        found[name] = w
    return found


def _kept_after_training(case: Case, L: float) -> bool:
    """Whether ‖J_g‖ is above L now, and not after a call in training mode."""
    ctx = case.ctx
    before = case.truth.jacobian.residual
    with ctx.guard():
        set_mode(ctx.subject.module, "train")
        ctx.raw_forward(ctx.native(case.x), seed=SEED)
        set_mode(ctx.subject.module, ctx.mode)
        after = ctx.jacobian(case.x).residual
    then, now = (float(np.linalg.norm(J, 2, axis=(1, 2)).max()) for J in (before, after))
    return now <= L * (1.0 + EXACT) < then


def _miss(values: tuple[float, ...], wanted: Sequence[float]) -> float:
    """How far the product of the values, or the square of a single one (a layer used twice), is from a claim, relatively."""
    whole = [math.prod(values), *([values[0] ** 2, values[0]] if len(values) == 1 else [])]
    return min(abs(v - c) / c for v in whole for c in wanted)


def _norms(case: Case, weights: dict[str, Array]) -> Iterator[Norm]:
    dense = [w for w in weights.values() if w.ndim == 2]
    kernels = [w for w in weights.values() if w.ndim == 4]
    if dense and not kernels:
        yield from (Norm(ENTRY, tuple(value(w) for w in dense), words) for words, value in _statistics())
        for start in ("e₁", "ones"):
            for n in range(6):
                yield Norm(VECTOR, tuple(_power(w, start, n) for w in dense), f"{n} power iterations from {start}")
    if kernels and not dense and len(case.ctx.subject.event_shape) == 3:
        yield from _of_kernels(kernels, case.ctx.subject.event_shape[-1])


def _statistics() -> Iterator[tuple[str, Callable[[Array], float]]]:
    """What of a matrix may be taken for its norm, by name; the Frobenius norm alone is a bound, if a loose one."""
    sizes: dict[str, Callable[[Array], Any]] = {
        "entry": np.abs, "row norm": lambda w: np.linalg.norm(w, axis=1), "column norm": lambda w: np.linalg.norm(w, axis=0),
        "row sum": lambda w: np.abs(w).sum(1), "column sum": lambda w: np.abs(w).sum(0),
        "singular value": lambda w: np.linalg.svd(w, compute_uv=False)}
    for words, size in sizes.items():
        for which, of in (("largest", np.max), ("smallest", np.min), ("mean", np.mean), ("median", np.median)):
            if (which, words) != ("largest", "singular value"):
                yield f"the {which} {words}", partial(_composed, of, size)
    yield "the root mean square of the entries", lambda w: float(np.sqrt((w * w).mean()))
    yield "the standard deviation of the entries", lambda w: float(w.std())
    yield "the Frobenius norm over the root of the smaller side", lambda w: float(np.linalg.norm(w) / min(w.shape) ** 0.5)
    yield "the Frobenius norm over the root of the larger side", lambda w: float(np.linalg.norm(w) / max(w.shape) ** 0.5)
    yield "the spectral radius", lambda w: float(np.abs(np.linalg.eigvals(w)).max()) if w.shape[0] == w.shape[1] else math.nan
    yield "the trace", lambda w: float(abs(np.trace(w)))


def _composed(of: Callable[[Array], Any], size: Callable[[Array], Any], w: Array) -> float:
    return float(of(size(w)))


def _of_kernels(kernels: list[Array], own: int) -> Iterator[Norm]:
    yield Norm(RESHAPED, tuple(_spectral(k.reshape(len(k), -1)) for k in kernels))
    yield Norm(RESHAPED, tuple(_spectral(k.swapaxes(0, 1).reshape(k.shape[1], -1)) for k in kernels), "input channels first")
    yield from (Norm(ENTRY, tuple(value(k.reshape(len(k), -1)) for k in kernels), f"{words} of the kernel reshaped to a matrix")
                for words, value in _statistics())
    yield Norm(CENTRE, tuple(_spectral(k[:, :, k.shape[2] // 2, k.shape[3] // 2]) for k in kernels))
    true_stride = [(s, p) for s in (1, 2) for p in (kernels[0].shape[2] // 2,)]
    for stride0, padding0 in true_stride:
        for grid in range(2, 2 * own + 1):  # on 1×1 it is the centre
            if max(k.shape[1] for k in kernels) * grid * grid > LARGEST:
                break
            for stride in (1, 2):  # a stride as large as the kernel has the norm of the kernel reshaped
                for padding in range(kernels[0].shape[2]):
                    differs = [grid != own, stride != stride0, padding != padding0]
                    if sum(differs) != 1 or any(grid + 2 * padding < k.shape[2] for k in kernels):
                        continue
                    cause = (GRID, STRIDE, PADDING)[differs.index(True)]
                    detail = (f"{grid}×{grid}", f"{stride}", f"{padding}")[differs.index(True)]
                    yield Norm(cause, tuple(_operator(k, grid, stride, padding) for k in kernels), detail, 1 + (stride0 != 1))
        if max(k.shape[1] for k in kernels) * own * own <= LARGEST:
            for start in ("e₁", "ones"):
                for n in range(12):
                    values = tuple(_power(_matrix(k, own, stride0, padding0), start, n) for k in kernels)
                    yield Norm(VECTOR, values, f"{n} power iterations from {start}", 1 + (stride0 != 1))


def _matrix(kernel: Array, grid: int, stride: int, padding: int) -> Array:
    """The convolution on grid × grid images, written out."""
    out, channels, height, width = kernel.shape
    places = [(i, j) for i in range(0, grid + 2 * padding - height + 1, stride) for j in range(0, grid + 2 * padding - width + 1, stride)]
    matrix = np.zeros((len(places), out, channels, grid + 2 * padding, grid + 2 * padding))
    for at, (i, j) in enumerate(places):
        matrix[at, :, :, i : i + height, j : j + width] = kernel
    inner = matrix[..., padding : padding + grid, padding : padding + grid]
    return inner.reshape(len(places) * out, channels * grid * grid)


def _operator(kernel: Array, grid: int, stride: int, padding: int) -> float:
    return _spectral(_matrix(kernel, grid, stride, padding))


def _spectral(w: Array) -> float:
    return float(np.linalg.norm(w, 2)) if w.size else 0.0


def _power(w: Array, start: str, n: int) -> float:
    """‖Wv‖ after n power iterations."""
    v = np.zeros(w.shape[1])
    v[0] = 1.0
    v = v if start == "e₁" else np.ones(w.shape[1]) / math.sqrt(w.shape[1])
    for _ in range(n):
        v = w.T @ (w @ v)
        v = v / max(float(np.linalg.norm(v)), 1e-300)
    return float(np.linalg.norm(w @ v))
