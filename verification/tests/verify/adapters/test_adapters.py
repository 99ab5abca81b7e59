"""Objects of published packages become subjects in one line, nothing is found wrong with correct ones, and JAX is at home."""

from __future__ import annotations

import tracemalloc
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from package_subjects import PACKAGES

from iresnet_verify import Subject, adapters, audit
from iresnet_verify.oracle.jacobian import Oracle
from iresnet_verify.subject.calls import Caller
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.frameworks import framework_of

FOUND = {"normflows Glow": {"hygiene.wrong-event-shape"}, "pyro affine coupling": {"gradient.far-inputs"}}
"""True findings, see docs/adapters.md."""
FIRST = {package: name for name, (package, _) in reversed(PACKAGES.items())}
SLOW = {"torchdiffeq", "distrax", "bijx", "flowjax", "zuko", "normflows"}


def cases() -> list[Any]:
    """The first layer of each package in every run; the others, and the slow packages, in the thorough one."""
    return [pytest.param(name, marks=() if FIRST[package] == name and package not in SLOW else pytest.mark.thorough)
            for name, (package, _) in PACKAGES.items()]


@pytest.mark.filterwarnings("ignore")  # what the packages warn about is theirs
@pytest.mark.parametrize("name", cases())
def test_nothing_is_found_wrong_with_a_correct_layer(name: str) -> None:
    package, build = PACKAGES[name]
    pytest.importorskip(package)
    chosen = ["inverse.recovers-input", "logdet.matches-determinant", "gradient.forward"] if package == "torchdiffeq" else None
    report = audit(build(0), seed=0, budget="quick", select=chosen)  # a solver's every call takes hundreds of evaluations
    wrong = {c.id: c.message for c in report.checks if c.status in ("failed", "error")}
    assert {k: v for k, v in wrong.items() if k not in FOUND.get(name, ())} == {}
    assert sum(c.status == "passed" for c in report.checks) >= (3 if chosen else 25)


class Scale(torch.nn.Module):
    """x ↦ e^s x with a log-det that is made by `reduce` from the (batch, d) one."""

    def __init__(self, reduce: Any) -> None:
        super().__init__()
        self.s = torch.nn.Parameter(torch.tensor([0.3, -0.2], dtype=torch.float64))
        self.reduce = reduce

    def forward(self, x: torch.Tensor) -> Any:
        return x * self.s.exp(), self.reduce((0 * x + self.s).sum(1))

    def inverse(self, y: torch.Tensor) -> Any:
        return y * (-self.s).exp(), self.reduce((0 * y - self.s).sum(1))


@pytest.mark.parametrize("reduce", [lambda v: v, lambda v: v.sum(), lambda v: v[:, None], lambda v: v[:1]])
def test_log_dets_of_every_packing_are_recognised(reduce: Any) -> None:
    subject = adapters.recognise(Scale(reduce), (2,))
    caller = Caller(subject, framework_of(subject), 0)
    log_det = caller.event("forward", torch.ones(4, 2, dtype=torch.float64))[1]
    assert log_det is not None
    np.testing.assert_allclose(log_det.detach(), 0.1)


def test_one_number_that_neither_reading_explains_is_refused_with_both_shown() -> None:
    with pytest.raises(SubjectError, match=r"read as the same .* read as their sum 0\.03"):
        adapters.recognise(Scale(lambda v: v.sum() ** 2), (2,))


def test_an_object_without_a_known_convention_is_refused() -> None:
    with pytest.raises(SubjectError, match="expected an object with forward and inverse"):
        adapters.recognise(object(), (2,))


def test_a_torch_distributions_transform_is_called_with_its_own_pair() -> None:
    subject = adapters.recognise(torch.distributions.transforms.TanhTransform(), (3,), inputs=lambda n, rng: rng.normal(size=(n, 3)))
    assert audit(subject, budget="quick", select=["inverse.recovers-input", "logdet.matches-determinant"]).status == "passed"


def test_densities_are_given_back_less_the_log_det() -> None:
    class Doubling:
        def forward(self, x: Any, log_density: Any) -> Any:
            return 2 * x, log_density - 3 * np.log(2.0)

        def reverse(self, y: Any, log_density: Any) -> Any:
            return y / 2, log_density + 3 * np.log(2.0)

    subject = adapters.recognise(Doubling(), (3,), framework="numpy")
    assert audit(subject, budget="quick", select=["inverse.recovers-input", "logdet"]).status == "passed"


def test_forward_and_log_det_on_channels_last_images() -> None:
    class Channels:
        """(B, H, W, C) ↦ a factor for each channel."""

        scale = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)

        def forward_and_log_det(self, x: torch.Tensor) -> Any:
            return x * self.scale, torch.full((len(x),), 4 * float(self.scale.log().sum()), dtype=x.dtype)

        def inverse_and_log_det(self, y: torch.Tensor) -> Any:
            return y / self.scale, torch.full((len(y),), -4 * float(self.scale.log().sum()), dtype=y.dtype)

    subject = adapters.recognise(Channels(), (2, 2, 3), framework="torch")
    checks = ["inverse.recovers-input", "logdet.matches-determinant", "logdet.of-the-inverse"]
    assert {c.status for c in audit(subject, budget="quick", select=checks).checks} == {"passed"}


