"""normflows 1.7.3: LipschitzCNN is normalised for the image size of its first call; at a larger one it is not contractive.

"Convolutional neural network which is Lipschitz continuous with Lipschitz constant L < 1", lipschitz_const = 0.97 a layer.
"""
import sys

import normflows as nf
import torch

torch.manual_seed(0)
net = nf.nets.LipschitzCNN([1, 1], [3], init_zeros=False)
convolution = next(m for m in net.modules() if type(m).__name__ == "InducedNormConv2d")
convolution.weight.data.fill_(1.0)
net(torch.randn(1, 1, 4, 4))
nf.utils.update_lipschitz(net, 200)
J = torch.autograd.functional.jacobian(lambda x: net.eval()(x[None])[0].flatten(), torch.full((1, 12, 12), 20.0)).reshape(144, 144)
norm = torch.linalg.matrix_norm(J, 2).item()
print(f"expected at most 0.97, got {norm:.4f} on 12×12 after a first call on 4×4")
sys.exit(norm > 0.971)
