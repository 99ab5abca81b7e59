"""deel-torchlip 1.0.5: Sequential(..., k_coef_lip=k) does not ensure k.

"k_coef_lip: the Lipschitz coefficient to ensure globally on the model". It writes each layer's share into an attribute
that SpectralLinear and SpectralConv2d read in their constructors alone, which have run by then.
"""
import sys

import torch
from deel.torchlip import Sequential, SpectralLinear

torch.manual_seed(0)
net = Sequential(SpectralLinear(3, 3), SpectralLinear(3, 3), k_coef_lip=0.5).eval()
J = torch.autograd.functional.jacobian(lambda x: net(x[None])[0], torch.zeros(3))
norm = torch.linalg.matrix_norm(J, 2).item()
print(f"expected a norm of at most 0.5, got {norm:.4f}")
sys.exit(norm > 0.501)
