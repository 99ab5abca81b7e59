"""What several gallery subjects share: scikit-learn's digits as data, a short maximum-likelihood training, its cache.

A network at its initialisation hides mistakes (J is nearly zero there), so the flows of the gallery are trained first.
Training is deterministic (fixed seeds, one thread) and leaves the global generators as it found them. Its result is
kept under `reports/cache/`, because each worker of an audit, and each reproduction, builds its subject anew.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import normflows as nf
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

CACHE = Path(__file__).resolve().parents[2] / "reports" / "cache"


def digits(d: int) -> NDArray[np.float64]:
    """(1797, d): the 64 pixels, dequantised and scaled to [0, 1], or their first d principal components."""
    pixels = (load_digits().data + np.random.default_rng(0).uniform(size=(1797, 64))) / 17
    if d == pixels.shape[1]:
        return pixels
    centred = pixels - pixels.mean(0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][:d].T


def seeded(build: Callable[[], torch.nn.Module], *, noise: float = 0.0, seed: int = 0) -> Any:
    """`build()` in float64 with normal noise on its parameters: away from initialisation, equal in every process."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build().double()
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model


def rows_of(data: NDArray[np.float64]) -> Callable[[int, np.random.Generator], NDArray[np.float64]]:
    """Where a trained flow's promises hold: rows of its data with noise, and standard normal rows."""

    def inputs(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        real = data[rng.integers(len(data), size=n)] + rng.normal(scale=0.05, size=(n, data.shape[1]))
        return np.where(rng.uniform(size=(n, 1)) < 0.75, real, rng.normal(size=real.shape))

    return inputs


def trained(
    name: str, build: Callable[[], torch.nn.Module], data: NDArray[np.float64], *, steps: int, seed: int = 0,
    batch: int = 128, after_step: Callable[[torch.nn.Module], None] = lambda model: None,
) -> torch.nn.Module:
    """`build()` in float64 after `steps` steps of Adam on −mean log_prob, or the same from the cache."""
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002  (what packages draw from)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (the same)
    try:
        model = build().double()
        file = CACHE / f"{name}-{seed}-{_key(model, data, steps, batch)}.pt"
        if file.exists():
            model.load_state_dict(torch.load(file, weights_only=True))
            return model
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        rows = torch.as_tensor(data)
        for _ in range(steps):
            optimiser.zero_grad()
            (-model.log_prob(rows[torch.randint(len(rows), (batch,))]).mean()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimiser.step()
            after_step(model)
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        torch.save(model.state_dict(), unfinished)
        unfinished.replace(file)
        return model
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002  (the same)
        random.setstate(kept[2])


def trained_residual_flow(
    d: int, blocks: int, seed: int = 0,
) -> tuple[Any, NDArray[np.float64], float, Callable[[], None]]:
    """(flow, data, bound on Lip(g) of each block, refresh): normflows' residual flow with the package's defaults.

    `LipschitzMLP` with three layers, each claimed ≤ 0.97-Lipschitz; `update_lipschitz` with its default number of
    power iterations, 5, after each step of the training.
    """

    def build() -> torch.nn.Module:
        layers = [nf.flows.Residual(nf.nets.LipschitzMLP([d, 64, 64, d])) for _ in range(blocks)]
        return nf.NormalizingFlow(nf.distributions.DiagGaussian(d, trainable=False), layers)

    data = digits(d)
    flow = trained(f"normflows-residual-{d}-{blocks}", build, data, steps=300 if d < 8 else 150, seed=seed,
                   after_step=lambda model: nf.utils.update_lipschitz(model, 5))
    return flow, data, 0.97**3, lambda: nf.utils.update_lipschitz(flow, 5)


def _key(model: torch.nn.Module, data: NDArray[np.float64], steps: int, batch: int) -> str:
    """Changes with this file, the model, the data and the version of torch."""
    parts = (Path(__file__).read_bytes(), repr(model).encode(), data.tobytes(), f"{steps} {batch}".encode(),
             torch.__version__.encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]
