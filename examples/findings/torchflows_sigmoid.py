"""torchflows 1.2.1: the log-determinants of the deep and dense sigmoid flows are wrong by tens to thousands of nats.

d/dd of log d − log(1 − d) is 1/(d(1 − d)), whose logarithm is −log d − log(1 − d): the code has log d − log(1 − d). The
derivative of a weighted sum is a sum over the hidden units: the code adds their logarithms.
"""
import sys

import torch
from torchflows.bijections.finite.autoregressive.layers import DeepSigmoidalCoupling

torch.manual_seed(0)
layer = DeepSigmoidalCoupling((4,)).eval()
x = torch.randn(4)
J = torch.autograd.functional.jacobian(lambda x: layer(x[None])[0][0], x)
got, expected = layer(x[None])[1].item(), torch.linalg.slogdet(J)[1].item()
print(f"expected log|det J| = {expected:.4f}, got {got:.4f}")
sys.exit(abs(got - expected) > 1e-2)
