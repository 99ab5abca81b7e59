"""normflows 1.7.3: Residual in evaluation sets requires_grad on the tensor of its caller."""
import sys

import torch
from normflows.flows import Residual

x = torch.randn(3, 2)
Residual(torch.nn.Linear(2, 2)).eval().inverse(x)
print(f"expected x.requires_grad = False as before the call, got {x.requires_grad}")
sys.exit(x.requires_grad)
