"""revtorch 0.2.4: RevNet blocks (additive couplings whose activations are recomputed in the backward pass).

The package has no method `inverse`: `backward_pass` returns the block's input beside the gradients. It also adds to
the parameters' gradients; with a zero upstream gradient it adds 0, and the adapter puts back what was there.
"""

from __future__ import annotations

import revtorch
import torch
from _training import seeded
from torch import nn

from iresnet_verify import Subject


def subject() -> Subject:
    def half() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 3))

    blocks = seeded(lambda: nn.ModuleList(revtorch.ReversibleBlock(half(), half()) for _ in range(3)), noise=0.1)
    net = revtorch.ReversibleSequence(blocks, eagerly_discard_variables=False)

    def inverse(y: torch.Tensor) -> torch.Tensor:
        kept = [p.grad for p in net.parameters()]
        for block in reversed(blocks):
            y, _ = block.backward_pass(y.detach(), torch.zeros_like(y), False)
        for parameter, grad in zip(net.parameters(), kept, strict=True):
            parameter.grad = grad
        return y

    return Subject(name="revtorch RevNet, d=6", event_shape=(6,), forward=net, inverse=inverse, module=net)
