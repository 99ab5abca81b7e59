"""torchflows 1.2.1: the inverse of masked autoregressive layers returns a log-determinant taken at x, not at z.

After the last step it applies the element-wise inverse to entries that are inverted already. Bijection.inverse promises
"the log Jacobian determinant of the inverse transform". Affine layers hide it: theirs does not depend on the point.
"""
import sys

import torch
from torchflows.bijections.finite.autoregressive.layers import RQSForwardMaskedAutoregressive

torch.manual_seed(0)
layer = RQSForwardMaskedAutoregressive((4,)).double().eval()
for parameter in layer.parameters():
    parameter.data += 30 * torch.randn_like(parameter)   # away from initialisation, where the layer is the identity
x = torch.randn(200, 4).double()
z, log_det = layer(x)
back, inverse_log_det = layer.inverse(z)
gap = (inverse_log_det + log_det)[(back - x).abs().amax(1) < 1e-6].abs().max().item()
print(f"expected −log_det where the inverse is right, got a difference of {gap:.4f}")
sys.exit(gap > 1e-3)
