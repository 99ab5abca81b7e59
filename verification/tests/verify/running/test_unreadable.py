"""An unreadable subject is one message, and what the message advises was tried and works."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from rich.console import Console

from iresnet_verify import Subject, audit
from iresnet_verify.catalogue.hygiene import readable
from iresnet_verify.check.registry import SLOW
from iresnet_verify.cli import terminal
from iresnet_verify.subject.unreadable import advice

D = 3


class Net(torch.nn.Module):
    """x + tanh(Wx)/10."""

    def __init__(self, dtype: torch.dtype = torch.float64, d: int = D, further: int = 0) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(d + further, d, dtype=dtype)

    def forward(self, x: Any) -> Any:
        return x + torch.tanh(self.linear(x)) / 10


class Conditional(Net):
    def forward(self, x: Any, context: Any) -> Any:
        return x + torch.tanh(self.linear(torch.cat([x, context], 1))) / 10


class Switched(Net):
    def forward(self, x: Any, *, reverse: bool) -> Any:
        return 1 / 0 if reverse else super().forward(x)


class OnTheUnitCube(Net):
    def forward(self, x: Any) -> Any:
        if not ((x >= 0) & (x <= 1)).all():
            raise ValueError("inputs must lie in [0, 1]")
        return super().forward(x)


class Dictionary(Net):
    def forward(self, x: Any) -> Any:
        return {"aux": 3, "log_det": x.sum(1), "z": super().forward(x)}


@dataclass
class Output:
    logdet: Any
    latent: Any


class ModelOutput(Net):
    def forward(self, x: Any) -> Any:
        return Output(x.sum(1), super().forward(x))


class Longer(Net):
    def forward(self, x: Any) -> Any:
        return super().forward(x), [1, 2], x.sum(1)


def subject(forward: Callable[..., Any], **fields: Any) -> Subject:
    module = forward if isinstance(forward, torch.nn.Module) else None
    return Subject(name="unreadable", event_shape=(D,), forward=forward, module=module, **fields)


def in_jax(x: Any) -> Any:
    jnp = pytest.importorskip("jax.numpy")
    return x + jnp.tanh(x) / 10


FIELDS = {
    "framework='jax'": lambda: subject(in_jax),
    "dtype='float32'": lambda: subject(Net(torch.float32)),
    "event_shape=(4,)": lambda: subject(Net(d=4)),
    "context_shape=(2,)": lambda: subject(Conditional(further=2)),
    "inputs=lambda n, rng: rng.uniform(0.05, 0.95, (n, 3))": lambda: subject(OnTheUnitCube()),
}
WRAPPERS = {
    "forward=lambda x: network(x, reverse=False)": lambda: subject(Switched()),
    "`def forward(x): out = network(x); return out['z'], out['log_det']`": lambda: subject(Dictionary()),
    "`def forward(x): out = network(x); return out.latent, out.logdet`": lambda: subject(ModelOutput()),
    "`def forward(x): out = network(x); return out[0], out[2]`": lambda: subject(Longer()),
}


@pytest.mark.parametrize("expected", [*FIELDS, *WRAPPERS])
def test_the_message_ends_with_what_makes_it_readable(expected: str) -> None:
    pytest.importorskip("jax")
    made = {**FIELDS, **WRAPPERS}[expected]()
    (found,) = audit(made, budget="quick", select=["hygiene.readable"]).checks
    assert found.status == "error"
    assert found.message.endswith(f"; try {expected}")


@pytest.mark.parametrize("expected", FIELDS)
def test_a_subject_that_follows_the_advice_is_readable(expected: str) -> None:
    pytest.importorskip("jax")
    made = FIELDS[expected]()
    followed = replace(made, **eval(f"dict({expected})"))
    assert audit(followed, budget="quick", select=["hygiene.readable"]).checks[0].status == "passed"


@pytest.mark.parametrize("expected", WRAPPERS)
def test_a_wrapper_that_was_advised_is_readable(expected: str) -> None:
    made = WRAPPERS[expected]()
    names: dict[str, Any] = {"network": made.forward}
    if expected.startswith("`"):
        exec(expected.strip("`"), names)
    else:
        names["forward"] = eval(expected.partition("=")[2], names)
    assert audit(replace(made, forward=names["forward"]), budget="quick", select=["hygiene.readable"]).checks[0].status == "passed"


def test_a_declared_context_that_nothing_takes_is_left_out() -> None:
    assert advice(subject(Net(), context_shape=(2,))) == "leaving context_shape out"


def test_two_mistakes_are_both_named() -> None:
    made = subject(Dictionary(torch.float32))
    assert advice(made) == "dtype='float32' and `def forward(x): out = network(x); return out['z'], out['log_det']`"


def test_what_nothing_makes_readable_gets_no_invented_advice() -> None:
    def forward(x: Any) -> Any:
        raise RuntimeError("never")

    made = subject(forward)
    assert advice(made) is None
    assert "try calling forward yourself" in audit(made, budget="quick", select=["hygiene.readable"]).checks[0].message


def test_nothing_follows_the_one_message() -> None:
    report = audit(subject(Net(torch.float32)), budget="quick")
    console = Console(width=80, record=True, file=io.StringIO())
    terminal.show([report], console)
    shown = console.export_text()
    assert len(shown.splitlines()) < 10, shown
    assert len(re.findall("same dtype", shown)) == 1
    assert "dtype='float32'" in shown
    assert {c.because_of for c in report.checks[1:]} == {"hygiene.readable"}


def test_a_random_log_det_that_is_not_declared_is_judged_as_unbiased() -> None:
    def random_log_det(x: Any) -> Any:  # exact for F = 2x, up to a sign drawn for each row
        return D * torch.log(torch.tensor(2.0, dtype=x.dtype)) + torch.randint(0, 2, (len(x),)) * 2.0 - 1.0

    made = Subject(name="estimate", event_shape=(D,), forward=lambda x: 2 * x, inverse=lambda y: y / 2, log_det=random_log_det)
    report = audit(made, budget="quick", select=["hygiene.exact-log-det-not-random", "estimator.unbiased", "logdet.matches-determinant"])
    found = {c.id: c.status for c in report.checks}
    assert found["hygiene.exact-log-det-not-random"] == "skipped"
    assert "failed" not in found.values()
    stated = audit(replace(made, log_det_is="exact"), budget="quick", select=["hygiene.exact-log-det-not-random"])
    assert stated.checks[0].status == "failed"


def test_a_costly_forward_is_told_what_makes_its_audit_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    images = Subject(name="images", event_shape=(1, 4, 4), forward=lambda x: (2 * x, torch.full((len(x),), 16 * 2.0**0.5)))
    (cheap,) = audit(images, budget="quick", select=["hygiene.readable"]).checks
    assert (cheap.message, SLOW in cheap.evidence) == ("2 answers read", False)
    monkeypatch.setattr(readable, "SECONDS_A_ROW", 0.0)
    (costly,) = audit(images, budget="quick", select=["hygiene.readable"]).checks
    assert costly.status == "passed"
    assert 0 < costly.evidence[SLOW] < 1
    assert "a row, of which an audit wants some ten thousand; try images of 8 × 8 or smaller; give its log-det as" in costly.message
