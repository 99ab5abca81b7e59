"""Inputs of a subject: its own, or normal rows at three scales."""

from __future__ import annotations

import numpy as np

from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.frameworks import HOST_DTYPE
from iresnet_verify.subject.subject import HostArray, Subject


def subject_inputs(subject: Subject, n: int, rng: np.random.Generator) -> HostArray:
    """Draw n inputs: the subject's own, or normal rows at scales .1, 1 and 3 in turn."""
    dtype = HOST_DTYPE[subject.dtype]
    shape = (n, *subject.event_shape)
    if subject.inputs is None:
        scale = np.array([0.1, 1.0, 3.0])[np.arange(n) % 3].reshape(n, *[1] * len(subject.event_shape))
        return (rng.standard_normal(shape) * scale).astype(dtype)
    x = np.asarray(subject.inputs(n, rng))
    if x.shape != shape or x.dtype.kind != "f" or not np.isfinite(x).all():
        raise SubjectError(f"inputs: expected finite floats of shape {shape}, got {x.dtype} {x.shape}"
                           f"{'' if x.dtype.kind == 'f' and np.isfinite(x).all() else ' (not finite floats)'}; "
                           "try inputs=lambda n, rng: rng.standard_normal((n, *event_shape))")
    return x.astype(dtype)
