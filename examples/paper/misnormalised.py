"""What can go wrong: "spectrally normalised" convolutions that are not, and how the audit sees it.

    python examples/paper/misnormalised.py                                 trains both, prints the table
    iresnet-verify audit examples/paper/misnormalised.py:misnormalised     fails
    iresnet-verify audit examples/paper/misnormalised.py:certified         passes

Two i-ResNet blocks of one shape (kernels 3, 1, 3 on 8×8 digits) are trained on the same task, which of ten digits an image
shows, with Lip(g) ≤ .9 claimed. The first divides its convolutions by `torch.nn.utils.parametrizations.spectral_norm`, the way
they are usually written: the norm of the kernel *reshaped to a matrix*, by one power iteration a step. That is not the
norm of the convolution, which may be larger by a factor up to the number of taps that can line up. The second is this
library's: every step divides by a *proved* bound of the operator on its image. In both every linear layer is meant to have norm ≤ .9^(1/3).
Training looks alike; the first network's inverse is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _data import CACHE, digits
from _running import parser, write
from torch import nn

import iresnet_ref as ir
from iresnet_ref.training import minibatch
from iresnet_ref.training.classifier import Classifier
from iresnet_ref.training.loop import Settings, fit, start
from iresnet_ref.training.losses import classification
from iresnet_verify import Subject

CLAIMED, SHARE = 0.9, 0.9 ** (1.0 / 3.0)
CHANNELS, STEPS, BATCH, RATE = 8, 300, 64, 1e-2
EVENT = (1, 8, 8)


def inputs(n: int, rng: np.random.Generator) -> Any:
    """Rows of the data, dequantised."""
    data = digits()
    rows = data.x[rng.integers(len(data), size=n)]
    return (rows * 16.0 + rng.uniform(size=rows.shape)) / 17.0


class UsuallyNormalised(nn.Module):
    """Lip(g) ≤ .9, it is believed."""

    def __init__(self) -> None:
        super().__init__()
        sides = ((1, CHANNELS, 3), (CHANNELS, CHANNELS, 1), (CHANNELS, 1, 3))
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(i, o, k, padding=k // 2)) for i, o, k in sides
        )

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """g(x), each layer times .9^(1/3)."""
        for i, layer in enumerate(self.layers):
            x = SHARE * layer(torch.nn.functional.elu(x) if i else x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x + g(x)."""
        return x + self.residual(x)

    def inverse(self, y: torch.Tensor) -> torch.Tensor:
        """The fixed point of x = y − g(x) after the 200 iterations that .9^200 = 7e-10 asks for."""
        x = y
        for _ in range(200):
            x = y - self.residual(x)
        return x


def trained_as_usual(steps: int = STEPS) -> tuple[UsuallyNormalised, nn.Linear]:
    """The block and the linear classifier behind it, trained by autograd and Adam."""
    data = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block, head = UsuallyNormalised().double(), nn.Linear(64, 10).double()

        def train() -> dict[str, Any]:
            optimiser = torch.optim.Adam([*block.parameters(), *head.parameters()], lr=RATE)
            for step in range(steps):
                rows = minibatch(len(data), BATCH, step)
                logits = head(block(torch.as_tensor(data.x[rows])).flatten(1))
                optimiser.zero_grad()
                nn.functional.cross_entropy(logits, torch.as_tensor(data.labels[rows])).backward()
                optimiser.step()
            both = {"block": block, "head": head}
            return {f"{k}.{n}": p.numpy() for k, module in both.items() for n, p in module.state_dict().items()}

        state = {k: torch.as_tensor(p) for k, p in _kept(f"usual-{steps}", train).items()}
        for prefix, module in (("block.", block), ("head.", head)):
            module.load_state_dict({k.removeprefix(prefix): p for k, p in state.items() if k.startswith(prefix)})
    return block.eval(), head


