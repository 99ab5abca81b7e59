"""enflows 0.0.1: LeakyReLU has a trainable log-slope for its log-determinant and a fixed slope for its map.

After the first optimiser step the log-determinant is that of no map.
"""
import math
import sys

import torch
from enflows.transforms.nonlinearities import LeakyReLU

layer = LeakyReLU(negative_slope=0.5)
optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
layer(-torch.ones(1, 2))[1].sum().backward()
optimiser.step()
y, log_det = layer(-torch.ones(1, 2))
print(f"expected 2·log 0.5 = {2 * math.log(0.5):.4f} for y = {y.tolist()[0]}, got {log_det.item():.4f}")
sys.exit(abs(log_det.item() - 2 * math.log(0.5)) > 1e-4)
