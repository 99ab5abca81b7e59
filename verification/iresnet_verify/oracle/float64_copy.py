"""A float64 copy of a narrower subject, where `fresh(dtype="float64")` can build one: a sharper Jacobian oracle.

The copy takes over the parameters of the audited module (`load_state_dict`) and is used for a batch only if its
forward agrees there with the subject's within the subject's own forward tolerance; otherwise the subject is differentiated
in its own dtype.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iresnet_verify.subject.calls import Caller, HostCalls, flat, host_calls
from iresnet_verify.subject.conventions import read_conventions
from iresnet_verify.subject.frameworks import framework_of
from iresnet_verify.subject.fresh import build_fresh
from iresnet_verify.subject.module_state import is_torch_module, set_mode
from iresnet_verify.subject.subject import HostArray, Subject


@dataclass(frozen=True)
class Float64Copy:
    """The copy's calls."""

    original: Subject
    caller: Caller
    calls: HostCalls

    def follows(self, x: HostArray, y: HostArray, tolerance: HostArray, seed: int) -> bool:
        """Take over the parameters as they are now; return whether the copy maps x to y within the tolerance."""
        module, source = self.caller.subject.module, self.original.module
        try:
            if is_torch_module(module) and is_torch_module(source):
                module.load_state_dict(source.state_dict())
            image = self.calls.forward(x.astype(np.float64), seed=seed)
        except Exception:  # a copy that does not work is not used
            return False
        return bool((np.linalg.norm(flat(image) - flat(y).astype(np.float64), axis=1) <= tolerance).all())


def float64_copy_of(subject: Subject, mode: str | None, seed: int) -> Float64Copy | None:
    """Build the float64 copy of a narrower subject; None where there is none."""
    if subject.dtype == "float64" or subject.fresh is None:
        return None
    try:
        float64_copy = build_fresh(subject, "float64")
        set_mode(float64_copy.module, mode)
        framework = framework_of(float64_copy)
        conventions = read_conventions(float64_copy, framework, seed)
    except Exception:  # `fresh` itself is tested by the family `state`; here it only means no copy
        return None
    if "forward" in conventions.broken:
        return None
    caller = Caller(float64_copy, framework, seed, conventions.context_row, dict(conventions.packed))
    return Float64Copy(subject, caller, host_calls(caller, pure=bool(conventions.changes_state)))
