"""torchflows 1.2.1: with n_hutchinson_samples > 1 the power series is evaluated at points that are no rows of the batch.

power_series_log_abs_det_estimator repeats x along a last axis and views the result as (batch·samples, d), which mixes
the entries of an event. The first value it returns is g(x).
"""
import sys

import torch
from torchflows.bijections.finite.residual.log_abs_det_estimators import power_series_log_abs_det_estimator

torch.manual_seed(0)
x = torch.randn(3, 2)


def g(x):
    return 0.5 * torch.tanh(x.flip(-1))


value, _ = power_series_log_abs_det_estimator(g, x, torch.randn(3, 2, 4), training=False)
gap = (value - g(x)).abs().max().item()
print(f"expected g(x), got something {gap:.3f} away from it")
sys.exit(gap > 1e-6)
