"""flowcon 0.0.4: iResBlock in evaluation sets requires_grad on the tensor of its caller."""
import sys

import torch
from flowcon.nn.nets.invertible_densenet import DenseNet
from flowcon.transforms.lipschitz.iresblock import iResBlock

x = torch.randn(5, 3)
iResBlock(DenseNet(dimension=3)).eval()(x)
print(f"expected x.requires_grad = False as before the call, got {x.requires_grad}")
sys.exit(x.requires_grad)
