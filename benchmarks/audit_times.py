"""What an audit costs: `python benchmarks/audit_times.py [mlp:quick] [mlp:standard] [convolution:standard] … [--checks 12] [--workers 2]`.

Prints for each audit the CPU and wall seconds in one process, beyond importing torch and the catalogue, and the most expensive
checks in CPU seconds; with `--workers` also the wall seconds of the isolated audit in so many processes, beside those of
one that audits next to nothing: starting the processes and importing the framework in them. Set OMP_NUM_THREADS=1 and
OPENBLAS_NUM_THREADS=1. Wall seconds mean something on an idle machine only.

mlp          torch, d = 64, 128 hidden units, ELU, both modes, with exact log-det, density and samples
convolution  torch, 3×16×16, kernels 3-1-3 with 8 channels, ELU, both modes, with exact log-det by slogdet of 768 × 768
block        torch, 3×32×32, kernels 3-1-3 with 64 channels, ELU, both modes, forward, inverse and residual: d = 3072
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn import functional

from iresnet_verify import Subject

L = 0.9


def slope(h: Tensor) -> Tensor:
    """ELU′ at h."""
    return torch.exp(h.clamp(max=0.0))


class Residual(nn.Module):
    """x + g(x), inverted by Banach's iteration until a step is rounding."""

    def g(self, x: Tensor) -> Tensor:
        """Return g(x): the two networks below say which."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return x + g(x)."""
        return x + self.g(x)

    def inverse(self, y: Tensor) -> Tensor:
        """Return x with x + g(x) = y."""
        x, rounding = y, 1e-13 * max(1.0, float(y.abs().max()))
        for _ in range(400):
            x, before = y - self.g(x), x
            if bool((x - before).abs().max() < rounding):
                return x
        raise RuntimeError("the fixed-point iteration did not converge in 400 steps")


