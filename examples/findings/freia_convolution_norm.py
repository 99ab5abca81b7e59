"""FrEIA 0.2: lipschitz_correction of a convolutional IResNetLayer normalises another operator than the one it uses.

The layers are padded (padding=1); the power iteration runs without padding, and the norm of that is smaller.
spectral_norm_max = 0.8 names what each layer's norm should not exceed.
"""
import sys

import torch
from FrEIA.modules import IResNetLayer

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
layer = IResNetLayer([(2, 6, 6)], internal_size=4)
for convolution in layer.layers:
    torch.nn.init.uniform_(convolution.weight)
layer.lipschitz_correction()
first = layer.layers[0]
J = torch.autograd.functional.jacobian(lambda x: first(x[None])[0].flatten(), torch.zeros(2, 6, 6)).reshape(-1, 72)
norm = torch.linalg.matrix_norm(J, 2).item()
print(f"expected a norm of at most 0.8, got {norm:.4f}")
sys.exit(norm > 0.801)
