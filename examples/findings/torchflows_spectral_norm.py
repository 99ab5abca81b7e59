"""torchflows 1.2.1: SpectralMatrix(c=0.7) ignores c, and its norm after five power iterations is above 1.

InvertibleResNetBlock and ResFlowBlock cite i-ResNet and Residual Flows, whose blocks need Lip(g) < 1.
"""
import sys

import torch
from torchflows.bijections.finite.residual.iterative import SpectralMatrix

torch.manual_seed(0)
matrix = SpectralMatrix((64, 64), c=0.7)
norm = max(torch.linalg.matrix_norm(matrix.normalized(), 2).item() for _ in range(5))
print(f"expected a spectral norm of at most c = 0.7, got {norm:.3f}")
sys.exit(norm > 0.7)
