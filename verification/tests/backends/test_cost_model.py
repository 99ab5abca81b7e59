"""The model of cost: work is counted as it is done, with numbers and without, and a prediction is the sum that the page states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import iresnet_ref as ir
from iresnet_backends import get
from iresnet_ref.training import Settings, maximum_likelihood, start
from iresnet_verify.machine import counting, prediction
from iresnet_verify.machine.counting import Count, Product, counted

X = torch.ones((6, 3, 8, 8))


def training(branch: ir.Branch, x: Any) -> tuple[Any, Callable[[Any, int], Any]]:
    state = start(ir.Flow([ir.ResidualBlock(branch)]), settings=Settings(certify_every=9))
    options = ir.Options(logdet=ir.Series(3))
    return state, lambda model, step: maximum_likelihood(model, x, step=step, options=options, check=False)


def test_the_flops_of_a_dense_step_are_those_of_the_formulas() -> None:
    """With n weights and b rows each of nine sweeps over the layers takes 2nb: forward, three products with Jᵀ, the tangent, back with the
    cotangents of both, and two gradients; the tangent ends in front of the last layer, its cotangent behind the first: two products less.
    tr J and tr J² of rank h take 2bh and 2bh². The rest are the estimates of the norms."""
    d, h, b = 6, 10, 7
    state, loss = training(ir.mlp((d, h, d), like=torch.zeros(1)), torch.ones((b, d)))
    products = counting.training_step(state, loss).products
    found = sum(k * p.flops for p, k in products.items() if b in {p.m, p.k})
    assert found == (9 * 2 - 2) * (2 * d * h) * b + 2 * b * h + 2 * b * h**2


@pytest.mark.thorough
def test_a_step_without_numbers_does_what_a_step_with_them_does() -> None:
    state, loss = training(ir.convnet((3, 8, 8), channels=5, like=torch.zeros(1)), X)
    real = counting.training_step(state, loss)
    without, on_meta = counting.on_meta(state), X.to("meta")
    options = ir.Options(logdet=ir.Series(3))
    meta = counting.training_step(without, lambda m, step: maximum_likelihood(m, on_meta, step=step, options=options, check=False))
    assert (meta.products, meta.factorisations, meta.moved, meta.views) == (real.products, real.factorisations, real.moved, real.views)
    assert meta.products
    assert meta.uploaded == real.uploaded == X.nbytes + 4 * len(X), "the probes, and a number for each row"


def test_bytes_and_memory_are_those_of_the_arrays() -> None:
    a = torch.ones((4, 1000))

    def work(begin: Callable[[], None]) -> None:
        begin()
        b = a + 1.0  # reads and writes 16 kB each
        c = torch.exp(b)
        d = torch.reshape(c, (1000, 4))  # moves nothing
        del b, c
        torch.sum(d)

    found = counted(work)
    assert found.moved == {("arithmetic", 32000): 1, ("function", 32000): 1, ("sum", 16004): 1}
    assert (found.views, found.calls, found.peak) == (1, 4, 48000)


@pytest.mark.parametrize(("view", "kind"), [
    (lambda a: a, "arithmetic"), (lambda a: a[:, 1:9], "arithmetic in pieces"), (lambda a: a.T, "arithmetic in pieces"),
    (lambda a: a[:1, :], "arithmetic"), (lambda a: torch.zeros(()).expand(9, 400), "arithmetic"),
])  # fmt: skip
def test_rows_that_lie_apart_are_pieces(view: Callable[[Any], Any], kind: str) -> None:
    a = view(torch.ones((30, 400)))
    found = counted(lambda begin: (begin(), a + 1.0))
    assert [k for k, _ in found.moved] == [kind]


def test_a_prediction_is_the_sum_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction.Rates, "product", lambda self, p: 1e-9 * p.flops)
    monkeypatch.setattr(prediction.Rates, "curves", {"copy": tuple(n * 1e-9 for n in prediction.SIZES)})
    monkeypatch.setattr(prediction.Rates, "call", 1e-3)
    product = Product(1, 10, 10, 5, 1, False, False)
    count = Count()
    count.products[product], count.moved["copy", 10**6], count.views = 2, 3, 5
    for concurrent, expected in ((False, 2e-6 + 3e-3 + 10e-3), (True, 10e-3)):
        monkeypatch.setattr(prediction.Rates, "concurrent", concurrent)
        found = prediction.Rates(get("numpy", "float32")).predicted(count)
        assert found.seconds == pytest.approx(expected, rel=1e-12)
        assert found.record()["seconds"] == found.seconds


@pytest.mark.parametrize("name", ["numpy", "cupy:0"])
def test_rates_are_measured_on_any_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "SIZES", (2**12, 2**14))
    monkeypatch.setattr(prediction, "IN_USE", 2**15)
    monkeypatch.setattr(prediction, "SHORTEST", 1e-5)
    rates = prediction.Rates(get(name, "float32"))
    count = Count()
    count.products[Product(1, 8, 8, 8, 3, True, False)] += 1
    count.factorisations["qr", (6, 3)] += 1
    count.factorisations["cholesky", (2, 3, 3)] += 1
    count.factorisations["solve", (3, 3)] += 1
    count.moved.update({(kind, 10**4): 1 for kind in rates.curves})
    found = rates.predicted(count)
    assert 0.0 < found.products < found.seconds
    assert np.isfinite(found.seconds)


@pytest.mark.parametrize("work", [lambda F, x: ir.invert(F, x, check=False), lambda F, x: ir.logdet(F, x, "exact", check=False)])
def test_what_an_inverse_and_a_log_det_factorise_is_measured(work: Callable[[ir.ResidualBlock, Any], Any]) -> None:
    F = ir.ResidualBlock(ir.mlp((24, 40, 24), lipschitz=0.9, like=torch.zeros(1)))
    F.contraction()
    found = counted(lambda begin: (begin(), work(F, torch.ones((32, 24)))))
    rates = prediction.Rates(get("numpy", "float32"))
    assert all(rates.factorisation(*f) > 0.0 for f in found.factorisations)
