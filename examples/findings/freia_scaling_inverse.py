"""FrEIA 0.2: LearnedElementwiseScaling with rev=True returns the log-determinant of the forward direction."""
import sys

import torch
from FrEIA.modules import LearnedElementwiseScaling

layer = LearnedElementwiseScaling([(2,)])
layer.s.data[:] = torch.tensor([[0.3, 0.1]])
got = layer([torch.ones(1, 2)], rev=True)[1].item()
print(f"expected −Σ s = −0.4, got {got:.4f}")
sys.exit(abs(got + 0.4) > 1e-6)
