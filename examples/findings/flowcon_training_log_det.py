"""flowcon 0.0.4: in training iResBlock returns an estimate of tr(J(I + J)⁻¹) as the log-determinant.

"unbiased_estimator: If true, uses an unbiased estimator for the logdet": the default trace_estimator, "neumann", has the
right gradient, but its value estimates another function. For g = cx in one dimension c/(1 + c), not log(1 + c).
"""
import math
import sys

import numpy as np
import torch
from flowcon.transforms.lipschitz.iresblock import iResBlock


class Scaling(torch.nn.Module):
    def forward(self, x, context=None):
        return 0.6 * x


torch.manual_seed(0)
np.random.seed(0)  # noqa: NPY002 - what the package draws from
block = iResBlock(Scaling()).train()
means = torch.stack([block(torch.ones(1000, 1, dtype=torch.float64))[1].detach().mean() for _ in range(4000)])
mean, error = means.mean().item(), means.std().item() / 4000**0.5
print(f"expected log(1 + c) = {math.log(1.6):.4f}, got {mean:.4f} ± {error:.4f}; c/(1 + c) = {0.6 / 1.6:.4f}")
sys.exit(abs(mean - math.log(1.6)) > 8 * error)