def trained_certified(steps: int = STEPS) -> Classifier:
    """The same network and the same task, Lip(g) ≤ .9 proved after every step."""
    data = digits()
    branch = ir.convnet(EVENT, channels=CHANNELS, kernels=(3, 1, 3), activation="elu", lipschitz=CLAIMED)
    fresh = Classifier.with_zero_head([ir.ResidualBlock(branch)], 10)

    def loss(model: Classifier, step: int) -> Any:
        rows = minibatch(len(data), BATCH, step)
        return classification(model, data.x[rows], data.labels[rows])

    def train() -> dict[str, Any]:
        return fit(start(fresh, lipschitz=CLAIMED, settings=Settings(learning_rate=RATE)), loss, steps).model.parameters()

    return fresh.with_parameters(_kept(f"certified-{steps}", train))


def _kept(name: str, train: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `train` gives, kept under reports/cache/: every worker of an audit builds its subject anew."""
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    file = CACHE / f"{name}-{key}.npz"
    if not file.exists():
        arrays = train()
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished.npz")
        np.savez(unfinished, **arrays)
        unfinished.replace(file)
    with np.load(file) as found:
        return dict(found)


def misnormalised() -> Subject:
    """The claims that everybody would make of it."""
    block, _ = trained_as_usual()
    return Subject(
        name="divided by the norm of the reshaped kernel", event_shape=EVENT, forward=block, inverse=block.inverse,
        residual=block.residual, lipschitz=CLAIMED, module=block, inputs=inputs, modes=("eval",),
    )


def certified() -> Subject:
    """The same claims, and the log-determinant."""
    block = trained_certified().steps.steps[0].block
    return Subject(
        name="divided by a proved norm", event_shape=EVENT, forward=block, residual=block.branch, lipschitz=CLAIMED, inputs=inputs,
        inverse=lambda y: ir.invert(block, y, rtol=1e-12).x, log_det=lambda x: ir.logdet(block, x, method="exact").value,
        framework="numpy",
    )


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Train both; print accuracy, the largest ‖J_g(x)‖₂ found on the data beside the claim, and the error of the inverse."""
    options = parser("Convolutions that are believed to be normalised, beside certified ones.", steps=STEPS).parse_args(arguments)
    data, x = digits(), inputs(256, np.random.default_rng(options.seed))
    rows: list[dict[str, Any]] = []
    usual, head = trained_as_usual(options.steps)
    with torch.no_grad():
        z = torch.as_tensor(x)
        right = head(usual(torch.as_tensor(data.x)).flatten(1)).argmax(1).numpy() == data.labels
        error = (usual.inverse(usual(z)) - z).flatten(1).norm(dim=1).max().item()
    jacobians = torch.func.vmap(torch.func.jacrev(lambda event: usual.residual(event[None])[0].flatten()))(z)
    found = torch.linalg.matrix_norm(jacobians.reshape(-1, 64, 64), 2).max().item()
    rows.append(_row("the reshaped kernel's", right, found, error))
    model = trained_certified(options.steps)
    block = model.steps.steps[0].block
    inverse = ir.invert(block, block(x), rtol=1e-12)
    found = np.linalg.norm(block.branch.linearize(x)[1].dense(), 2, axis=(1, 2)).max()
    error = np.linalg.norm((inverse.x - x).reshape(len(x), -1), axis=1).max()
    rows.append(_row("the operator's, proved", model(data.x).argmax(1) == data.labels, found, error))
    write(options.folder, "misnormalised", rows, claimed=CLAIMED, steps=options.steps)
    return rows


def _row(norm: str, right: Any, found: float, error: float) -> dict[str, Any]:
    return {
        "divided by the norm": norm, "training accuracy": f"{100 * right.mean():.1f} %", "Lip(g) claimed": CLAIMED,
        "largest ‖J_g(x)‖₂ seen": float(found), "largest error of the inverse": float(error),
    }


if __name__ == "__main__":
    main()
