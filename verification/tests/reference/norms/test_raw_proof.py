"""σ, its gradient and the proof from one Gram matrix and a start that may be stale: as good as the full route, and never false."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from exact_norms import exceeds_norm, hadamard, lost_sum

import iresnet_ref as ir
from iresnet_ref.arrays import HostArray
from iresnet_ref.jacobian.convolution import Convolution
from iresnet_ref.layers.linear import Affine, Conv
from iresnet_ref.layers.pointwise import Pointwise
from iresnet_ref.normalisation import raw_proof as raw
from iresnet_ref.normalisation.norm_gradient import norm_slope
from iresnet_ref.norms import gram_symbol
from iresnet_ref.norms import largest_pair as pairs
from iresnet_ref.norms.convolution import covering_grids, operator_norm_bound, proved_on, symbol, symbol_error
from iresnet_ref.norms.dense import Gram, norm_bound
from iresnet_ref.norms.largest_pair import BLOCK, EXACT_UP_TO, LargestPairs, largest_pairs

U = 2.0**-53
N = 56
"""A side above EXACT_UP_TO, so that the block is used."""
AS_TODAY = 1e-9


def largest_pair(w: HostArray, start: Any = None) -> LargestPairs:
    """Of one matrix, as a stack of it."""
    found = largest_pairs(w[None, ...], None if start is None else start[None, ...])
    return LargestPairs(*(None if a is None else a[0] for a in found))  # type: ignore[arg-type]


def raw_proof(layer: Any, warm: raw.Warm | None) -> raw.RawProof | None:
    return raw.raw_proofs([layer], [warm])[0]


def orthogonal(n: int, seed: int) -> HostArray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def with_spectrum(values: Any, rows: int = N, seed: int = 0) -> HostArray:
    n = len(values)
    return np.asarray(orthogonal(rows, seed)[:, :n] * np.asarray(values) @ orthogonal(n, seed + 1).T)


def spectrum(*top: float, rest: float = 0.5) -> HostArray:
    return np.concatenate([top, np.linspace(rest, 0.0, N - len(top))])


FAMILIES = {
    "gaussian": np.random.default_rng(0).standard_normal((N, N)),
    "tall": np.random.default_rng(1).standard_normal((300, N)),
    "wide": np.random.default_rng(2).standard_normal((N, 200)),
    "two columns": np.random.default_rng(3).standard_normal((200, 2)),
    "simple": with_spectrum(spectrum(1.0, 0.9)),
    "a tie at the top": with_spectrum(spectrum(1.0, 1.0, 1.0)),
    "all tied": orthogonal(N, 4) * 3.0,
    "a cluster wider than the block": with_spectrum(spectrum(*(1.0 - 1e-6 * np.arange(30)))),
    "a cluster at rounding": with_spectrum(spectrum(*(1.0 - 1e-15 * np.arange(20)))),
    "flat": with_spectrum(np.linspace(1.0, 0.97, N)),
    "rank one": np.outer(np.random.default_rng(5).standard_normal(N), np.random.default_rng(6).standard_normal(70)),
    "rank three": with_spectrum([3.0, 2.0, 1.0] + [0.0] * (N - 3)),
    "graded": with_spectrum(2.0 ** -np.arange(0.0, N)),
    "ones": np.ones((N, N)),
    "diagonal": np.diag(np.linspace(0.1, 1.0, N)),
    "hadamard": hadamard(64) / 16,
    "sums that are lost": np.pad(lost_sum(1024), ((0, 0), (0, N - 1))),
    "large": 2.0**50 * np.random.default_rng(7).standard_normal((N, N)),
    "tiny": 2.0**-50 * np.random.default_rng(8).standard_normal((N, N)),
    "a side of which copies are padded": np.random.default_rng(9).standard_normal((128, 140)),
    "scalar": np.asarray([[1.0 / 3.0]]),
}


STARTS = ("none", "own", "a step ago", "another matrix's", "orthogonal to the top", "zero", "NaN", "another shape")


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_bound_is_that_of_all_eigenvalues_whatever_it_begins_with(name: str, start: str) -> None:
    """Never below ‖W‖ (by an SVD far more accurate than 1e-9 − n²u), never above the full route's bound by more than 1e-9."""
    w = FAMILIES[name]
    n = min(w.shape)
    rng = np.random.default_rng(9)
    begun: Any = {
        "none": lambda: None,
        "own": lambda: largest_pair(w).block,
        "a step ago": lambda: largest_pair(w + 1e-3 * np.abs(w).max() * rng.choice([-1.0, 1.0], w.shape)).block,
        "another matrix's": lambda: orthogonal(n, 11)[:, :16],
        "orthogonal to the top": lambda: np.linalg.svd(w if w.shape[1] == n else w.T)[2][max(1, n - 16) :].T,
        "zero": lambda: np.zeros((n, min(n, 16))),
        "NaN": lambda: np.full((n, min(n, 16)), np.nan),
        "another shape": lambda: np.ones((n + 1, 3)),
    }[start]()
    pair = largest_pair(w, begun)
    full, truth = norm_bound(w), np.linalg.svd(w, compute_uv=False)[0]
    assert truth * (1.0 - 8 * U * math.sqrt(n)) <= pair.bound <= full * (1.0 + AS_TODAY)
    assert abs(pair.sigma - truth) <= AS_TODAY * truth
    assert abs(pair.u @ w @ pair.v - pair.sigma) <= 8 * n * U * truth


