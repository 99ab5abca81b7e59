"""Networks in training: what is kept from before a step or a load, and what every call leaves behind. Right ones stay right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from seeds import each_with_seeds
from torch import Tensor, nn

from iresnet_verify import Subject, audit
from iresnet_verify.check.result import CheckResult
from iresnet_verify.mutants.state.training import MUTANTS, ForgetsWhenLoaded, Rotation, rotating

SELECT = ("state.after-optimiser-step", "state.save-and-load", "hygiene.memory")
D = torch.float64


def found(subject: Subject, seed: int = 0) -> dict[str, CheckResult]:
    return {c.id: c for c in audit(subject, seed=seed, budget="quick", select=SELECT).checks}


class Residual(nn.Module):
    """x + .5·net(x)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + 0.5 * self.net(x)
        return y


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation that uses running statistics in both modes, and moves them in training."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.running_mean is not None:
            with torch.no_grad():
                self.running_mean.lerp_(x.mean(0), 0.1)
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


def sequence(*layers: Callable[[], nn.Module]) -> Callable[[int], Subject]:
    def build(seed: int) -> Subject:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = Residual(nn.Sequential(*(make() for make in layers))).double()

        def fresh(dtype: str | None = None, device: str | None = None) -> Subject:
            return build(seed + 1)

        return Subject(name="sequence", event_shape=(4,), forward=net, module=net, fresh=fresh)

    return build


def linear(rows: int = 6, columns: int = 4) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(columns, rows)


def spectral(rows: int, columns: int, iterations: int = 1) -> Callable[[], nn.Module]:
    return lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(columns, rows), n_power_iterations=iterations)


def old_spectral(rows: int, columns: int) -> Callable[[], nn.Module]:
    return lambda: nn.utils.spectral_norm(nn.Linear(columns, rows))


def zero() -> nn.Module:
    layer = nn.Linear(6, 4)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


RIGHT: dict[str, Callable[[int], Subject]] = {
    "rotation": rotating(Rotation, again=True),
    "a kept weight that is forgotten in training and when loaded": rotating(ForgetsWhenLoaded, again=True),
    "tanh": sequence(linear(), nn.Tanh, linear(4, 6)),
    "last layer 0 as delivered": sequence(linear(), nn.Tanh, zero),
    "batch norm": sequence(linear(), lambda: nn.BatchNorm1d(6), nn.Tanh, linear(4, 6)),
    "running mean in both modes": sequence(linear(), lambda: BatchNorm(6), nn.Tanh, linear(4, 6)),
    "dropout": sequence(linear(), lambda: nn.Dropout(0.5), linear(4, 6)),
    "spectral norm": sequence(spectral(6, 4), nn.Tanh, spectral(4, 6)),
    "spectral norm, converged": sequence(spectral(6, 4, 500), nn.Tanh, spectral(4, 6, 500)),
    "spectral norm of one row": sequence(spectral(1, 4), nn.Tanh, linear(4, 1)),
    "spectral norm by hooks": sequence(old_spectral(6, 4), nn.Tanh, old_spectral(4, 6)),
    "weight norm": sequence(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)), nn.Tanh, linear(4, 6)),
}


@each_with_seeds("name", RIGHT)
def test_what_is_right_in_training_is_not_failed(name: str, seed: int) -> None:
    answers = found(RIGHT[name](seed), seed)
    assert not [(c.id, c.status, c.message) for c in answers.values() if c.status in ("failed", "error")]
    assert answers["hygiene.memory"].status == ("inconclusive" if name == "dropout" else "passed")


@pytest.mark.parametrize("name", ["rotation", "a kept weight that is forgotten in training and when loaded", "tanh", "weight norm"])
def test_networks_whose_modes_agree_are_compared(name: str) -> None:
    answers = found(RIGHT[name](0))
    for id in SELECT:
        assert answers[id].status == "passed"
        assert answers[id].evidence["compared"] > 0


@each_with_seeds("id", MUTANTS)
def test_each_mistake_of_training_is_found_by_the_check_meant_for_it(id: str, seed: int) -> None:
    answers = found(MUTANTS[id].make(seed), seed)
    assert any(answers[c].status == "failed" for c in MUTANTS[id].meant), [(c.id, c.status, c.message) for c in answers.values()]


def test_modes_that_differ_as_delivered_are_not_compared_after_a_step() -> None:
    class Doubled(Rotation):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y, _ = super().forward(x)
            return (2 * y if self.training else y), (1.0 + self.training) * self.volume().expand(len(x))

    net = Doubled(0)
    answers = found(Subject(name="doubled", event_shape=(4,), forward=net, module=net))
    assert answers["state.after-optimiser-step"].status == "skipped", answers["state.after-optimiser-step"].message


def test_kept_log_dets_are_growth() -> None:
    """The least that a call can leave behind: one number a row, a quarter of a result here."""

    class KeepsLogDets(Rotation):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y, value = super().forward(x)
            self.__dict__.setdefault("log_dets", []).append(value.detach().clone())
            return y, value

    net = KeepsLogDets(0)
    assert found(Subject(name="keeps log-dets", event_shape=(4,), forward=net, module=net))["hygiene.memory"].status == "failed"


def test_what_is_kept_once_is_no_growth() -> None:
    class KeepsLast(Rotation):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y, value = super().forward(x)
            self.last = y
            return y, value

    net = KeepsLast(0)
    assert found(Subject(name="keeps the last", event_shape=(4,), forward=net, module=net))["hygiene.memory"].status == "passed"


@pytest.mark.parametrize("keeps", ["arrays", "notes"])
def test_numpy_memory_is_counted_in_arrays(keeps: str) -> None:
    """A result kept at every call is growth; some kilobytes of Python's own, which other threads add as well, are not."""
    kept: list[object] = []

    def forward(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = x + 0.5 * np.tanh(x)
        kept.append(y if keeps == "arrays" else [str(i) * 40 for i in range(30)])
        return y, np.sum(np.log1p(0.5 / np.cosh(x) ** 2), axis=1)

    answer = found(Subject(name=keeps, event_shape=(2,), forward=forward, framework="numpy", dtype="float32"))["hygiene.memory"]
    assert answer.status == ("failed" if keeps == "arrays" else "passed"), answer.message
