"""Bad input gets one clear error: what was expected, what came, what to try."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import iresnet_backends
import iresnet_ref as ir
from iresnet_backends.errors import BackendUnavailableError
from iresnet_ref.layers.concatenation import Concatenation
from iresnet_ref.layers.linear import Affine

G = ir.mlp((3, 5, 3), lipschitz=0.9)
F = ir.ResidualBlock(G)
X = np.ones((2, 3))


@pytest.mark.parametrize(
    "call", [F, lambda x: ir.invert(F, x), lambda x: ir.logdet(F, x)], ids=["forward", "invert", "logdet"]
)
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ([[1.0, 2.0, 3.0]], ir.DTypeError, "expected an array of the Python Array API.*got list"),
        (np.ones((2, 3), dtype=np.int64), ir.DTypeError, "real floating dtype, got int64"),
        (np.ones((2, 3), dtype=np.float32), ir.DTypeError, "dtype float64 like the weights, got float32"),
        (np.ones((2, 4)), ir.ShapeError, r"shape \(batch, 3\), got \(2, 4\)"),
        (np.ones(3), ir.ShapeError, r"got \(3,\).*x\[None\]"),
        (np.array([[1.0, math.nan, 0.0]]), ir.NonFiniteError, "expected finite values"),
        (np.array([[1.0, -math.inf, 0.0]]), ir.NonFiniteError, "expected finite values"),
    ],
)
def test_bad_batches_are_refused(call: Any, bad: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(bad)


def test_arrays_of_another_namespace_or_device_are_refused_everywhere() -> None:
    torch = iresnet_backends.get("torch:cpu")
    with pytest.raises(ir.DTypeError, match=r"expected an array of .*numpy like the weights, got .*torch"):
        F(torch.asarray(X))
    one, two = (iresnet_backends.get(f"array-api-strict:device{i}") for i in (1, 2))
    block = ir.ResidualBlock(ir.mlp((3, 5, 3), like=one.asarray([0.0])))
    with pytest.raises(ir.DTypeError, match=r"expected device .*device1.* got .*device2"):
        block(two.asarray(X))


@pytest.mark.parametrize("lipschitz", [0.0, 1.0, 1.2, -0.5, math.nan])
def test_branches_that_are_not_contractive(lipschitz: float) -> None:
    with pytest.raises(ir.NotContractiveError, match=r"expected 0 < Lip\(g\) < 1"):
        ir.mlp((3, 5, 3), lipschitz=lipschitz)


def test_weights_that_are_not_contractive_are_refused() -> None:
    loud = ir.ResidualBlock(G.with_parameters({k: 3.0 * v for k, v in G.parameters().items()}))
    for call in (ir.invert, ir.logdet):
        with pytest.raises(ir.NotContractiveError, match=r"proved Lip\(g\) < 1, got \d.*normalise"):
            call(loud, X)


def test_a_stated_lipschitz_constant_that_is_false_is_refuted() -> None:
    wide = ir.ResidualBlock(ir.mlp((3, 3), lipschitz=0.99), lipschitz=0.2)
    assert wide.certificate.bound > 0.5
    with pytest.raises(ir.NotContractiveError, match=r"expected Lip\(g\) ≤ 0\.2 as stated"):
        ir.invert(wide, X * 7.0, rtol=1e-12, check_every=1, method="banach")


@pytest.mark.parametrize("sizes", [(3,), (3, 0, 3), (3, 4), ()])
def test_sizes_that_do_not_end_where_they_begin_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ir.ShapeError, match=r"expected sizes \(d, h₁, …, d\)"):
        ir.mlp(sizes)


def test_parameters_of_the_wrong_name_or_shape() -> None:
    with pytest.raises(ir.ShapeError, match="expected exactly the keys"):
        G.with_parameters({})
    with pytest.raises(ir.ShapeError, match=r"expected shape \(5, 3\), got \(3, 5\)"):
        G.with_parameters({**G.parameters(), "0.weight": np.ones((3, 5))})


@pytest.mark.parametrize("dtype", [np.int64, np.complex128, np.bool_])
def test_weights_that_are_not_real_floating(dtype: Any) -> None:
    """Of complex weights a proof on the host would see the real part only: for W = 10i it would prove ‖W‖ ≤ 0."""
    weight = (10j if dtype is np.complex128 else 1) * np.ones((2, 2), dtype=dtype)
    with pytest.raises(ir.DTypeError, match="weight: expected a real floating dtype, got"):
        Affine(weight, np.zeros(2))
    for make in (ir.mlp, ir.convnet, ir.densenet):
        with pytest.raises(ir.DTypeError, match="like: expected a real floating dtype, got"):
            make(*{ir.mlp: [(2, 2)], ir.convnet: [(1, 3, 3)], ir.densenet: [2]}[make], like=np.zeros(1, dtype=dtype))
    with pytest.raises(ir.DTypeError, match=r"bias: expected an array of the Python Array API.*got list"):
        Affine(np.eye(2), [0.0, 0.0])


def test_layers_that_do_not_fit_are_refused() -> None:
    """A last layer of one output would broadcast over x, with a Lipschitz constant √d times what is proved."""
    with pytest.raises(ir.ShapeError, match=r"weight of shape \(out, in\), got \(2, 2, 1\)"):
        Affine(np.ones((2, 2, 1)), np.zeros(2))
    for layer in (lambda: Affine(np.eye(2), np.zeros(1)), lambda: ir.layers.Conv(np.ones((2, 1, 3, 3)), np.zeros(1), (4, 4))):
        with pytest.raises(ir.ShapeError, match=r"bias: expected one number for each output \(2,\), got shape \(1,\)"):
            layer()
    with pytest.raises(ir.ShapeError, match=r"dense 3→2: expected events of shape \(3,\), got \(4,\)"):
        ir.Branch((Affine(np.ones((4, 2)), np.zeros(4)), Affine(np.ones((2, 3)), np.zeros(2))), (2,))
    for rows in (1, 4):
        with pytest.raises(ir.ShapeError, match=rf"keeps the event shape \(2,\), for x \+ g\(x\), got \({rows},\)"):
            ir.ResidualBlock(ir.Branch((Affine(0.1 * np.ones((rows, 2)), np.zeros(rows)),), (2,)))
    with pytest.raises(ir.ShapeError, match=r"conv 3×3 1→1 on 4×4: expected events of shape \(1, 4, 4\), got \(1, 5, 4\)"):
        ir.Branch((ir.layers.Conv(np.ones((1, 1, 3, 3)), np.zeros(1), (4, 4)),), (1, 5, 4))
    with pytest.raises(ir.ShapeError, match="maxmin: expected channels in groups of 2, got 5; try a multiple of 2"):
        ir.mlp((3, 5, 3), activation="maxmin")
    with pytest.raises(ir.ShapeError, match=r"dense 3→2: expected events of shape \(3,\), got \(2,\)"):
        ir.Branch((Concatenation((Affine(np.ones((2, 3)), np.zeros(2)),)),), (2,))
    with pytest.raises(ir.DTypeError, match=r"branch: expected an object of type Branch, got function; try Branch\(layers, event_shape\)"):
        ir.ResidualBlock(lambda x: x)  # type: ignore[arg-type]


def test_parameters_that_are_not_finite_prove_nothing() -> None:
    for key in G.parameters():
        broken = ir.ResidualBlock(G.with_parameters({k: p * (math.nan if k == key else 1.0) for k, p in G.parameters().items()}))
        certificate = ir.certify(broken)
        assert (certificate.bound, certificate.proved) == (math.inf, False)
        for call in (ir.invert, ir.logdet, ir.logdet_gradient):
            with pytest.raises(ir.NotContractiveError, match=rf"its {key[2:]} holds NaN or infinity"):
                call(broken, X)


def test_a_stated_constant_of_one_or_more_is_refused() -> None:
    for stated in (1.0, -0.1, math.nan):
        with pytest.raises(ir.NotContractiveError, match=r"expected a residual branch with stated Lip\(g\) < 1, got"):
            ir.invert(ir.ResidualBlock(G, stated), X)


def test_cotangents_and_tangents_come_together_and_fit() -> None:
    one = np.ones((4, 2, 3))
    assert F.pullback(X, one, X, one)[0].shape == X.shape
    for options in ({"v": X}, {"t_bar": X}):
        with pytest.raises(ir.ShapeError, match="both or neither, got one of them"):
            F.pullback(X, **options)
    for options in ({"v": np.ones((2, 4)), "t_bar": X}, {"v": X, "t_bar": np.ones((4, 1, 3))}):
        with pytest.raises(ir.ShapeError, match=r"expected shape \(\*probes, \*\(2, 3\)\) for this x, got"):
            F.pullback(X, **options)
    with pytest.raises(ir.DTypeError, match=r"weights: expected an array of the Python Array API.*got list"):
        ir.logdet_gradient(F, X, weights=[1.0, 1.0])


def test_methods_maps_and_counts_of_another_kind() -> None:
    with pytest.raises(ir.DTypeError, match=r"lengths: expected an object of type LengthDistribution or a real number, got .geometric."):
        ir.Roulette("geometric")  # type: ignore[arg-type]
    with pytest.raises(ir.DTypeError, match=r"Series: probes: expected an object of type Probes, got 5"):
        ir.Series(3, probes=5)  # type: ignore[arg-type]
    for call in (ir.logdet, ir.logdet_gradient):
        with pytest.raises(ir.DTypeError, match=r"expected an object of type LogDetMethod or one of .* got Newton"):
            call(F, X, ir.Newton())  # type: ignore[operator]
    with pytest.raises(ir.DTypeError, match=r"expected an object of type InverseMethod or one of .* got Exact"):
        ir.invert(F, X, ir.Exact())  # type: ignore[arg-type]
    with pytest.raises(ir.DTypeError, match=r"F\[1\]: expected an object of type ResidualBlock or .* got 3"):
        ir.invert([F, 3], X)  # type: ignore[list-item]
    for anything in (ir.invert, ir.logdet):
        with pytest.raises(ir.DTypeError, match=r"expected an object of type ResidualBlock or .* a sequence, got .F"):
            anything("F", X)  # type: ignore[operator]
    with pytest.raises(ValueError, match="sample: expected n ≥ 0 draws, got -1"):
        ir.Flow([F]).sample(-1)


def test_wrong_options_of_invert_and_logdet_are_refused() -> None:
    for call, message in (
        (lambda: ir.invert(F, X, method="secant"), "expected method"),  # type: ignore[arg-type]
        (lambda: ir.invert(F, X, rtol=0.0), "rtol > 0"),
        (lambda: ir.invert(F, X, ir.Anderson(memory=0)), "memory ≥ 1"),
        (lambda: ir.invert(ir.Flow([F]), X, max_evaluations=3), "for a residual block only, got Flow"),
        (lambda: ir.logdet(F, X, method="magic"), "expected 'auto'"),  # type: ignore[arg-type]
        (lambda: ir.logdet(F, X, method="series"), r"ir.Series\(terms\)"),  # type: ignore[arg-type]
        (lambda: ir.logdet(F, X, method=ir.Series(0)), "terms ≥ 1"),
        (lambda: ir.spectral.normalise(X, 0.0), "0 < c < inf"),
        (lambda: ir.spectral.normalise(np.full((2, 2), math.nan), 0.5), "finite weights"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_tolerance_below_the_floor_loses_nothing() -> None:
    y = F(X)
    with pytest.raises(ir.ConvergenceError, match=r"rounding floor is about \d.*the result is in \.result") as caught:
        ir.invert(F, y, rtol=1e-18)
    result, floor = caught.value.result, caught.value.floor
    assert isinstance(result, ir.Inverse)
    assert (np.linalg.norm(result.x - X, axis=1) <= result.error_bound).all()
    assert (np.asarray(floor) > 1e-18).all()
    assert (result.residual_norm <= 100 * np.asarray(floor) * np.linalg.norm(y, axis=1)).all()


def test_an_empty_batch_stays_empty() -> None:
    empty = np.zeros((0, 3))
    assert F(empty).shape == (0, 3)
    assert ir.invert(F, empty).x.shape == (0, 3)
    assert ir.logdet(F, empty).value.shape == (0,)


def test_unknown_backends_and_dtypes_are_refused() -> None:
    for name, message in (
        ("torhc", "expected one of"),
        ("numpy:gpu", "no such device"),
    ):
        with pytest.raises(BackendUnavailableError, match=message):
            iresnet_backends.get(name)
    with pytest.raises(BackendUnavailableError, match="expected a dtype of float64, float32, got 'int8'; try dtype="):
        iresnet_backends.get("numpy", dtype="int8")
    assert {"numpy:cpu", "torch:cpu", "array-api-strict:device1"} <= set(iresnet_backends.available())


def test_looking_for_backends_leaves_the_working_precision() -> None:
    digits = iresnet_backends.get("precision:70")
    assert "precision:50" in iresnet_backends.available()
    assert digits.xp.mp.dps == 70
    iresnet_backends.get("precision:50")  # what the other tests use
