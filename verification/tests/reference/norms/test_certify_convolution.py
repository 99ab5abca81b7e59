"""The proofs for convolutions: never below the norm, whose lower bounds are evaluated to 50 digits, and barely above it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest

import iresnet_ref as ir
from iresnet_ref.jacobian.convolution import Convolution, Padding
from iresnet_ref.norms import convolution as certify_convolution
from iresnet_ref.norms.convolution import Grid, circle, operator_norm_bound, symbol, symbol_error
from iresnet_ref.norms.dense import norm_bound

# out, in, kh, kw, h, w: non-square images, even and odd grids, kernels as large as the image
SHAPES = [
    (2, 3, 3, 3, 4, 6),
    (3, 1, 3, 1, 5, 4),
    (1, 1, 3, 3, 8, 8),
    (2, 2, 1, 5, 4, 7),
    (2, 1, 5, 5, 5, 5),
    (3, 3, 3, 3, 4, 4),
]
KINDS = ["gaussian", "box", "alternating", "identity", "rank one", "graded", "tiny", "huge", "integers"]


def kernel(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    k = rng.standard_normal(shape[:4])
    outputs, inputs, kh, kw = shape[:4]
    flat, middle = np.ones(shape[:4]), np.zeros(shape[:4])
    middle[:, :, kh // 2, kw // 2] = np.eye(outputs, inputs) * rng.uniform(0.5, 2)
    kinds = {
        "box": flat,  # the largest frequency is 0
        # the largest frequency is the highest: the grid's being even or odd matters
        "alternating": flat * (-1.0) ** np.add.outer(np.arange(kh), np.arange(kw)) * rng.uniform(0.5, 2),
        "identity": middle,  # every singular value is the largest
        "rank one": k[:, :1, :1, :1] * k[:1, :, :1, :1] * k[:1, :1],
        "graded": k * 10.0 ** rng.integers(-8, 9, (1, 1, kh, kw)),
        "integers": np.round(3 * k),
        "tiny": k * 1e-300,
        "huge": k * 1e300,
    }
    return kinds.get(kind, k)


def norm_at_least(a: Convolution) -> Any:
    """‖Av‖/‖v‖ for the leading singular vector v, to 50 digits: below the norm, by about the square of v's rounding."""
    scale = 2.0 ** math.frexp(float(np.abs(a.weight).max(initial=1e-300)))[1]
    matrix = Convolution(a.weight / scale, a.image, a.padding).matrix()
    v = np.linalg.svd(matrix)[2][0]
    with mpmath.workdps(50):
        exact = [Fraction(float(x)) for x in v]
        image = [
            sum((Fraction(float(m)) * x for m, x in zip(row, exact, strict=True) if m), Fraction(0)) for row in matrix
        ]
        ratio = sum(x * x for x in image) / sum(x * x for x in exact)
        return mpmath.sqrt(mpmath.mpf(ratio.numerator) / ratio.denominator) * mpmath.mpf(scale)


def operators(seeds: range) -> list[tuple[str, Convolution]]:
    paddings: tuple[Padding, ...] = ("zero", "circular")
    return [
        (
            f"{kind} {shape} {padding} {seed}",
            Convolution(kernel(kind, shape, np.random.default_rng(seed)), shape[4:6], padding),
        )  # type: ignore[arg-type]
        for seed in seeds
        for i, kind in enumerate(KINDS)
        for j, padding in enumerate(paddings)
        for shape in [SHAPES[(i + 3 * j + seed) % len(SHAPES)]]
    ]


def never_below(seeds: range, monkeypatch: pytest.MonkeyPatch) -> int:
    checked = 0
    for name, a in operators(seeds):
        truth = norm_at_least(a)
        for largest in (0, 512):  # the circular bound, and the matrix as it is
            monkeypatch.setattr(certify_convolution, "DENSE_UP_TO", largest)
            bound = operator_norm_bound(a)
            assert truth <= bound < math.inf, (name, largest)
            checked += 1
            if a.padding == "circular" or largest:
                # the stated slack: n²u with n the smaller side of what is factorised
                n = 2 * min(a.weight.shape[:2]) if a.padding == "circular" else min(a.matrix().shape)
                assert bound <= truth * (1 + 4 * max(n * n, 64) * 2.0**-53), (name, largest)
    return checked


def test_the_bound_is_never_below_the_norm_of_seventy_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    assert never_below(range(2), monkeypatch) == 72


@pytest.mark.thorough
def test_the_bound_is_never_below_the_norm_of_a_thousand_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    assert never_below(range(100, 130), monkeypatch) == 1080


@pytest.mark.parametrize(("shape", "image"), [((3, 3, 7, 5), (11, 8)), ((8, 6, 1, 7), (8, 8)), ((16, 16, 3, 3), (5, 5))])
def test_a_kernel_that_is_large_on_its_image_costs_no_slack(shape: tuple[int, ...], image: tuple[int, int]) -> None:
    a = Convolution(np.random.default_rng(0).standard_normal(shape), image, "zero")
    n = min(a.matrix().shape)
    assert n > certify_convolution.DENSE_UP_TO
    assert operator_norm_bound(a) <= np.linalg.norm(a.matrix(), 2) * (1 + 4 * n * n * 2.0**-53)


