"""FrEIA 0.2: InvertibleSigmoid on images returns one number a pixel, not one an image, for its log-determinant.

It sums over the channels only; InvertibleModule.forward promises one entry for each element of the batch.
"""
import sys

import torch
from FrEIA.modules import InvertibleSigmoid

log_det = InvertibleSigmoid([(2, 3, 3)])([torch.randn(5, 2, 3, 3)])[1]
print(f"expected the shape (5,), got {tuple(log_det.shape)}")
sys.exit(tuple(log_det.shape) != (5,))