class Perceptron(Residual):
    """Two dense layers of norm √L each."""

    def __init__(self, d: int, hidden: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(d, hidden), nn.Linear(hidden, d)
        with torch.no_grad():
            for layer in (self.first, self.last):
                layer.weight.mul_(math.sqrt(L) / torch.linalg.matrix_norm(layer.weight, 2))

    def g(self, x: Tensor) -> Tensor:
        """Return W₂ elu(W₁x + b₁) + b₂."""
        return self.last(functional.elu(self.first(x)))

    def log_det(self, x: Tensor) -> Tensor:
        """Return log|det(I + W₂ D W₁)|."""
        J = self.last.weight @ (slope(self.first(x))[:, :, None] * self.first.weight)
        return torch.linalg.slogdet(J + torch.eye(x.shape[1], dtype=x.dtype))[1]


class Convolutions(Residual):
    """Convolutions 3×3, 1×1, 3×3, each divided by its norm on the grid (200 power iterations, 0.1 % of margin)."""

    def __init__(self, channels: int, width: int, grid: int) -> None:
        super().__init__()
        sizes = ((channels, width, 3), (width, width, 1), (width, channels, 3))
        self.layers = nn.ModuleList(nn.Conv2d(i, o, k, padding=k // 2) for i, o, k in sizes)
        self.event = (channels, grid, grid)
        with torch.no_grad():
            for layer in self.layers:
                v = torch.randn(1, layer.in_channels, grid, grid)
                for _ in range(200):
                    u = functional.conv2d(v, layer.weight, padding=layer.padding)
                    v = functional.conv_transpose2d(u, layer.weight, padding=layer.padding)
                    v = v / v.norm()
                norm = functional.conv2d(v, layer.weight, padding=layer.padding).norm()
                layer.weight.mul_(0.999 * L ** (1 / 3) / norm)

    def g(self, x: Tensor) -> Tensor:
        """Return K₃ ⋆ elu(K₂ ⋆ elu(K₁ ⋆ x + b₁) + b₂) + b₃."""
        first, middle, last = self.layers
        return last(functional.elu(middle(functional.elu(first(x)))))

    def log_det(self, x: Tensor) -> Tensor:
        """Return log|det(I + K₃ D₂ K₂ D₁ K₁)|, the columns of the product from the images of the basis, row by row."""
        first, middle, last = self.layers
        d = math.prod(self.event)
        basis = torch.eye(d, dtype=x.dtype)
        images = functional.conv2d(basis.reshape(d, *self.event), first.weight, padding=1)
        values = []
        for row in x:
            h = first(row[None])
            D1, D2 = slope(h), slope(middle(functional.elu(h)))
            columns = [functional.conv2d(D2 * functional.conv2d(D1 * part, middle.weight), last.weight, padding=1)
                       for part in images.split(64)]
            values.append(torch.linalg.slogdet(basis + torch.cat(columns).reshape(d, d))[1])
        return torch.stack(values)


def of(net: Residual, event: tuple[int, ...], name: str) -> Subject:
    """Return the subject around a network that has a `log_det`."""
    return Subject(name=name, event_shape=event, forward=net, inverse=net.inverse, residual=net.g, log_det=net.log_det,
                   lipschitz=L, module=net, inverse_tolerance=1e-9)


def mlp() -> Subject:
    """The perceptron as a density model: every promise that is cheap to make."""
    from dataclasses import replace

    torch.manual_seed(0)
    net = Perceptron(64, 128).double()

    def base(z: Tensor) -> Tensor:
        return -0.5 * (z * z).sum(1) - 32 * math.log(2 * math.pi)

    return replace(of(net, (64,), "MLP, d = 64"), log_prob=lambda x: base(net(x)) + net.log_det(x), base_log_prob=base,
                   sample=lambda n: net.inverse(torch.randn(n, 64, dtype=torch.float64)))


def convolution() -> Subject:
    """The convolutional block."""
    torch.manual_seed(0)
    return of(Convolutions(3, 8, 16).double(), (3, 16, 16), "convolutions, 3×16×16")


def block() -> Subject:
    """A block of a residual network of images."""
    from dataclasses import replace

    torch.manual_seed(0)
    return replace(of(Convolutions(3, 64, 32).double(), (3, 32, 32), "convolutions, 3×32×32, 64 channels"), log_det=None)


SUBJECTS: dict[str, Callable[[], Subject]] = {"mlp": mlp, "convolution": convolution, "block": block}


def in_one_process(name: str, budget: str, checks: int) -> None:
    """Print the seconds of one audit, check by check as they end on standard error, the most expensive at the end."""
    from iresnet_verify import audit, catalogue
    from iresnet_verify.check.result import CheckResult

    catalogue.load()
    x = torch.ones(1, requires_grad=True)
    torch.autograd.grad(2 * x, x, torch.ones(1))  # torch imports sympy for its first given cotangent, .7 s
    subject, spent = SUBJECTS[name](), dict[str, float]()
    start = last = time.process_time()
    wall = time.perf_counter()

    def ended(result: CheckResult) -> None:
        nonlocal last
        last, before = time.process_time(), last
        spent[result.id] = last - before
        print(f"    {result.id} {result.status}: {spent[result.id]:.2f} s of CPU", file=sys.stderr, flush=True)

    report = audit(subject, budget=budget, on_result=ended)
    passed = time.perf_counter() - wall
    print(f"{subject.name}, {budget}: {report.status}; {last - start:.1f} s of CPU, {passed:.1f} s of wall in one process", flush=True)
    for check in sorted(spent, key=lambda id: -spent[id])[:checks]:
        print(f"    {spent[check]:7.2f}  {check}", flush=True)


def in_workers(name: str, budget: str, workers: int) -> None:
    """Print the wall seconds of the isolated audit, and of one that checks a single call."""
    from iresnet_verify.subject.loading import Origin
    from iresnet_verify.workers import isolated_audits as isolated
    from iresnet_verify.workers.worker import Job

    seconds = []
    for select in ((), ("hygiene.input-kept",)):
        with TemporaryDirectory() as folder:
            start = time.perf_counter()
            isolated.run([Job(Origin(__file__, name), budget=budget, select=select)], Path(folder), workers=workers)
            seconds.append(time.perf_counter() - start)
    print(f"    {seconds[0]:.1f} s of wall in {workers} processes, {seconds[1]:.1f} s for a single check", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("audits", nargs="*", default=["mlp:quick", "mlp:standard", "convolution:standard"])
    parser.add_argument("--checks", type=int, default=12)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for pair in given.audits:
        subject_name, _, level = pair.partition(":")
        in_one_process(subject_name, level or "standard", given.checks)
        if given.workers:
            in_workers(subject_name, level or "standard", given.workers)
