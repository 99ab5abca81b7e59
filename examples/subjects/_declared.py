"""The declared failures of the gallery: check id -> the promise it breaks (docstring, type, name or mathematics).

Each was seen on 20 seeds by `examples/declare.py`, is found again and reproduced by every `make audit`, and was
confirmed once by a computation of its own. A declaration that passes fails the gallery.
"""

from __future__ import annotations

NORMFLOWS_BLOCK = {
    **dict.fromkeys(
        ("inverse.keeps-tolerance", "inverse.recovers-input", "inverse.recovers-output", "convergence.is-reported",
         "convergence.worst-input"),
        "_inverse_fixed_point names atol = rtol = 1e-5; it stops when the *square* of its step is below them, silently",
    ),
    **dict.fromkeys(
        ("logdet.matches-determinant", "logdet.of-the-inverse", "estimator.unbiased"),
        "_logdetgrad promises logdet|d(x+g(x))/dx|; in training it returns an estimate of tr(J(I+J)⁻¹), biased as log-det",
    ),
    **dict.fromkeys(
        ("gradient.log-det", "gradient.log-det-input"),
        "mathematics (chain rule): the backward pass multiplies all rows by the upstream gradient of row 0",
    ),
    "gradient.frozen-parameters":
        "type (nn.Module): in training, a parameter of net with requires_grad=False makes the forward pass raise",
    "gradient.repeated-backward":
        "retain_graph=True (torch.autograd): in training the backward pass multiplies in place what it saved, so a second one raises",
    "hygiene.caller-tensors-kept":
        "name (inverse(z), a map): in evaluation it sets requires_grad on the tensor of its caller",
}

NORMFLOWS_FLOW = {
    **dict.fromkeys(
        ("logdet.matches-determinant", "gradient.log-det", "gradient.log-det-input"),
        "docstring (\"log determinant of the Jacobian\"): it is summed in float32 whatever the flow's dtype, and in training "
        "biased and with row 0's upstream gradient for all rows",
    ),
    **dict.fromkeys(
        ("estimator.unbiased", "density.change-of-variables"),
        "docstring (\"log probability\"): in training each block adds an estimate of tr(J(I+J)⁻¹), not of its log-det",
    ),
    "gradient.frozen-parameters":
        "type (nn.Module): in training, a parameter of a block with requires_grad=False makes the forward pass raise",
    "gradient.repeated-backward":
        "retain_graph=True (torch.autograd): in training the backward pass multiplies in place what it saved, so a second one raises",
    "hygiene.caller-tensors-kept":
        "name (inverse(x), a map): in evaluation it sets requires_grad on the tensor of its caller",
}

UNNORMALISED = dict.fromkeys(
    ("inverse.is-injective", "inverse.keeps-tolerance", "inverse.recovers-input", "inverse.recovers-output",
     "convergence.banach-rate", "convergence.is-reported", "convergence.worst-input", "lipschitz.bounds-jacobian",
     "lipschitz.bounds-pairs", "lipschitz.bounds-stretch", "logdet.matches-determinant", "logdet.within-bounds",
     "gradient.log-det", "gradient.log-det-input", "gradient.through-inverse", "lipschitz.all-magnitudes"),
    "negative control: Lip(g) is above 4, so x + g(x) is not injective, and neither the iteration nor the series converges",
)
