"""FrEIA 0.2: the log-determinant of IResNetLayer has no gradient.

Maximum-likelihood training minimises 0.5·|z|² − log|det J|; the second term does not reach the parameters.
"""
import sys

import torch
from FrEIA.modules import IResNetLayer

torch.manual_seed(0)
layer = IResNetLayer([(3,)])
(z,), log_det = layer([torch.randn(5, 3)])
print(f"expected a log-determinant that depends on the weights, got requires_grad = {log_det.requires_grad}")
sys.exit(not log_det.requires_grad)