def test_a_bijection_of_one_event_is_vectorised() -> None:
    pytest.importorskip("jax")

    class One:
        """R² → R² for one event: a shear, and e^0.3 times the first coordinate."""

        def transform_and_log_det(self, x: Any) -> Any:
            assert x.shape == (2,)
            return x.at[1].add(x[0] ** 2).at[0].multiply(np.exp(0.3)), 0.3

        def inverse_and_log_det(self, y: Any) -> Any:
            x = y.at[0].multiply(np.exp(-0.3))
            return x.at[1].add(-(x[0] ** 2)), -0.3

    checks = ["inverse.recovers-input", "logdet.matches-determinant", "logdet.of-the-inverse"]
    assert {c.status for c in audit(adapters.recognise(One(), (2,)), budget="quick", select=checks).checks} == {"passed"}


def oracle_of(forward: Any, **fields: Any) -> Any:
    subject = Subject(name="F", event_shape=(3,), forward=forward, framework="jax", **fields)
    framework = framework_of(subject)
    caller = Caller(subject, framework, 0)

    def on_host(x: Any, seed: int) -> Any:
        return framework.host(caller.event("forward", framework.native(x), seed=seed)[0])

    x = np.random.default_rng(0).normal(size=(4, 3))
    return x, Oracle(caller, on_host, 2.0**-53, 0.0, nullcontext)(x, 0)


def test_jacobians_of_jax_subjects_come_from_jax_and_fall_back_where_it_refuses() -> None:
    jax = pytest.importorskip("jax")
    jnp = jax.numpy

    def loop(x: Any) -> Any:  # of unknown length: only forward mode
        return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + 0.3 * jnp.tanh(jnp.roll(s[1], 1, -1))), (0, x))[1]

    def leaves(x: Any) -> Any:
        return jnp.asarray(np.asarray(x) + 0.3 * np.tanh(np.roll(np.asarray(x), 1, -1)))

    def plain(x: Any) -> Any:
        return x + 0.3 * jnp.tanh(jnp.roll(x, 1, -1))

    for function, how in ((plain, "rows of F by jax.vjp"), (loop, "columns of F by jax.jvp"), (leaves, "Richardson")):
        x, J = oracle_of(function)
        assert J.source.startswith(how)
        step = 1 if function is not loop else 3
        expected = np.stack([np.eye(3)] * 4)
        z = x
        for _ in range(step):
            inner = np.roll(np.eye(3), 1, 0)[None] * (0.3 / np.cosh(np.roll(z, 1, 1)) ** 2)[:, :, None]
            expected = (np.eye(3) + inner) @ expected
            z = z + 0.3 * np.tanh(np.roll(z, 1, 1))
        assert np.abs(J.matrix - expected).max() <= max(J.error.max(), 1e-14)
    x, J = oracle_of(plain, residual=lambda x: 0.3 * jnp.tanh(jnp.roll(x, 1, -1)))
    assert J.source == "rows of g by jax.vjp"


def test_a_wrong_derivative_of_a_jax_inverse_is_found() -> None:
    jax = pytest.importorskip("jax")

    @jax.custom_vjp
    def inverse(y: Any) -> Any:
        return y / 2

    inverse.defvjp(lambda y: (y / 2, None), lambda _, c: (c,))  # straight through: should be c / 2
    made = {"name": "2x", "event_shape": (3,), "forward": lambda x: 2 * x, "framework": "jax"}
    for function, status in ((inverse, "failed"), (lambda y: y / 2, "passed")):
        (found,) = audit(Subject(**made, inverse=function), budget="quick", select=["gradient.through-inverse"]).checks
        assert found.status == status


def test_a_cache_of_the_last_call_is_no_growth_and_a_list_of_all_calls_is() -> None:
    class Keeps(torch.nn.Module):
        def __init__(self, everything: bool) -> None:
            super().__init__()
            self.everything, self.kept = everything, []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.kept = (self.kept if self.everything else []) + [2 * x for _ in range(20)]
            return 2 * x

    for everything, status in ((False, "passed"), (True, "failed")):
        net = Keeps(everything)
        subject = Subject(name="keeps", event_shape=(3,), forward=net, inverse=lambda y: y / 2, module=net)
        (found,) = audit(subject, budget="quick", select=["hygiene.memory"]).checks
        assert found.status == status


@pytest.mark.parametrize("framework", ["numpy", "jax"])
def test_arrays_that_a_function_keeps_are_growth_and_what_the_framework_keeps_is_not(framework: str) -> None:
    pytest.importorskip(framework)
    for everything, status in ((False, "passed"), (True, "failed")):
        kept: list[Any] = []

        def forward(x: Any, everything: bool = everything, kept: list[Any] = kept) -> Any:
            kept[:] = [*kept, 2 * x] if everything else [2 * x]
            return kept[-1]

        subject = Subject(name="keeps", event_shape=(3,), forward=forward, framework=framework)
        (found,) = audit(subject, budget="quick", select=["hygiene.memory"]).checks
        assert found.status == status, found.message


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_a_trace_of_memory_that_is_on_stays_on(framework: str) -> None:
    subject = Subject(name="2x", event_shape=(3,), forward=lambda x: 2 * x, framework=framework)
    tracemalloc.start()
    try:
        (found,) = audit(subject, budget="quick", select=["hygiene.memory"]).checks
        assert found.status == "passed"
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_one_coordinate_may_be_broadcast_but_not_otherwise_used() -> None:
    scale = np.array([1.0, 2.0, 3.0])
    (found,) = audit(Subject(name="b", event_shape=(3,), forward=lambda x: x * scale, framework="numpy"), budget="quick",
                     select=["hygiene.wrong-event-shape"]).checks
    assert found.status == "passed"
    (found,) = audit(Subject(name="b", event_shape=(3,), forward=lambda x: x * scale + (x.shape[1] == 1), framework="numpy"),
                     budget="quick", select=["hygiene.wrong-event-shape"]).checks
    assert found.status == "failed"
