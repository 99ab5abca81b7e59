"""torchflows 1.2.1: far from the data the log-determinant of ProximalResFlowBlock is finite and its gradient is NaN.

Its activation is saturated there, the determinant 1 to all digits, and the backward pass gives NaN.
"""
import sys

import torch
from torchflows.bijections.finite.residual.proximal import ProximalResFlowBlock

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
block = ProximalResFlowBlock((5,), gamma=0.5)
x = (1000.0 * torch.randn(1, 5)).requires_grad_()
log_det = block(x)[1]
log_det.sum().backward()
print(f"expected a finite gradient of the log-determinant {log_det.item():.3g}, got {x.grad.tolist()}")
sys.exit(not x.grad.isfinite().all())