@pytest.mark.parametrize("n", [EXACT_UP_TO, 32])
def test_what_is_proved_of_one_of_a_stack_is_what_is_proved_of_it_alone(n: int) -> None:
    """Good and bad starts side by side, ties wider than the block, sizes 2³⁰ and 2⁻³⁰ apart, a weight that is 0."""
    rng, values = np.random.default_rng(1), np.linspace(1.0, 0.1, n)
    stack = [rng.standard_normal((2 * n, n)), with_spectrum(values, 2 * n), with_spectrum(np.ones(n), 2 * n),
             with_spectrum(np.where(np.arange(n) < 12, 1.0 - 1e-7 * np.arange(n), 0.5 * values), 2 * n),
             2.0**30 * rng.standard_normal((2 * n, n)), 2.0**-30 * rng.standard_normal((2 * n, n)), np.zeros((2 * n, n)),
             np.eye(2 * n)[:, :n] * np.where(np.arange(n) == n // 2, 1.0, 0.9)]  # fmt: skip
    weights = np.stack(stack)
    starts = np.stack([orthogonal(n, seed)[:, :8] for seed in range(len(stack))])
    own = largest_pairs(weights + 1e-4 * rng.choice([-1.0, 1.0], weights.shape)).block
    if own is not None:
        starts[::2] = own[::2]
    starts[-1] = np.eye(n)[:, :8]  # never gets to the largest
    for turned in (False, True):
        found = largest_pairs(weights.swapaxes(1, 2) if turned else weights, starts)
        for i, w in enumerate(weights):
            alone, truth = largest_pair(w.T if turned else w, starts[i]), np.linalg.svd(w, compute_uv=False)[0]
            assert truth * (1.0 - 8 * U * math.sqrt(n)) <= found.bound[i] <= min(alone.bound, norm_bound(w)) * (1.0 + AS_TODAY)
            assert abs(found.sigma[i] - truth) <= AS_TODAY * truth
            assert truth == 0.0 or exceeds_norm(float(found.bound[i]), w)
            u, v = (found.v[i], found.u[i]) if turned else (found.u[i], found.v[i])
            assert abs(u @ w @ v - found.sigma[i]) <= 8 * n * U * truth


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lying_and_standing_matrices_are_proved_together_as_each_is_alone(dtype: Any, warm: bool) -> None:
    rng = np.random.default_rng(3)
    shapes = [(40, 90), (90, 40), (40, 90), (40, 90, 1, 1), (90, 40, 1, 1), (40, 40)]
    layers = [(Affine(w, np.zeros(len(w), dtype)) if w.ndim == 2 else Conv(w, np.zeros(len(w), dtype), (4, 4)))
              for w in (rng.standard_normal(shape).astype(dtype) for shape in shapes)]  # fmt: skip
    moved = [layer.with_parameters({**layer.parameters, "weight": layer.weight * dtype(1.01)}) for layer in layers]
    begun = [None if found is None else found.warm for found in raw.raw_proofs(moved, [None] * 6)] if warm else [None] * 6
    for layer, start, found in zip(layers, begun, raw.raw_proofs(layers, begun), strict=True):
        alone, (sigma, slope) = raw_proof(layer, start), norm_slope(layer)
        assert found is not None
        assert alone is not None
        assert found.bound == pytest.approx(alone.bound, rel=AS_TODAY)
        assert found.bound == pytest.approx(sigma, rel=AS_TODAY)
        assert found.absolute >= np.linalg.norm(np.abs(layer.weight.reshape(layer.weight.shape[:2]).astype(float)), 2)
        assert found.slope.dtype == dtype
        assert np.linalg.norm(found.slope - slope) <= 1e-4  # sin of the angle ≤ 1e-5/gap


@pytest.mark.parametrize("name", ["simple", "a tie at the top", "ones"])
def test_a_bound_from_a_block_is_above_the_norm_in_exact_arithmetic(name: str) -> None:
    w = FAMILIES[name]
    pair = largest_pair(w, largest_pair(w).block)
    assert exceeds_norm(pair.bound, w)


def test_a_block_that_misses_the_top_proves_nothing_and_all_eigenvalues_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a diagonal matrix vectors without a first entry never get one: the block never sees σ = 1, and its best is .9."""
    w = np.diag(np.concatenate([[1.0], np.linspace(0.9, 0.1, N - 1)]))
    start = np.eye(N)[:, 1:17]
    assert not pairs._from_blocks(Gram.of(w[None]), start[None])[0] < math.inf
    pair = largest_pair(w, start)
    assert exceeds_norm(pair.bound, w)
    assert pair.bound <= 1.0 + AS_TODAY
    assert abs(pair.v[0]) == 1.0
    monkeypatch.setattr(Gram, "below", lambda gram, c: True)  # without the proof the estimate would be believed
    assert largest_pair(w, start).bound < 0.91


def test_a_good_start_needs_no_decomposition_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sides = np.linalg.eigh, []
    w = FAMILIES["gaussian"]
    start = largest_pair(w).block
    monkeypatch.setattr(np.linalg, "eigh", lambda a: (sides.append(a.shape[-1]), whole(a))[1])
    largest_pair(w + 1e-4, start)
    assert sides
    assert max(sides) <= BLOCK < EXACT_UP_TO


def test_the_gradient_of_a_simple_top_is_that_of_the_exact_singular_vectors() -> None:
    """W = H diag(s) Hᵀ/64, H a Hadamard matrix: exact in float64, and ∂σ/∂W = h₀h₀ᵀ/64 is known without rounding.

    The accepted residual ρ has 10ρ²/(gap to the block's last) ≤ 1e-9 relative to λ₁, so sin θ ≤ ρ/(λ₁ − λ₂) ≤ 1e-5/gap; u and v
    turn by as much, and so twice that in the Frobenius norm of uvᵀ, of which more than √2 is never lost.
    """
    h, s = hadamard(64), np.concatenate([[1.0, 0.875], np.linspace(0.75, 0.0, 62).round(6)])
    s = np.round(s * 2**16) / 2**16
    w = h * s @ h.T / 64
    rng = np.random.default_rng(3)
    truth = np.outer(h[:, 0], h[:, 0]) / 64
    gap = 1.0 - 0.875**2
    before = largest_pair(w + 1e-3 * rng.choice([-1, 1], w.shape)).block
    for start, allowed in ((None, 64 * 64 * U / gap), (before, 2e-5 / gap)):
        pair = largest_pair(w, start)
        assert np.linalg.norm(np.outer(pair.u, pair.v) - truth) <= allowed


# ── convolutions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def kernel(name: str) -> HostArray:
    rng = np.random.default_rng(1)
    box = np.ones((1, 1, 3, 3))
    shapes: dict[str, Any] = {
        "3 to 12": rng.standard_normal((12, 3, 3, 3)),
        "12 to 3": rng.standard_normal((3, 12, 3, 3)),
        "12 to 12": rng.standard_normal((12, 12, 3, 3)),
        "5×1": rng.standard_normal((4, 4, 5, 1)),
        "box": box,
        "every frequency tied": np.pad(orthogonal(10, 2)[:, :, None, None], ((0, 0), (0, 0), (1, 1), (1, 1))),
        "one channel": rng.standard_normal((10, 10, 3, 3)) * (np.arange(10) == 4)[:, None, None, None],
    }
    k = shapes[name]
    return np.ldexp(k, -math.frexp(np.abs(k).max())[1])


KERNELS = ("3 to 12", "12 to 3", "12 to 12", "5×1", "box", "every frequency tied", "one channel")


@pytest.mark.parametrize("start", ["none", "own", "a step ago", "random", "NaN"])
@pytest.mark.parametrize("name", KERNELS)
def test_the_peak_over_all_frequencies_is_that_of_the_full_route(name: str, start: str) -> None:
    k = kernel(name)
    rng = np.random.default_rng(0)
    for grid in covering_grids((9, 10), k.shape[2:]):
        first = gram_symbol.peak(k, grid)
        moved = gram_symbol.peak(k + 1e-3 * rng.choice([-1.0, 1.0], k.shape), grid)
        begun: Any = {
            "none": None, "own": first.vectors, "a step ago": moved.vectors,
            "random": None if first.vectors is None else rng.standard_normal(first.vectors.shape),
            "NaN": None if first.vectors is None else np.full(first.vectors.shape, np.nan),
        }[start]
        found = gram_symbol.peak(k, grid, begun)
        blocks = symbol(k, grid)
        norms = np.linalg.svd(blocks, compute_uv=False)[:, 0]
        assert norms.max() * (1.0 - 64 * U) <= found.bound <= proved_on(blocks, symbol_error(k)) * (1.0 + AS_TODAY)
        assert norms[found.frequency] >= norms.max() * (1.0 - AS_TODAY)


@pytest.mark.parametrize("name", ["3 to 12", "12 to 3", "5×1"])
def test_the_gram_symbol_is_within_its_error_at_fifty_digits(name: str) -> None:
    k, grid = kernel(name), ((7, 1), (6, 0))
    gram = gram_symbol.gram_symbol(k, grid)
    with mpmath.workdps(50):
        for index in (0, 9, len(gram.matrix) - 1):
            row, column = divmod(index, 6 // 2 + 1)
            w1, w2 = mpmath.pi * (2 * row + 1) / 7, mpmath.pi * 2 * column / 6
            b = mpmath.matrix(*k.shape[:2])
            for i, j, a, c in np.ndindex(*k.shape):
                b[i, j] += mpmath.mpf(float(k[i, j, a, c])) * mpmath.expj(w1 * a + w2 * c)
            exact = b.H * b if k.shape[0] >= k.shape[1] else (b * b.H).T
            for side in (1, -1):  # what the lower triangle defines, and the upper
                off = mpmath.matrix(exact.rows, exact.rows)
                for i, j in np.ndindex(*gram.matrix.shape[1:]):
                    kept = side * (i - j) >= 0
                    got = gram.matrix[index, i, j] if kept else gram.matrix[index, j, i]
                    off[i, j] = mpmath.mpc(got.real, 0 if i == j else got.imag if kept else -got.imag) - exact[i, j]
                assert mpmath.norm(off) <= gram.error  # ‖·‖₂ ≤ ‖·‖_F


def test_the_error_of_the_gram_symbol_counts_taps_and_differences() -> None:
    """One channel, 7×7 positive taps: G(0) = S² in rational arithmetic. The sums of 49 and 85 terms err by more than 1.5uS² for some."""
    for seed in range(30):
        k = np.random.default_rng(seed).uniform(0.5, 1.0, (1, 1, 7, 7))
        gram = gram_symbol.gram_symbol(k, ((11, 0), (11, 0)))
        truth = sum(Fraction(float(v)) for v in k.flat) ** 2
        assert abs(Fraction(float(gram.matrix[0, 0, 0].real)) - truth) <= Fraction(gram.error)


def test_the_waves_are_within_five_roundings() -> None:
    for grid in (((5, 0), (9, 1)), ((17, 1), (17, 1))):
        (t, other, starts), cosines, sines = gram_symbol.waves(3, 3, grid)
        assert len({*zip(t.tolist(), other.tolist(), strict=True)}) == len(t) == (81 + 9) // 2  # each pair once, those with d = 0 too
        with mpmath.workdps(40):
            for index in range(0, len(cosines), 7):
                row, column = divmod(index, grid[1][0] // 2 + 1)
                for d, start in enumerate(starts):
                    (i, j), (a, b) = divmod(int(t[start]), 3), divmod(int(other[start]), 3)
                    down = mpmath.pi * (2 * row + grid[0][1]) * (a - i) / grid[0][0]
                    angle = down + mpmath.pi * (2 * column + grid[1][1]) * (b - j) / grid[1][0]
                    assert abs(cosines[index, d] - mpmath.cos(angle)) <= 5 * U
                    assert abs(sines[index, d] - mpmath.sin(angle)) <= 5 * U


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_the_shift_of_a_hermitian_matrix_holds_what_its_factorisation_rounds(n: int) -> None:
    """‖R̂ᴴR̂ − Ã‖_F ≤ κ tr Ã with R̂ᴴR̂ in rational arithmetic, for matrices as ill-conditioned as those at a norm; the shift holds κ tr Ã."""
    rng = np.random.default_rng(n)
    kappa = 1.5 * (2 * n + 1) * U / (1 - 2 * (2 * n + 1) * U)
    for _ in range(4):
        b = rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n))
        g = b.conj().T @ b / n
        a = np.linalg.eigvalsh(g)[-1] * (1 + 1e-13 * n * n) * np.eye(n) - g
        r = np.linalg.cholesky(a)
        off = Fraction(0)
        for i in range(n if n < 40 else 8):
            for j in range(i + 1):
                re, im = Fraction(float(a[i, j].real)), Fraction(0) if i == j else Fraction(float(a[i, j].imag))
                for k in range(j + 1):
                    p, q = r[i, k], r[j, k]
                    pr, pi, qr, qi = (Fraction(float(v)) for v in (p.real, p.imag, q.real, q.imag))
                    re, im = re - (pr * qr + pi * qi), im - (pi * qr - pr * qi)
                off += (re * re + im * im) * (1 if i == j else 2)
        assert math.sqrt(off) <= kappa * float(np.trace(a).real)
        c = math.sqrt(float(np.linalg.eigvalsh(g)[-1]))
        shift = float(Gram(g, 0.0, n).shift(c)[1])
        assert shift >= kappa * float(np.abs(c * c * (1 - 2 * U) - np.diag(g).real).sum())


# ── layers, and the division ──────────────────────────────────────────────────────────────────────────────────────────


def layers(dtype: Any) -> dict[str, Any]:
    rng = np.random.default_rng(5)

    def array(*shape: int) -> Any:
        return (0.5 * rng.standard_normal(shape)).astype(dtype)

    return {
        "dense": Affine(array(60, 70), array(60)),
        "narrow": Affine(array(2, 70), array(2)),
        "1×1": Conv(array(12, 12, 1, 1), array(12), (8, 8)),
        "small, as a matrix": Conv(array(5, 2, 3, 3), array(5), (6, 6)),
        "zero padding": Conv(array(12, 10, 3, 3), array(12), (10, 9)),
        "circular": Conv(array(3, 9, 3, 3), array(3), (10, 12), "circular"),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", list(layers(np.float64)))
def test_a_layers_proof_is_the_full_routes_and_its_gradient_too(name: str, dtype: Any) -> None:
    layer = layers(dtype)[name]
    proof = raw_proof(layer, None)
    assert proof is not None
    again = raw_proof(layer, proof.warm)
    assert again is not None
    sigma, slope = norm_slope(layer)
    for found in (proof, again):
        assert sigma * (1.0 - 1e-12) <= found.bound <= layer.norm_bound() * (1.0 + AS_TODAY)
        assert abs(found.sigma - sigma) <= AS_TODAY * sigma
        assert found.slope.dtype == dtype
        assert found.slope.shape == slope.shape
        assert np.abs(found.slope - slope).max() <= 1e-4  # vectors of the block, see the gradient's test
    assert again.warm.twists == proof.warm.twists
    assert again.warm.proofs in {0, 1}


@pytest.mark.parametrize("share", [0.3, 0.97, 1e-3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", list(layers(np.float64)))
def test_the_divided_weight_carries_a_bound_that_holds_and_hardly_shrinks_it(name: str, dtype: Any, share: float) -> None:
    layer = layers(dtype)[name]
    proof = raw_proof(layer, None)
    assert proof is not None
    made = raw.divided(layer, proof, share)
    assert made is not None
    new, scale = made
    carried, proved = new.norms(2.0), type(new).host_norms(new)
    u = 2.0**-24 if dtype is np.float32 else U
    assert new.weight.dtype == dtype
    assert carried[0] <= share
    assert carried[0] >= np.linalg.norm(new.weight, 2) if name in {"dense", "narrow"} else carried[0] >= proved[0] * (1.0 - 1e-9)
    assert proved[0] >= share * (1.0 - AS_TODAY - 3.0 * u * (1.0 + proof.absolute / proof.bound))
    assert carried[1] >= proved[1] * (1.0 - 8 * U)
    assert (new.weight == (layer.weight * scale).astype(dtype)).all()
    assert new.bias is layer.bias


def test_a_weight_whose_entries_all_round_up_is_still_within_its_share() -> None:
    """n equal entries: ‖W′‖ = n w′ exactly. Some s and s·w both round up in float32, which a bound without u‖|W|‖ would miss.

    s and w′ lie just above ¼, where the roundings are largest.
    """
    missed = 0
    for i in range(300):
        value = np.float32(0.98 + i * 2.0**-14)
        layer = Affine(np.full((2, 2), value), np.zeros(2, dtype=np.float32))
        proof = raw_proof(layer, None)
        assert proof is not None
        made = raw.divided(layer, proof, 0.505)
        assert made is not None
        norm = 2 * float(made[0].weight[0, 0])
        assert norm <= made[0].norms(2.0)[0] <= 0.505
        missed += norm > made[1] * (1.0 + 2.0**-24) * proof.bound
    assert missed > 0


def test_a_weight_within_its_share_is_kept_as_it_is() -> None:
    layer = Affine(np.diag([0.5, 0.25]), np.zeros(2))
    proof = raw_proof(layer, None)
    assert proof is not None
    made = raw.divided(layer, proof, 0.6)
    assert made is not None
    assert made[1] == 1.0
    assert made[0].weight is layer.weight
    assert 0.5 <= made[0].norms(2.0)[0] <= 0.5 * (1.0 + 1e-14)


@pytest.mark.parametrize("weight", [np.zeros((3, 3)), np.full((2, 2), 1e30), np.full((2, 2), 1e-30), np.ones((2, 2), dtype=np.float16)])
def test_what_the_cheap_route_does_not_cover_is_left_to_the_full_one(weight: HostArray) -> None:
    assert raw_proof(Affine(weight, np.zeros(len(weight), dtype=weight.dtype)), None) is None


def test_a_weight_that_is_left_to_the_full_route_disturbs_none_of_its_shape() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((3, 4)), np.full((3, 4), np.nan), np.zeros((3, 4)), np.full((3, 4), 1e30), rng.standard_normal((3, 4))]
    layers: list[Any] = [Affine(w, np.zeros(3)) for w in weights]
    layers.insert(2, Pointwise(ir.activations.get("elu")))
    proofs = raw.raw_proofs(layers, [None] * len(layers))
    assert [proof is None for proof in proofs] == [False, True, True, True, True, False]
    for proof, layer in ((proofs[0], layers[0]), (proofs[-1], layers[-1])):
        alone = raw_proof(layer, None)
        assert proof is not None
        assert alone is not None
        assert proof[:3] == alone[:3]
        assert (proof.slope == alone.slope).all()


def test_the_grid_around_a_zero_padded_image_is_kept_and_chosen_anew() -> None:
    layer = layers(np.float64)["zero padding"]
    first = raw_proof(layer, None)
    assert first is not None
    best = operator_norm_bound(Convolution(layer.weight, layer.image))
    assert abs(first.bound - best) <= AS_TODAY * best
    other = next(t for t in ((0, 0), (1, 1), (0, 1), (1, 0)) if t != first.warm.twists)
    kept = raw_proof(layer, raw.Warm(None, other, 3))
    assert kept is not None
    assert kept.warm.twists == other
    assert kept.warm.proofs == 4
    assert kept.bound > first.bound
    anew = raw_proof(layer, raw.Warm(None, other, raw._GRID_KEPT))
    assert anew is not None
    assert anew.warm.twists == first.warm.twists
    assert anew.warm.proofs == 0


def test_a_warm_branch_has_the_certificate_of_a_cold_one_along_a_training() -> None:
    branch = ir.mlp((3, 60, 60, 3), activation="elu", seed=2)
    branch = branch.with_parameters({k: 3.0 * p for k, p in branch.parameters().items()})
    warm, rng = ir.NormalisedBranch(branch, 0.8, {}), np.random.default_rng(0)
    for _ in range(6):
        cold = ir.NormalisedBranch(warm.raw, 0.8)
        assert warm.branch.certificate.bound <= 0.8
        assert abs(warm.branch.certificate.bound - cold.branch.certificate.bound) <= AS_TODAY
        gradients = {k: rng.standard_normal(p.shape) for k, p in cold.branch.parameters().items()}
        one, other = warm.pullback(gradients), cold.pullback(gradients)
        for key, weight in warm.branch.parameters().items():
            assert np.abs(weight - cold.branch.parameters()[key]).max() <= 2 * AS_TODAY * np.abs(weight).max()
            assert np.abs(one[key] - other[key]).max() <= 1e-3 * np.abs(other[key]).max()  # the top of these weights has gaps of 1e-2
        warm = warm.with_parameters({k: p - 1e-2 * np.sign(one[k]) for k, p in warm.parameters().items()})


def test_proofs_that_failed_halfway_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither after an error nor to another thread are they anything but whole."""
    raw = ir.mlp((2, 8, 2), lipschitz=0.9)
    branch = ir.NormalisedBranch(raw, 0.8, {})

    def broken(matrix: Any) -> Any:
        assert "proofs" not in vars(branch)
        raise np.linalg.LinAlgError("no convergence")

    monkeypatch.setattr(np.linalg, "eigh", broken)
    with pytest.raises(np.linalg.LinAlgError):
        assert branch.branch
    monkeypatch.undo()
    assert branch.after.keys() == ir.NormalisedBranch(raw, 0.8, {}).after.keys() == {"0.", "2."}