def test_the_image_itself_is_no_covering_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certify_convolution, "DENSE_UP_TO", 0)
    monkeypatch.setattr(certify_convolution, "covering_grids", lambda image, kernel: [((image[0], 0), (image[1], 0))])
    below = 0
    for seed in range(50):
        k = np.random.default_rng(seed).standard_normal((1, 1, 1, 3))
        a = Convolution(k, (1, 4), "zero")
        below += operator_norm_bound(a) < norm_at_least(a)
    assert below > 0  # so the tests above can fail


def test_the_antiperiodic_grid_has_the_norm_of_the_box_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    # tridiagonal of ones: 1 + 2cos(π/(n + 1)) on each axis, the frequency next to the peak at 0
    monkeypatch.setattr(certify_convolution, "DENSE_UP_TO", 0)
    for n in (5, 8, 30):
        bound = operator_norm_bound(Convolution(np.ones((1, 1, 3, 3)), (n, n), "zero"))
        # twice the error of the symbol of a 3 × 3 kernel of ones, whose norm is below 9 and ‖A‖ above 7, and its rounding up
        assert abs(bound - (1 + 2 * math.cos(math.pi / (n + 1))) ** 2) <= 2 * 3 * (3 + 2 * 3 + 4) * 2.0**-53 * 9 / 7 * bound


def test_twiddles_are_right_to_the_last_bit() -> None:
    for n in (1, 2, 3, 4, 7, 16, 31, 64):
        for k in range(n):
            with mpmath.workdps(50):
                angle = 2 * mpmath.pi * k / n
                for got, exact in zip(circle(n)[:, k], (mpmath.cos(angle), mpmath.sin(angle)), strict=True):
                    assert abs(mpmath.mpf(float(got)) - exact) <= 1.01 * mpmath.mpf(2) ** -53


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_symbol_is_the_block_diagonal_of_the_operator(shape: tuple[int, ...]) -> None:
    for kind in ("gaussian", "alternating", "graded"):
        k = kernel(kind, shape, np.random.default_rng(3))
        k = k / 2.0 ** math.frexp(float(np.abs(k).max()))[1]
        n, m = shape[4] + 1, shape[5] + 2
        grid: Grid = ((n, 1), (m, 0)) if kind == "graded" else ((n, 0), (m, 1))
        blocks, error = symbol(k, grid), symbol_error(k)
        assert blocks.shape == (n * (m // 2 + 1), *shape[:2])
        with mpmath.workdps(40):
            for index in (0, 1, len(blocks) // 2, len(blocks) - 1):
                j, i = divmod(index, m // 2 + 1)
                j, i = mpmath.mpf(2 * j + grid[0][1]) / 2, mpmath.mpf(2 * i + grid[1][1]) / 2
                gap = mpmath.mpf(0)
                for o in range(shape[0]):
                    for c in range(shape[1]):
                        exact = sum(
                            (
                                mpmath.mpf(float(k[o, c, a, b])) * mpmath.expjpi(2 * (a * j / n + b * i / m))
                                for a in range(shape[2])
                                for b in range(shape[3])
                            ),
                            mpmath.mpc(0),
                        )
                        gap += abs(exact - mpmath.mpc(complex(blocks[index, o, c]))) ** 2
                # ‖·‖₂ ≤ ‖·‖_F of the error of this block
                assert mpmath.sqrt(gap) <= error
        # ‖Σ|K_t|‖ is at most the sum of all entries, its bound and `up` on top of it less than twice as much
        assert error <= 2 * 3 * (shape[3] + 2 * shape[2] + 4) * 2.0**-53 * np.abs(k).sum()


def test_a_one_by_one_kernel_has_exactly_the_dense_norm() -> None:
    k = np.random.default_rng(0).standard_normal((5, 3, 1, 1))
    for padding in ("zero", "circular"):
        assert operator_norm_bound(Convolution(k, (7, 9), padding)) == norm_bound(k[:, :, 0, 0])  # type: ignore[arg-type]


@pytest.mark.parametrize(("channels", "n"), [((8, 8), 16), ((16, 3), 16), ((3, 8), 24)])
def test_gaussian_kernels_are_certified_within_one_percent(channels: tuple[int, int], n: int) -> None:
    for seed in range(2):
        a = Convolution(np.random.default_rng(seed).standard_normal((*channels, 3, 3)), (n, n), "zero")
        below = float(ir.spectral.power_iteration(a, a.weight, steps=400).sigma)  # an under-estimate: the true slack is less
        assert below <= operator_norm_bound(a) <= 1.01 * below


def test_what_cannot_be_proved_is_inf_and_zero_is_zero() -> None:
    assert operator_norm_bound(Convolution(np.full((1, 1, 3, 3), math.nan), (4, 4))) == math.inf
    assert operator_norm_bound(Convolution(np.zeros((2, 1, 3, 3)), (40, 40))) == 0.0
    assert operator_norm_bound(Convolution(np.full((2, 1, 3, 3), 1e308), (40, 40))) == math.inf
    broken = ir.convnet((1, 4, 4), channels=2)
    broken = broken.with_parameters({**broken.parameters(), "0.weight": np.full((2, 1, 3, 3), math.inf)})
    assert not ir.certify(broken).proved
    assert "conv 3×3 1→2 on 4×4" in ir.certify(broken).reason
