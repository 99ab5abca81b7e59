"""Correct maps of many kinds: the checks of maps must accept every one of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iresnet_verify import Subject
from iresnet_verify.mutants import bounds, convolutions
from iresnet_verify.mutants.inverse.round_trips import Slow
from iresnet_verify.mutants.networks import Effective, Frozen, Residual, banach, dtype_of, mlp


def linear(d: int = 3, seed: int = 0, norm: float = 0.9) -> Subject:
    """A correct NumPy subject: g(x) = Ax with ‖A‖₂ = norm, the inverse by a solve."""
    rng = np.random.default_rng(seed)
    u, _ = np.linalg.qr(rng.standard_normal((d, d)))
    v, _ = np.linalg.qr(rng.standard_normal((d, d)))
    A = u @ np.diag(np.linspace(norm, 0.1, d)) @ v.T
    eye = np.eye(d)
    return Subject(name="linear", event_shape=(d,), forward=lambda x: x + x @ A.T, residual=lambda x: x @ A.T,
                   inverse=lambda y: np.linalg.solve(eye + A, y.T).T, lipschitz=norm, inverse_tolerance=1e-12,
                   framework="numpy")


def coupling(d: int = 4, seed: int = 0, dtype: str = "float64") -> Subject:
    """A correct affine coupling without a Lipschitz claim, in NumPy."""
    rng = np.random.default_rng(seed)
    h = d // 2
    kind = np.dtype(dtype)
    a, b = (rng.standard_normal((h, d - h)).astype(kind) for _ in range(2))

    def parts(x: Any) -> tuple[Any, Any]:
        if x.shape[1] != d:  # NumPy would repeat a last part of one column
            raise ValueError(f"expected {d} columns, got {x.shape[1]}")
        return np.tanh(x[:, :h] @ a), np.sin(x[:, :h] @ b)

    def forward(x: Any) -> Any:
        s, t = parts(x)
        return np.concatenate([x[:, :h], x[:, h:] * np.exp(s) + t], axis=1)

    def inverse(y: Any) -> Any:
        s, t = parts(y)
        return np.concatenate([y[:, :h], (y[:, h:] - t) * np.exp(-s)], axis=1)

    return Subject(name="coupling", event_shape=(d,), forward=forward, inverse=inverse, framework="numpy", dtype=dtype)


class Kinked(Residual):
    def g(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.first.T + self.shift) @ self.last.T


def relu(d: int = 3, seed: int = 0, dtype: str = "float64") -> Subject:
    """A correct subject with kinks: g = W₂ relu(W₁x + b)."""
    return mlp(d, seed, dtype, module=Kinked(d, 0.9, seed, dtype_of(dtype)))


def boxed(seed: int = 0) -> Subject:
    """A correct subject whose promises hold on [−1, 1]³ only: g(x) = .45x² there, steeper outside."""
    del seed
    return Subject(name="boxed", event_shape=(3,), forward=lambda x: x + 0.45 * x**2, residual=lambda x: 0.45 * x**2,
                   inverse=lambda y: 2 * y / (1 + np.sqrt(np.maximum(0.0, 1 + 1.8 * y))), lipschitz=0.9,
                   inverse_tolerance=1e-9, inputs=lambda n, rng: rng.uniform(-1.0, 1.0, (n, 3)), framework="numpy")


def squashed(seed: int = 0, dtype: str = "float64") -> Subject:
    """A correct element-wise logistic map onto (0, 1)³, ill-conditioned where it saturates."""
    del seed
    return Subject(name="squashed", event_shape=(3,), forward=lambda x: 1 / (1 + np.exp(-x)),
                   inverse=lambda y: np.log(y) - np.log1p(-y), framework="numpy", dtype=dtype,
                   inputs=lambda n, rng: 4.0 * rng.standard_normal((n, 3)))


def identity(seed: int = 0) -> Subject:
    """The identity, on inputs with few bits."""
    del seed
    return Subject(name="identity", event_shape=(2, 3), forward=lambda x: x.copy(), inverse=lambda y: y.copy(),
                   residual=np.zeros_like, lipschitz=1e-9, inverse_tolerance=1e-16, framework="numpy",
                   inputs=lambda n, rng: rng.integers(0, 17, (n, 2, 3)).astype(float))


def images(seed: int = 0) -> Subject:
    """A correct convolutional residual block on 1×4×4 images with integer pixels, two of them always 0."""
    made = torch.Generator().manual_seed(seed)
    kernel = torch.randn(1, 1, 3, 3, generator=made, dtype=torch.float64)
    kernel = 0.8 * kernel / kernel.abs().sum()  # ‖K‖₁ bounds the norm of the convolution
    shift = torch.randn(1, 4, 4, generator=made, dtype=torch.float64)

    def g(x: Tensor) -> Tensor:
        return torch.nn.functional.elu(torch.nn.functional.conv2d(x, kernel, padding=1) + shift)

    def inputs(n: int, rng: np.random.Generator) -> Any:
        x = rng.integers(0, 17, (n, 1, 4, 4)).astype(float)
        x[:, 0, 0, :2] = 0.0
        return x

    def inverse(y: Tensor) -> Tensor:
        x = y
        for _ in range(150):  # .8¹⁵⁰ < 3e-15
            x = y - g(x)
        return x

    return Subject(name="images", event_shape=(1, 4, 4), forward=lambda x: x + g(x), inverse=inverse, residual=g,
                   lipschitz=0.8, inverse_tolerance=1e-11, inputs=inputs)


def flow(seed: int = 0, dtype: str = "float64") -> Subject:
    """A correct composition of three residual networks and a diagonal scale, without a Lipschitz claim."""
    blocks = nn.ModuleList(Residual(3, 0.9, 10 * seed + k, dtype_of(dtype)) for k in range(3))
    scale = torch.tensor([-2.0, 0.5, 1.5], dtype=dtype_of(dtype))

    def forward(x: Tensor) -> Tensor:
        for block in blocks:
            x = block(x) * scale
        return x

    def inverse(y: Tensor) -> Tensor:
        for block in reversed(blocks):
            assert isinstance(block, Residual)
            y = block.inverse(y / scale)
        return y

    return Subject(name="flow", event_shape=(3,), forward=forward, inverse=inverse, module=blocks, dtype=dtype,
                   modes=("eval",))


def reports_far_away(seed: int = 0) -> Subject:
    """The honest version of it: NaN beyond 30."""
    module = Residual(3, 0.9, seed, torch.float64)

    def inverse(y: Tensor) -> Tensor:
        far = (y.abs() > 30.0).any(dim=1, keepdim=True)
        return torch.where(far, torch.full_like(y, float("nan")), module.inverse(y.clamp(-30.0, 30.0)))

    return mlp(3, seed, inverse=inverse, module=module)


def raises_failure(seed: int = 0) -> Subject:
    """The honest version of it: an exception when 60 steps do not suffice."""
    module = Slow(3, 0.95, seed, torch.float64)

    def inverse(y: Tensor) -> Tensor:
        x = banach(module.g, y, 0.95, most=60)
        if bool(((y - x - module.g(x)).norm(dim=1) > 1e-10 * y.norm(dim=1).clamp(min=1)).any()):
            raise ArithmeticError("60 steps do not suffice")
        return x

    return mlp(3, seed, lipschitz=0.95, inverse=inverse, module=module, inverse_tolerance=1e-8)


def warns_failure(seed: int = 0) -> Subject:
    """The mild version of it: a warning."""
    subject = raises_failure(seed)
    assert isinstance(subject.module, Slow)

    def inverse(y: Tensor) -> Tensor:
        x = banach(subject.module.g, y, 0.95, most=60)
        if bool(((y - subject.module(x)).norm(dim=1) > 1e-10 * y.norm(dim=1).clamp(min=1)).any()):
            warnings.warn("the fixed-point iteration has not converged", RuntimeWarning, stacklevel=2)
        return x

    return mlp(3, seed, lipschitz=0.95, inverse=inverse, module=subject.module, inverse_tolerance=1e-8)


def refreshed(seed: int = 0) -> Subject:
    """Its bound holds after `refresh`."""
    module = Frozen(3, 0.9, seed, torch.float64)
    return mlp(3, seed, module=module, refresh=module.renew, lipschitz_holds="after-refresh")


def always(seed: int = 0) -> Subject:
    """Its bound holds at every moment."""
    return mlp(3, seed, module=Effective(3, 0.9, seed, torch.float64), lipschitz_holds="always")


CORRECT: dict[str, Callable[[int], Subject]] = {
    "mlp d=2": lambda s: mlp(2, s),
    "mlp d=3 float32": lambda s: mlp(3, s, "float32"),
    "mlp d=8": lambda s: mlp(8, s),
    "mlp L=.99": lambda s: mlp(3, s, lipschitz=0.99),
    "mlp without residual": lambda s: mlp(3, s, residual=None),
    "mlp without claims": lambda s: replace(mlp(3, s), lipschitz=None, inverse_tolerance=None, residual=None),
    "bound attained": lambda s: bounds.attained(1.0, s),
    "bound attained float32": lambda s: bounds.attained(1.0, s, "float32"),
    "kinks": lambda s: relu(3, s),
    "linear d=3, L=.9": lambda s: linear(3, s),
    "linear d=2, L=.99": lambda s: linear(2, s, 0.99),
    "coupling": lambda s: coupling(5, s),
    "coupling float32": lambda s: coupling(4, s, "float32"),
    "box": boxed,
    "saturating": squashed,
    "saturating float32": lambda s: squashed(s, "float32"),
    "identity": identity,
    "convolution divided by its norm": convolutions.normalised_by(convolutions.true_norm),
    "images": images,
    "composition": flow,
    "composition float32": lambda s: flow(s, "float32"),
    "reports far away": reports_far_away,
    "raises": raises_failure,
    "warns": warns_failure,
    "after refresh": refreshed,
    "always": always,
}

__all__ = ["mlp"]
