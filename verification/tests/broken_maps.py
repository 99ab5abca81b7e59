"""Small residual networks for the tests of the checks about the map and its inverse: correct ones, and each mistake once.

A correct one is `mlp(...)`: g = W₂ tanh(W₁x + b₁) + b₂ with every ‖W‖₂ set by an SVD, so Lip(g) ≤ L exactly (to
rounding); its inverse is the Banach iteration, stopped by ‖r‖/(1−L). The broken ones replace
one thing each.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iresnet_verify import Subject

TOLERANCE = {"float64": 1e-10, "float32": 1e-3}


class Residual(nn.Module):
    """x + g(x) with g a two-layer perceptron of spectral norms √L each."""

    def __init__(self, d: int, lipschitz: float, seed: int, dtype: torch.dtype, hidden: int = 16) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(_scaled(torch.randn(hidden, d, generator=made, dtype=torch.float64), lipschitz).to(dtype))
        self.last = nn.Parameter(_scaled(torch.randn(d, hidden, generator=made, dtype=torch.float64), lipschitz).to(dtype))
        self.shift = nn.Parameter(torch.randn(hidden, generator=made, dtype=torch.float64).to(dtype))
        self.lipschitz = lipschitz

    def g(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.first.T + self.shift) @ self.last.T

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)

    def inverse(self, y: Tensor) -> Tensor:
        return banach(self.g, y, self.lipschitz)


def _scaled(w: Tensor, lipschitz: float) -> Tensor:
    return w * (lipschitz**0.5 / torch.linalg.matrix_norm(w, 2))


def banach(g: Any, y: Tensor, lipschitz: float, most: int = 3000) -> Tensor:
    """Iterate x ← y − g(x) until ‖r‖ ≤ (1−L)·tol·max(1, ‖y‖), tol a hundredth of what the subjects here promise."""
    x = y.clone()
    wanted = 1e-2 * TOLERANCE[str(y.dtype).removeprefix("torch.")] * y.norm(dim=1).clamp(min=1)
    for _ in range(most):
        step = y - g(x) - x
        x = x + step
        if bool((step.norm(dim=1) <= (1 - lipschitz) * wanted).all()):
            break
    return x


def _dtype(name: str) -> torch.dtype:
    return torch.float32 if name == "float32" else torch.float64


def mlp(d: int = 3, seed: int = 0, dtype: str = "float64", lipschitz: float = 0.9, **fields: Any) -> Subject:
    """A correct subject with every field that these checks read."""
    module = fields.pop("module", None) or Residual(d, lipschitz, seed, _dtype(dtype))
    given = {
        "name": f"mlp{d}", "event_shape": (d,), "forward": module, "inverse": module.inverse, "residual": module.g,
        "lipschitz": lipschitz, "inverse_tolerance": TOLERANCE[dtype], "module": module, "dtype": dtype,
        "modes": ("eval",),
    }
    return Subject(**{**given, **fields})


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
    return mlp(d, seed, dtype, module=Kinked(d, 0.9, seed, _dtype(dtype)))


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
    blocks = nn.ModuleList(Residual(3, 0.9, 10 * seed + k, _dtype(dtype)) for k in range(3))
    scale = torch.tensor([-2.0, 0.5, 1.5], dtype=_dtype(dtype))

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


# -- mistakes of the inverse


def five_iterations(seed: int = 0) -> Subject:
    """Five steps whatever the input."""
    module = Residual(3, 0.9, seed, torch.float64)
    return mlp(3, seed, inverse=lambda y: banach(module.g, y, 0.9, most=5), module=module)


def squared_step(seed: int = 0) -> Subject:
    """Stops when the *squared* step is below the tolerance: the error is about its square root."""
    module = Residual(3, 0.9, seed, torch.float64)

    def inverse(y: Tensor) -> Tensor:
        x = y.clone()
        for _ in range(3000):
            step = y - module.g(x) - x
            x = x + step
            if bool((step.square().sum(dim=1) <= 1e-12).all()):
                break
        return x

    return mlp(3, seed, inverse=inverse, inverse_tolerance=1e-12, module=module)


def garbage_far_away(seed: int = 0) -> Subject:
    """Bisection-like clamping: beyond 30 the answer is clipped, without a word."""
    module = Residual(3, 0.9, seed, torch.float64)
    return mlp(3, seed, inverse=lambda y: module.inverse(y.clamp(-30.0, 30.0)), module=module)


def reports_far_away(seed: int = 0) -> Subject:
    """The honest version of it: NaN beyond 30."""
    module = Residual(3, 0.9, seed, torch.float64)

    def inverse(y: Tensor) -> Tensor:
        far = (y.abs() > 30.0).any(dim=1, keepdim=True)
        return torch.where(far, torch.full_like(y, float("nan")), module.inverse(y.clamp(-30.0, 30.0)))

    return mlp(3, seed, inverse=inverse, module=module)


class Slow(Residual):
    """Beyond 14, far from typical inputs, g' goes from ±.3 to −.95 and the iteration is slow there alone."""

    def g(self, x: Tensor) -> Tensor:
        return 0.3 * torch.sin(x) - 0.65 * torch.nn.functional.softplus(x - 14.0)


def hides_failure(seed: int = 0) -> Subject:
    """At most 60 steps, and silence when they do not suffice; typical inputs never need them."""
    module = Slow(3, 0.95, seed, torch.float64)
    return mlp(3, seed, lipschitz=0.95, inverse=lambda y: banach(module.g, y, 0.95, most=60), module=module,
               inverse_tolerance=1e-8)


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


