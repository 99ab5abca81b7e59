"""FrEIA 0.2: HaarUpsampling changes the tensor of its caller in place."""
import sys

import torch
from FrEIA.modules import HaarUpsampling

x = torch.randn(2, 4, 3, 3)
before = x.clone()
HaarUpsampling([(4, 3, 3)])([x])
print(f"expected x as it was, got a change of {(x - before).abs().max():.3f}")
sys.exit(not torch.equal(x, before))
