"""normflows 1.7.3: NormalizingFlow adds up log-determinants in float32, whatever the flow's dtype."""
import sys

import normflows as nf
import torch

flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(2, trainable=False), [nf.flows.AffineConstFlow((2,))]).double()
log_det = flow.forward_and_log_det(torch.randn(3, 2).double())[1]
x = torch.full((1, 2), 0.1).double()
flow.flows[0].s.data.fill_(0.1)
got = flow.forward_and_log_det(x)[1].item()
print(f"expected 0.2 to float64, got {got!r} in {log_det.dtype}")
sys.exit(abs(got - 0.2) > 1e-12)