def wrong_sign(seed: int = 0) -> Subject:
    """Iterates x ← y + g(x)."""
    module = Residual(3, 0.9, seed, torch.float64)
    return mlp(3, seed, inverse=lambda y: banach(lambda x: -module.g(x), y, 0.9), module=module)


def single_inside(seed: int = 0) -> Subject:
    """A float64 inverse that computes in float32."""
    module = Residual(3, 0.9, seed, torch.float64)
    narrow = Residual(3, 0.9, seed, torch.float32)
    return mlp(3, seed, inverse=lambda y: narrow.inverse(y.float()).double(), inverse_tolerance=None, module=module)


def cached(seed: int = 0) -> Subject:
    """The inverse answers with the input of the last forward call, whatever it is asked."""
    module = Residual(3, 0.9, seed, torch.float64)
    last: dict[str, Tensor] = {}

    def forward(x: Tensor) -> Tensor:
        last["x"] = x.clone()
        return module(x)

    return mlp(3, seed, forward=forward, inverse=lambda y: last["x"].clone() if last["x"].shape == y.shape else
               module.inverse(y), module=module)


# -- mistakes of the bound


def attained(factor: float, seed: int = 0, dtype: str = "float64") -> Subject:
    """g(x) = .9·factor·Q tanh(Qᵀx + b), norm .9·factor in one point; claimed .9: true for factor 1, to the last digit."""
    module = _steeper(Residual(3, 0.9, seed, torch.float64), factor).to(_dtype(dtype))
    return mlp(3, seed, dtype, module=module, inverse=None)


def jump(seed: int = 0) -> Subject:
    """g jumps by .3 across a plane: its Jacobian is small wherever it exists."""
    module = Residual(3, 0.5, seed, torch.float64)

    def g(x: Tensor) -> Tensor:
        return module.g(x) + 0.3 * (x[:, :1] > 0.2).to(x.dtype)

    return Subject(name="jump", event_shape=(3,), forward=lambda x: x + g(x), residual=g, lipschitz=0.9)


def one_power_iteration(seed: int = 0) -> Subject:
    """Normalised by one power iteration: claimed .9, in truth about 1.2."""
    module = Residual(8, 0.9, seed, torch.float64)
    return mlp(8, seed, lipschitz=0.9, module=_steeper(module, 1.2 / 0.9), inverse=None)


def _steeper(module: Residual, factor: float) -> Residual:
    """Make the layers a rotation and its transpose, so that the norm is attained at the bias, times `factor`."""
    with torch.no_grad():
        q, _ = torch.linalg.qr(module.first.T)  # (d, d) where hidden ≥ d
        module.first.zero_()
        module.first[: q.shape[0]] = q.T * (factor * module.lipschitz) ** 0.5
        module.last.zero_()
        module.last[:, : q.shape[0]] = q * (factor * module.lipschitz) ** 0.5
    return module


def small_region(seed: int = 0) -> Subject:
    """‖J_g‖ ≤ .9 but in a small region, where it reaches 1; the slope leads there."""
    rng = np.random.default_rng(seed)
    w = torch.tensor(rng.standard_normal(6))
    w = w / w.norm()

    def g(x: Tensor) -> Tensor:
        s = x @ w
        away = (x - s[:, None] * w).square().sum(dim=1)
        bump = 0.09 * torch.erf((s - 2.5) / 0.4) * torch.exp(-0.5 * away)
        return (0.75 * torch.sin(0.2 * (s - 2.5)) / 0.2 + bump)[:, None] * w

    return Subject(name="small region", event_shape=(6,), forward=lambda x: x + g(x), residual=g, lipschitz=0.9)


def scaled_skip(seed: int = 0) -> Subject:
    """F(x) = 1.5x + g(x): the bound is that of a g which is not F − id."""
    module = Residual(3, 0.9, seed, torch.float64)
    return mlp(3, seed, forward=lambda x: 1.5 * x + module.g(x), module=module, inverse=None)


def folded(d: int = 3, seed: int = 0) -> Subject:
    """A plain residual network with norm 3 and no claim: not injective."""
    module = _steeper(Residual(d, 3.0, seed, torch.float64), 1.0)
    with torch.no_grad():
        module.last.neg_()
    return Subject(name="folded", event_shape=(d,), forward=module, module=module, modes=("eval",))


class Frozen(Residual):
    """Normalised by `renew` alone, or never."""

    def renew(self) -> None:
        with torch.no_grad():
            for w in (self.first, self.last):
                w.copy_(_scaled(w, self.lipschitz))


class Effective(Residual):
    """Normalised at every use."""

    def g(self, x: Tensor) -> Tensor:
        first, last = _scaled(self.first, self.lipschitz), _scaled(self.last, self.lipschitz)
        return torch.tanh(x @ first.T + self.shift) @ last.T


def claims(kind: str, seed: int = 0) -> Subject:
    """Correct for ("refresh", "always"), broken for ("stale", "pretends")."""
    module = (Effective if kind == "always" else Frozen)(3, 0.9, seed, torch.float64)
    if kind == "refresh":
        return mlp(3, seed, module=module, refresh=module.renew, lipschitz_holds="after-refresh")
    if kind == "stale":
        return mlp(3, seed, module=module, refresh=lambda: None, lipschitz_holds="after-refresh")
    return mlp(3, seed, module=module, lipschitz_holds="always")
