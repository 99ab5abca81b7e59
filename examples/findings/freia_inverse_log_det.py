"""FrEIA 0.2: IResNetLayer with rev=True returns minus the log-determinant at y, not at x = F⁻¹(y).

log|det dF⁻¹/dy| = −log|det dF/dx| at x. With the same probes the two values are compared exactly.
"""
import sys

import torch
from FrEIA.modules import IResNetLayer

torch.manual_seed(0)
layer = IResNetLayer([(3,)], internal_size=32).double()
for parameter in layer.parameters():
    parameter.data += torch.randn_like(parameter)
layer.layers = [m for m in layer.residual if isinstance(m, torch.nn.Linear)]
for linear in layer.layers:
    linear.weight.data *= 0.8 / torch.linalg.matrix_norm(linear.weight, 2)


def log_det(x, rev):
    torch.manual_seed(1)
    return layer([x.clone()], rev=rev)[1].detach()


x = torch.randn(5, 3).double()
y = (x + layer.residual(x)).detach()
at_x, at_y, got = log_det(x, False), log_det(y, False), log_det(y, True)
print(f"expected −log_det(x) = {-at_x[0]:.6f}, got {got[0]:.6f}; −log_det(y) = {-at_y[0]:.6f}")
sys.exit(bool((got + at_x).abs().max() > 1e-6))
