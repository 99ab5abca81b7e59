"""The measurements by which a reproduction shows a wrong derivative; see `log_dets` for the rules they keep."""

from typing import Any

import numpy as np


def log_det_gradient(
    calls: "Any", x: "Any", weights: "Any", name: "str", allowed: "float"
) -> "tuple[float, float]":
    """Largest |∂Σ w_i log_det(x_i) − ∂Σ w_i log|det J(x_i)|| with respect to one parameter (or to x for an empty name)."""
    import torch

    subject = calls.subject
    dtype = getattr(torch, subject.dtype)
    w = torch.tensor(np.asarray(weights))
    parameters = dict(subject.module.named_parameters())
    gradients = []
    for exact in (False, True):
        leaf = torch.tensor(np.asarray(x), dtype=dtype, requires_grad=True)
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - what packages draw from
        if exact:
            source = subject.forward if subject.residual is None else subject.residual
            out = source(leaf.clone())
            out = out[0] if isinstance(out, (tuple, list)) else out
            columns = out.reshape(len(x), -1)
            rows = [torch.autograd.grad(c.sum(), leaf, create_graph=True)[0].reshape(len(x), -1) for c in columns.T]
            J = torch.stack(rows, dim=1).double()
            eye = 0.0 if subject.residual is None else torch.eye(J.shape[1], dtype=J.dtype)
            value = torch.linalg.slogdet(J + eye)[1]
        else:
            value = subject.forward(leaf.clone())[1] if subject.log_det is None else subject.log_det(leaf.clone())
            value = value.reshape(len(x), -1).sum(1)
        wanted = leaf if name == "" else parameters[str(name)]
        loss = (w.to(value) * value).sum()
        found = torch.autograd.grad(loss, wanted, allow_unused=True)[0] if loss.requires_grad else None
        gradients.append(torch.zeros_like(wanted) if found is None else found)
    return float((gradients[0] - gradients[1]).abs().max()), float(allowed)


def input_gradient(calls: "Any", x: "Any") -> "tuple[float, float]":
    """1 − |⟨∂(c·F)/∂x, v⟩| relative to its central difference, for fixed c and v: more than half of it is missing."""
    import torch

    rng = np.random.default_rng(0)
    c, v = rng.standard_normal(x.shape), rng.standard_normal(x.shape)
    leaf = torch.tensor(np.asarray(x), dtype=getattr(torch, calls.subject.dtype), requires_grad=True)
    out = calls.subject.forward(leaf.clone())
    out = out[0] if isinstance(out, (tuple, list)) else out
    got = 0.0
    if out.requires_grad:
        gradient = torch.autograd.grad(out, leaf, torch.tensor(c).to(out), allow_unused=True)[0]
        got = 0.0 if gradient is None else float((gradient.double().numpy() * v).sum())
    h = 1e-4
    up, down = calls.forward((x + h * v).astype(x.dtype)), calls.forward((x - h * v).astype(x.dtype))
    slope = float(((up.astype(np.float64) - down) * c).sum() / (2 * h))
    return abs(got - slope), 1e-3 * max(abs(slope), 1.0)


def finite_input_gradient(calls: "Any", x: "Any") -> "tuple[float, float]":
    """How many entries of ∂(Σy)/∂x are NaN or infinite at a row where y is finite."""
    import torch

    leaf = torch.tensor(np.asarray(x), dtype=getattr(torch, calls.subject.dtype), requires_grad=True)
    out = calls.subject.forward(leaf.clone())
    out = out[0] if isinstance(out, (tuple, list)) else out
    (found,) = torch.autograd.grad(out.sum(), leaf)
    return float((~torch.isfinite(found)).sum()) if bool(torch.isfinite(out).all()) else 0.0, 0.0


def backward_raises(calls: "Any", x: "Any") -> "tuple[float, float]":
    """1 where a backward pass through forward raises."""
    import torch

    leaf = torch.tensor(np.asarray(x), dtype=getattr(torch, calls.subject.dtype), requires_grad=True)
    out = calls.subject.forward(leaf.clone())
    out = out[0] if isinstance(out, (tuple, list)) else out
    try:
        out.sum().backward()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        return 1.0, 0.0
    return 0.0, 0.0


def second_backward(calls: "Any", x: "Any") -> "tuple[float, float]":
    """How far the gradient of x by a second backward pass lies from that by the first."""
    import torch

    leaf = torch.tensor(np.asarray(x), dtype=getattr(torch, calls.subject.dtype), requires_grad=True)
    torch.manual_seed(0)
    out = calls.subject.forward(leaf.clone())
    out, log_det = (out[0], out[1]) if isinstance(out, (tuple, list)) else (out, None)
    if log_det is None and calls.subject.log_det is not None:
        log_det = calls.subject.log_det(leaf.clone())
    loss = out.sum() if log_det is None else out.sum() + log_det.sum()
    once, twice = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for _ in range(2))
    return float((twice - once).abs().max()), 0.0
