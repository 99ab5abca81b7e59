"""`init` writes an adapter that runs: what stands in it was tried on the object, and what it cannot know it leaves to the author."""

from __future__ import annotations

from pathlib import Path

import pytest

from iresnet_verify import audit
from iresnet_verify.cli import commands as cli
from iresnet_verify.subject.loading import load

TORCH = """
import torch

class Flow(torch.nn.Module):
    def __init__(self, dim, hidden=8):
        super().__init__()
        self.a, self.b = torch.nn.Linear(dim, hidden), torch.nn.Linear(hidden, dim)

    def g(self, x):
        return 0.3 * self.b(torch.tanh(self.a(x)))

    def forward(self, x, reverse=False):
        if not reverse:
            return {"z": x + self.g(x), "log_det": x.sum(1), "norm": 1.0}
        y = x
        for _ in range(60):
            x = y - self.g(x)
        return x

class Image(torch.nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.convolution = torch.nn.Conv2d(channels, channels, 3, padding=1, dtype=torch.float64)

    def g(self, x):  # of another meaning than F - id
        return x

    def forward(self, x):
        return x + 0.1 * torch.tanh(self.convolution(x)), 0.0, 0.0

class Conditional(torch.nn.Module):  # an event of 3 numbers is read as well, by broadcasting
    def __init__(self, dim, context_dim):
        super().__init__()
        self.half = dim // 2
        self.net = torch.nn.Linear(self.half + context_dim, dim - self.half)

    def forward(self, x, c):
        a, b = x[:, : self.half], x[:, self.half :]
        return torch.cat([a, b + self.net(torch.cat([a, c], 1))], 1)

class Configured(torch.nn.Module):
    def __init__(self, config):
        super().__init__()

def made():
    return Flow(5, 3)
"""
PLAIN = """
import {numpy} as np

def forward(x):
    return x + 0.5 * np.tanh(x)

def inverse(y):
    x = y
    for _ in range(60):
        x = y - 0.5 * np.tanh(x)
    return x

def log_det(x):
    return np.log1p(0.5 * (1 - np.tanh(x) ** 2)).sum(1)
"""
CASES = {
    "torch class, a dictionary, a switch": (TORCH, "my_model.py:Flow", [
        "network = Flow(dim=2)", "return out['z'], out['log_det']", "inverse=lambda y: network(y, reverse=True),",
        "residual=network.g,", "event_shape=(2,),", "dtype='float32',", "# lipschitz=",
    ]),
    "a function that makes one": (TORCH, "my_model.py:made", ["network = made()", "event_shape=(5,),"]),
    "images, a longer tuple": (TORCH, "my_model.py:Image", [
        "network = Image(channels=3)", "event_shape=(3, 8, 8),", "height and width are guessed: put in yours",
    ]),
    "conditional": (TORCH, "my_model.py:Conditional", ["event_shape=(2,),", "context_shape=(2,),", "dtype='float32',"]),
    "NumPy functions": (PLAIN.format(numpy="numpy"), "my_model.py", ["framework='numpy'", "inverse=inverse,", "log_det=log_det,"]),
    "JAX functions": (PLAIN.format(numpy="jax.numpy"), "my_model.py:forward", ["framework='jax'", "dtype='float32'", "inverse=inverse,"]),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_what_init_writes_is_read_and_comes_back(name: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, spec, expected = CASES[name]
    if "jax" in text:
        pytest.importorskip("jax")
    stem = "model_" + "".join(c for c in name if c.isalpha())  # a module is imported once in a process
    (elsewhere / f"{stem}.py").write_text(text)
    assert cli.run(["init", spec.replace("my_model", stem), "--write", "adapter.py"]) == cli.PASSED
    written = Path("adapter.py").read_text("utf-8")
    for line in expected:
        assert line in written
    assert ("residual=" in written) == ("residual=network.g," in expected or "made" in spec)
    (subject,) = load("adapter.py:make_subject")
    report = audit(subject, budget="quick", select=["hygiene.readable", "inverse.recovers-input"])
    assert {c.status for c in report.checks} <= {"passed", "skipped"}
    assert report.checks[0].status == "passed"


@pytest.mark.parametrize(("spec", "said"), [
    ("my_model.py:Configured", "no value for its argument 'config' can be guessed; write a function without arguments"),
    ("nothing.py:Flow", "expected FILE.py:CLASS, FILE.py:FUNCTION or FILE.py, and no such file is there"),
    ("my_model.py:Absent", "has no factory 'Absent'"),
    ("my_model.py", "expected a function called forward, got made"),
    ("my-model.py:Flow", "expected a name such as my_model.py; rename it"),
])
def test_what_init_cannot_do_is_one_sentence(spec: str, said: str, elsewhere: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("my_model.py", "my-model.py"):
        (elsewhere / name).write_text(TORCH)
    assert cli.run(["init", spec]) == cli.UNUSABLE
    assert said in capfd.readouterr().err


def test_init_overwrites_nothing(elsewhere: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "my_model.py").write_text(TORCH)
    (elsewhere / "audit_my_model.py").write_text("mine")
    assert cli.run(["init", "my_model.py:Flow"]) == cli.UNUSABLE
    assert "audit_my_model.py exists" in capfd.readouterr().err
    assert (elsewhere / "audit_my_model.py").read_text() == "mine"
