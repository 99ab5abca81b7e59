"""torchflows 1.2.1: the log-determinant of ProximalResFlowBlock leaves out the division by 1 + γ − γt.

forward computes (x + γφ(x))/(1 + γ − γt), so −d·log(1 + γ − γt) belongs to it.
"""
import sys

import torch
from torchflows.bijections.finite.residual.proximal import ProximalResFlowBlock

torch.manual_seed(0)
block = ProximalResFlowBlock((5,), gamma=0.5)
x = torch.randn(5)
J = torch.autograd.functional.jacobian(lambda x: block(x[None])[0][0], x)
got, expected = block(x[None])[1].item(), torch.linalg.slogdet(J)[1].item()
print(f"expected log|det J| = {expected:.4f}, got {got:.4f}")
sys.exit(abs(got - expected) > 1e-3)
