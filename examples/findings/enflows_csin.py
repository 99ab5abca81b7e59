"""enflows 0.0.1: the activation "csin" of DenseNet, (sin x, −sin x), stretches by √2.

DenseNet promises "a fixed lipschitz constant" with lip_coeff = 0.98 a layer, which needs 1-Lipschitz activations: with
these weights g decreases faster than x grows, and x + g(x) of an invertible residual block is not injective.
"""
import sys

import torch
from enflows.nn.nets.invertible_densenet import DenseNet

torch.manual_seed(0)
g = DenseNet(dimension=1, densenet_depth=1, densenet_growth=2, activation_function="csin", n_lipschitz_iters=50).double()
x = torch.linspace(-4, 4, 80001).double()[:, None]
with torch.no_grad():
    for parameter in g.parameters():
        parameter.add_(3 * torch.randn_like(parameter))
    g.train()(x)  # normalises the weights
    y = g.eval()(x)
steepest = ((y[1:] - y[:-1]) / (x[1:] - x[:-1])).min().item()
print(f"expected slopes of g within ±0.98² = ±{0.98**2:.4f}, got {steepest:.4f}")
sys.exit(steepest < -0.98**2)
