"""flowcon 0.0.4: MaskedShiftAutoregressiveTransform adds 2·tanh(shift) and its inverse subtracts shift."""
import sys

import torch
from flowcon.transforms.autoregressive import MaskedShiftAutoregressiveTransform

torch.manual_seed(0)
layer = MaskedShiftAutoregressiveTransform(4, 8).eval()
x = torch.randn(5, 4)
gap = (layer.inverse(layer(x)[0])[0] - x).abs().max().item()
print(f"expected inverse(forward(x)) = x, got a distance of {gap:.3f}")
sys.exit(gap > 1e-3)
