"""normflows 1.7.3: in training Residual returns an estimate of tr(J(I + J)⁻¹) as the log-determinant.

_logdetgrad promises "g(x) and logdet|d(x+g(x))/dx|" by "unbiased estimation". The Neumann estimator (reduce_memory=True, the
default) has the right gradient, but its value estimates another function: for g = cx, c/(1 + c), not log(1 + c).
"""
import math
import sys

import numpy as np
import torch
from normflows.flows import Residual

torch.manual_seed(0)
np.random.seed(0)  # noqa: NPY002 - what the package draws from
g = torch.nn.Linear(1, 1, bias=False).double()
g.weight.data.fill_(0.6)
block = Residual(g).train()
means = torch.stack([block.inverse(torch.ones(1000, 1).double())[1].detach().mean() for _ in range(4000)])
mean, error = means.mean().item(), means.std().item() / 4000**0.5
print(f"expected log(1 + c) = {math.log(1.6):.4f}, got {mean:.4f} ± {error:.4f}; c/(1 + c) = {0.6 / 1.6:.4f}")
sys.exit(abs(mean - math.log(1.6)) > 8 * error)
