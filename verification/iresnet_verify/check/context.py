"""What a check sees of a subject: normalised calls, seeded randomness, the Jacobian oracle, its budget and its alpha."""

from __future__ import annotations

import hashlib
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from iresnet_verify.check.budget import Budget
from iresnet_verify.oracle.float64_copy import Float64Copy, float64_copy_of
from iresnet_verify.oracle.jacobian import Jacobian, Oracle
from iresnet_verify.oracle.log_determinant import log_det_truth
from iresnet_verify.subject.calls import Caller, HostCalls, flat, host_calls
from iresnet_verify.subject.conventions import Conventions
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.frameworks import OPERATIONS, UNIT_ROUNDOFF, Framework
from iresnet_verify.subject.inputs import subject_inputs
from iresnet_verify.subject.module_state import is_torch_module, preserved
from iresnet_verify.subject.seeds import derived_seed
from iresnet_verify.subject.subject import HostArray, Native, Subject, stated_claim

Calls = HostCalls
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Context:
    """One check, in one mode, on one subject. The module is in `mode` and the generators are seeded."""

    subject: Subject
    check_id: str
    mode: str | None
    seed: int
    budget: Budget
    alpha: float
    """This check's share of the false-alarm rate, in this mode; only statistical checks may spend it."""
    framework: Framework
    conventions: Conventions
    shared: dict[Any, Any] = field(default_factory=dict)
    """What checks of one subject share in one process: results that depend on the subject's state, the mode and the seed alone."""
    rng: np.random.Generator = field(init=False)
    """Seeded by (seed, check id, mode)."""

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(derived_seed(self.seed, self.check_id, self.mode))

    @cached_property
    def caller(self) -> Caller:
        """The native calls."""
        return new_caller(self.subject, self.framework, self.conventions, derived_seed(self.seed, self.check_id, self.mode))

    @cached_property
    def f(self) -> Calls:
        """The subject's callables on host arrays."""
        return host_calls(self.caller, pure=bool(self.conventions.changes_state))

    @property
    def u(self) -> float:
        """Unit roundoff of the subject's dtype."""
        return UNIT_ROUNDOFF[self.subject.dtype]

    @property
    def d(self) -> int:
        """Number of dimensions of one event."""
        return math.prod(self.subject.event_shape)

    @property
    def rows(self) -> int:
        """Rows of one batch of inputs: the budget's, fewer in many dimensions."""
        return min(self.budget.rows, max(4, self.budget.numbers // max(self.d, 1)))

    @property
    def accuracy(self) -> float:
        """Declared relative accuracy of forward and log_det; 0 where only rounding is allowed."""
        return self.subject.accuracy or 0.0

    def inputs(self, n: int) -> HostArray:
        """Draw n inputs from where the promises hold, in the subject's dtype."""
        return subject_inputs(self.subject, n, self.rng)

    def state_key(self) -> tuple[Any, ...]:
        """Return the mode and a digest of the module's parameters and buffers, under which results may be shared."""
        module = self.subject.module
        tensors = [*module.parameters(), *module.buffers()] if is_torch_module(module) else []
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch_bytes()).numpy().tobytes())
        return self.mode, self.seed, self.budget.name, digest.hexdigest()

    # -- native arrays
    def native(self, a: HostArray, requires_grad: bool = False) -> Native:
        """Return a fresh array of the subject's framework, dtype and device."""
        return self.framework.native(a, requires_grad)

    def host(self, a: Native) -> HostArray:
        """Return a NumPy copy."""
        return self.framework.host(a)

    def raw_forward(self, x: Native, **options: Any) -> tuple[Native, Native | None]:
        """Forward on a native array as it is: (y, log-det (batch,) or None), both still differentiable."""
        return self.caller.event("forward", x, **options)

    def raw_inverse(self, y: Native, **options: Any) -> Native:
        """Inverse on a native array as it is."""
        return self.caller.event("inverse", y, **options)[0]

    def raw_log_det(self, x: Native, **options: Any) -> Native:
        """Log-det as a native (batch,) array, still differentiable."""
        return self.caller.scalar("log_det", x, **options)

    def evaluate_log_det(self, x: HostArray, seed: int) -> Array:
        """Evaluate the log-det once with every generator seeded by `seed`: (batch,)."""
        if self.f.log_det is None:
            raise SubjectError("log_det: expected a callable or a packed log-det, got none")
        return self.f.log_det(x, seed=seed)

    # -- truth
    def guard(self) -> AbstractContextManager[None]:
        """Put the module's state (tensors, flags, gradients) back when the block ends."""
        return preserved(self.subject.module)

    def jacobian(self, x: HostArray) -> Jacobian:
        """Return dF/dx at the rows of x by the Jacobian oracle. Raises `Undecided` where no method agrees.

        A subject narrower than float64 is differentiated by its float64 copy where `fresh(dtype=)` gives one that
        agrees with it; the error then still allows K·u·√d·(‖J‖ + 1), what the subject's own dtype cannot avoid.
        """
        seed = self.caller.next_seed()
        float64_copy = self.float64_copy(x, seed)
        if float64_copy is not None:
            oracle = Oracle(float64_copy.caller, float64_copy.calls.forward, 2.0**-53, self.accuracy,
                            lambda: preserved(float64_copy.caller.subject.module))
            J = oracle(x.astype(np.float64), seed)
            norm = np.linalg.norm(J.matrix, axis=(1, 2))
            unavoidable = OPERATIONS * self.u * math.sqrt(self.d) * (norm + 1)
            source = f"{J.source} of fresh(dtype='float64')"
            return Jacobian(J.matrix, source, np.maximum(J.error, unavoidable), J.residual)
        return Oracle(self.caller, self.f.forward, self.u, self.accuracy, self.guard)(x, seed)

    def float64_copy(self, x: HostArray, seed: int) -> Float64Copy | None:
        """Return the float64 copy of a narrower subject with the parameters of now; None where none agrees with it at x."""
        copy = self._float64_copy
        if copy is None:
            return None
        y = self.f.forward(x, seed=seed)
        return copy if copy.follows(x, y, self.forward_tolerance(x, y), seed) else None

    @cached_property
    def _float64_copy(self) -> Float64Copy | None:
        return float64_copy_of(self.subject, self.mode, derived_seed(self.seed, "float64 copy", self.mode))

    def residual_jacobian(self, x: HostArray) -> Jacobian:
        """Return J_g = J_F − I (made from g itself where it is given and differentiable)."""
        J = self.jacobian(x)
        return Jacobian(J.residual, J.source, J.error, J.residual)

    def log_det_truth(self, x: HostArray, jacobian: Jacobian | None = None) -> tuple[Array, Array, str]:
        """Return (value, error, source): log|det dF/dx| per row; see `log_det_truth`."""
        return log_det_truth(self.jacobian(x) if jacobian is None else jacobian, self.u)

    @property
    def log_det_claim(self) -> tuple[str, float]:
        """What the log-det claims in this mode: ("exact" | "unbiased" | "bias" | "gradient-only" | "none", b).

        One that is random without being declared so is judged as unbiased; where it is stated to be exact,
        `hygiene.exact-log-det-not-random` fails.
        """
        kind, bias = self.declared_log_det
        return ("unbiased", 0.0) if kind == "exact" and self.conventions.random_log_det else (kind, bias)

    @property
    def declared_log_det(self) -> tuple[str, float]:
        """The claim as the subject states it; exact where it states none."""
        claim = stated_claim(self.subject, self.mode)
        if self.f.log_det is None:
            return "none", math.inf
        if isinstance(claim, str):
            return claim, math.inf if claim == "gradient-only" else 0.0
        return "bias", float(claim)

    def forward_tolerance(self, x: HostArray, y: HostArray) -> Array:
        """Rounding tolerance of one forward evaluation in the 2-norm, per row, plus the declared accuracy.

        K·u·(‖x‖ + ‖y‖ + √d) with K = `OPERATIONS`, plus what F itself shows at x(1 ± hs), random signs s, h = 4√u:
        eight times its move for a relative step of 4u (conditioning inside F), and eight times the second difference
        F(x₊) − 2F(x) + F(x₋) (rounding that cancellation inside F has enlarged; its smooth part is 16u·F″x²). What F
        shows counts at most √u·(‖x‖ + ‖y‖ + √d), and at least its median over the rows (a difference can cancel).
        """
        size = np.linalg.norm(flat(x).astype(float), axis=1) + np.linalg.norm(flat(y).astype(float), axis=1)
        size = size + math.sqrt(self.d)
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=x.shape)
        h = 4 * math.sqrt(self.u)
        seed = self.caller.next_seed()
        up, middle, down = (
            flat(self.f.forward((x.astype(np.float64) * (1 + t * signs)).astype(x.dtype), seed=seed)).astype(float)
            for t in (h, 0.0, -h)
        )
        with np.errstate(invalid="ignore", over="ignore"):
            shown = 8 * np.linalg.norm(up - 2 * middle + down, axis=1)
            shown += 8 * np.linalg.norm(up - down, axis=1) * (4 * self.u / (2 * h))
        shown = np.minimum(np.nan_to_num(shown, nan=0.0), math.sqrt(self.u) * size)
        shown = np.maximum(shown, np.median(shown)) if len(shown) else shown
        return OPERATIONS * self.u * size + shown + self.accuracy * size


def torch_bytes() -> Any:
    """Return torch's dtype of single bytes: any tensor can be seen as these, bfloat16 too."""
    import torch

    return torch.uint8


def new_caller(subject: Subject, framework: Framework, conventions: Conventions, seed: int) -> Caller:
    """Return native calls with the packing of the conventions."""
    return Caller(subject, framework, seed, conventions.context_row, dict(conventions.packed))
