"""normflows 1.7.3: a GlowBlock for 4 channels accepts 3 and returns 4."""
import sys

import normflows as nf
import torch

block = nf.flows.GlowBlock(4, 8, scale=True, init_zeros=False)
block(torch.randn(8, 4, 3, 3))
shape = tuple(block(torch.randn(3, 3, 3, 3))[0].shape)
print(f"expected the shape (3, 3, 3, 3) or an exception, got {shape}")
sys.exit(shape != (3, 3, 3, 3))
