"""What the paper compares with, as published: RealNVP and FFJORD (a continuous flow with exact trace) by zuko, Glow by normflows."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import normflows as nf
import numpy as np
import torch
import zuko
from _learnt import CLIP, Learnt, rates
from _planar import Points

from iresnet_ref.training import minibatch

Flow = Any
COUPLINGS = 16
FREQUENCIES = 3
CHUNK = 8192
FINE = 1e-5
"""Tolerance of FFJORD's integration when the density is evaluated and samples are drawn."""


def realnvp(parameters: int) -> Flow:
    """Return affine couplings whose networks have two hidden layers, as wide as `parameters` allow."""
    return _widest(lambda h: zuko.flows.RealNVP(2, transforms=COUPLINGS, hidden_features=(h, h), activation=torch.nn.ELU), parameters)


class Glow(torch.nn.Module):
    """Glow in the plane, behind the calls of zuko's flows: each step is an ActNorm, an invertible linear map and an affine coupling.

    What normflows' GlowBlock is on images (Kingma, Dhariwal, *Glow*, NeurIPS 2018, arXiv 1807.03039, table 1), with a matrix W in the
    place of the 1×1 convolution, a random rotation at first. Couplings divide by sigmoid(· + 2) and start at zero weights.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        steps = []
        for _ in range(COUPLINGS):
            network = nf.nets.MLP([1, width, width, 2], init_zeros=True)
            coupling = nf.flows.AffineCouplingBlock(network, scale_map="sigmoid")
            steps += [coupling, nf.flows.InvertibleAffine(2, use_lu=False), nf.flows.ActNorm(2)]  # applied to data from right to left
        self.flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(2, trainable=False), steps)

    def forward(self) -> Glow:
        return self

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return self.flow.log_prob(x)

    def sample(self, shape: tuple[int]) -> torch.Tensor:
        return self.flow.sample(shape[0])[0]


def glow(parameters: int) -> Flow:
    """Return as many steps of Glow as RealNVP has couplings, whose networks have two hidden layers, as wide as `parameters` allow."""
    return _widest(Glow, parameters)


def ffjord(parameters: int) -> Flow:
    """Return dx/dt = f(t, x), f with two hidden layers, as wide as `parameters` allow."""
    return _widest(lambda h: zuko.flows.CNF(2, freqs=FREQUENCIES, hidden_features=(h, h), activation=torch.nn.Tanh), parameters)


PEERS: dict[str, Callable[[int], Flow]] = {"RealNVP": realnvp, "Glow": glow, "FFJORD": ffjord}


def size(flow: Flow) -> int:
    return sum(p.numel() for p in flow.parameters())


def _widest(make: Callable[[int], Flow], parameters: int) -> Flow:
    """Return the flow whose number of parameters is nearest."""
    width = 1
    while size(make(width + 1)) <= parameters:
        width += 1
    return min((make(width), make(width + 1)), key=lambda flow: abs(size(flow) - parameters))


def train(name: str, data: Points, parameters: int, options: argparse.Namespace) -> Learnt:
    """Train the peer on standardised data by Adam, in float32 as its package does."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    mean, scale = (torch.tensor(a, dtype=torch.float32) for a in (data.mean(0), data.std(0)))
    rows = (torch.tensor(data, dtype=torch.float32) - mean) / scale
    flow = PEERS[name](parameters)
    if name == "FFJORD":
        flow.transform.atol = flow.transform.rtol = options.tolerance
    optimiser = torch.optim.Adam(flow.parameters(), lr=options.learning_rate)
    begun, steps = time.process_time(), 0
    for steps, rate in enumerate(rates(options), 1):
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        batch = rows[torch.from_numpy(minibatch(len(rows), options.batch, steps, seed=options.seed))]
        (-flow().log_prob(batch).mean()).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
        optimiser.step()
    seconds = time.process_time() - begun
    flow = flow.double().eval()
    if name == "FFJORD":
        flow.transform.atol = flow.transform.rtol = FINE
    mean, scale = mean.double(), scale.double()

    def log_prob(x: Points) -> Points:
        with torch.no_grad():
            pieces = (torch.from_numpy(x[i : i + CHUNK]) for i in range(0, len(x), CHUNK))
            return np.concatenate([(flow().log_prob((p - mean) / scale) - scale.log().sum()).numpy() for p in pieces])

    def sample(n: int, seed: int) -> tuple[Points, float]:
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        torch.manual_seed(seed)
        handle = flow.transform.ode.register_forward_hook(count) if name == "FFJORD" else None
        with torch.no_grad():
            x = (flow().sample((n,)) * scale + mean).numpy()
        if handle is not None:
            handle.remove()
        return x, float(calls) if name == "FFJORD" else 1.0

    return Learnt(size(flow), steps, seconds, log_prob, sample)
