"""pyro-ppl 1.9.2: Sylvester.log_abs_det_jacobian is not that of the map, away from its initialisation.

In row form the map is x + tanh(x·B + b)·A with A = QR, B = SQᵀ. det(I + D·A·B) needs A·B triangular; it is QRSQᵀ. At
initialisation R and S are nearly diagonal with entries below 0.01, which hides it.
"""
import sys

import torch
from pyro.distributions import transforms

torch.manual_seed(0)
layer = transforms.Sylvester(4, count_transforms=2)
for parameter in layer.parameters():
    parameter.data += 0.5 * torch.randn_like(parameter)
x = torch.randn(4)
y = layer(x)
J = torch.autograd.functional.jacobian(layer, x)
got, expected = layer.log_abs_det_jacobian(x, y).item(), torch.linalg.slogdet(J)[1].item()
print(f"expected log|det J| = {expected:.4f}, got {got:.4f}")
sys.exit(abs(got - expected) > 1e-3)
