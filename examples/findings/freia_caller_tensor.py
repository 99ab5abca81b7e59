"""FrEIA 0.2: IResNetLayer sets requires_grad on the tensor of its caller."""
import sys

import torch
from FrEIA.modules import IResNetLayer

x = torch.randn(5, 3)
IResNetLayer([(3,)])([x])
print(f"expected x.requires_grad = False as before the call, got {x.requires_grad}")
sys.exit(x.requires_grad)
