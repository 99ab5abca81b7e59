"""deel-torchlip 1.0.5: SpectralConv2d(padding_mode="reflect") is not 1-Lipschitz.

"k_coef_lip: Lipschitz constant to ensure", and "reflect" is among the padding modes its documentation lists. The bound
counts how often a pixel is used by the kernel; the reflected border uses some pixels more often.
"""
import sys

import torch
from deel.torchlip import SpectralConv2d

torch.manual_seed(0)
layer = SpectralConv2d(1, 1, 3, padding=1, padding_mode="reflect", bias=False)
with torch.no_grad():
    layer.parametrizations.weight.original.fill_(1.0)
for _ in range(30):                                             # power iteration and Björck have converged
    layer.train()(torch.randn(1, 1, 8, 8))
layer.eval()
J = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0].flatten(), torch.zeros(1, 8, 8)).reshape(64, 64)
norm = torch.linalg.matrix_norm(J, 2).item()
print(f"expected a norm of at most 1, got {norm:.4f}")
sys.exit(norm > 1.001)
