"""torchflows 1.2.1: the roulette estimate of ResFlowBlock has weights 1/k where the series has 1/(k + 1).

roulette_log_abs_det_estimator promises an estimate of log|det|. For g = cx, d = 1 and a probe v, E[v²] = 1, its mean
is c + Σ_k (−1)^k c^(k+1)/k = c − c·log(1 + c) instead of log(1 + c).
"""
import math
import sys

import torch
from torchflows.bijections.finite.residual.log_abs_det_estimators import roulette_log_abs_det_estimator

torch.manual_seed(0)
c, n, probes = 0.6, 2000, torch.ones(1, 1)      # v = 1: only the length is random
values = torch.tensor([roulette_log_abs_det_estimator(lambda x: c * x, probes, probes, False)[1].item() for _ in range(n)])
mean, error = values.mean().item(), values.std().item() / n**0.5
print(f"expected log(1 + c) = {math.log(1 + c):.4f}, got {mean:.4f} ± {error:.4f}; c − c·log(1 + c) = {c - c * math.log(1 + c):.4f}")
sys.exit(abs(mean - math.log(1 + c)) > 8 * error)
