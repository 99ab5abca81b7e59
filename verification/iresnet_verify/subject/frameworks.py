"""The frameworks of subjects: how their arrays are made and converted, their generators seeded, their settings restored.

A `Framework` converts between host (NumPy) arrays and the subject's own, seeds every global generator a subject may
draw from, and snapshots the process-wide settings it may leave changed. No mathematics here.
`torch` and `numpy` are written out; every other name goes through `iresnet_backends.get`, so that a framework the
backends learn is one the suite can audit.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from iresnet_verify.subject.errors import SubjectError

if TYPE_CHECKING:
    from iresnet_verify.subject.subject import HostArray, Native, Subject

Globals = Mapping[str, Any]
"""Process-wide state by name: generators, default dtype, gradient mode, floating-point error handling."""

OPERATIONS = 64
"""K in K·u·(‖x‖ + ‖y‖ + √d), the rounding of one evaluation in the 2-norm: the roundings one after another that it allows for."""
UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Unit roundoff u of each dtype a subject may declare."""

HOST_DTYPE = {"float64": "float64", "float32": "float32", "float16": "float16", "bfloat16": "float32"}
"""The NumPy dtype that holds every value of a subject's dtype."""


class Framework(Protocol):
    """Arrays, generators and global settings of one framework at one dtype and device."""

    name: str
    """"torch", "numpy", or the name given to `iresnet_backends.get`."""
    array_type: str
    """What an array of the framework is called in messages."""
    differentiable: bool
    """Whether autograd (torch) is available."""

    def native(self, a: HostArray, requires_grad: bool = False) -> Native:
        """Return a fresh contiguous copy of `a` in the subject's framework, dtype and device."""
        ...

    def host(self, a: Native) -> HostArray:
        """Return a NumPy copy of `a` (bfloat16 becomes float32)."""
        ...

    def is_array(self, a: object) -> bool:
        """Return whether `a` is an array of the framework."""
        ...

    def seed(self, n: int) -> None:
        """Seed `random`, NumPy's global generator and the framework's."""
        ...

    def snapshot_globals(self) -> Globals:
        """Return the process-wide state a subject could change."""
        ...

    def restore_globals(self, state: Globals) -> None:
        """Put back what `snapshot_globals` returned, bit for bit."""
        ...

    def call_context(self) -> AbstractContextManager[Any]:
        """Return the context manager of a call: autograd enabled, no inference mode."""
        ...


def dtype_name(a: Native) -> str:
    """Name of the dtype of any framework's array: `torch.float32`, `<f4` and `array_api_strict.float32` are float32."""
    dtype = a.dtype
    return str(np.dtype(dtype)) if isinstance(a, np.ndarray | np.generic) else str(dtype).rsplit(".", 1)[-1]


def changed_globals(before: Globals, after: Globals) -> list[str]:
    """Names whose state differs between two snapshots."""
    return sorted(k for k in before.keys() | after.keys() if not _same(before.get(k), after.get(k)))


def _same(a: Any, b: Any) -> bool:
    if hasattr(a, "shape") and hasattr(b, "shape"):
        return tuple(a.shape) == tuple(b.shape) and bool((a == b).all())
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


class NumpyFramework:
    """NumPy arrays; the generators `random` and `numpy.random`."""

    name = "numpy"
    array_type = "numpy.ndarray"
    differentiable = False

    def __init__(self, dtype: str, device: str = "cpu") -> None:
        if device != "cpu" or dtype == "bfloat16":
            raise SubjectError(f"expected a dtype and device of NumPy, got {dtype} on {device!r}; "
                               "try framework='numpy', device='cpu', dtype='float64' or 'float32'")
        self.dtype, self.device = dtype, device

    def native(self, a: HostArray, requires_grad: bool = False) -> Native:
        """Return a fresh contiguous copy; `requires_grad` means nothing here."""
        return np.array(a, dtype=self.dtype, order="C", copy=True)

    def host(self, a: Native) -> HostArray:
        """Return a copy."""
        return np.array(a, copy=True)

    def is_array(self, a: object) -> bool:
        """Arrays, and the 0-d scalars NumPy makes of them."""
        return isinstance(a, np.ndarray | np.generic)

    def seed(self, n: int) -> None:
        """Seed `random` and NumPy's global generator."""
        random.seed(n)
        np.random.seed(n % 2**32)  # noqa: NPY002 - audited code draws from the global generator

    def snapshot_globals(self) -> Globals:
        """Both generators and NumPy's floating-point error handling."""
        state = np.random.get_state()  # noqa: NPY002 - the state audited code may disturb
        return {"random": random.getstate(), "numpy.random": state, "numpy.errstate": np.geterr()}

    def restore_globals(self, state: Globals) -> None:
        """Put both generators and the error handling back."""
        random.setstate(state["random"])
        np.random.set_state(state["numpy.random"])  # noqa: NPY002 - restores what the snapshot saved
        np.seterr(**state["numpy.errstate"])

    def call_context(self) -> AbstractContextManager[Any]:
        """Nothing to prepare."""
        return ExitStack()


class TorchFramework(NumpyFramework):
    """PyTorch tensors on one device; also seeds and restores torch's own generators and settings."""

    name = "torch"
    array_type = "torch.Tensor"
    differentiable = True

    def __init__(self, dtype: str, device: str = "cpu") -> None:
        try:
            import torch
        except ImportError as error:
            raise SubjectError("expected PyTorch for a subject with framework='torch', got no torch; "
                               'try: pip install "iresnet-ref[torch]"') from error
        self.torch, self.dtype, self.device = torch, dtype, device
        self._dtype = getattr(torch, dtype)
        self._only_cpu = not torch.accelerator.is_available() if hasattr(torch, "accelerator") else False
        try:
            torch.zeros(1, dtype=self._dtype, device=device)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise SubjectError(f"expected a usable torch device, got device={device!r} ({error}); "
                               "try device='cpu', or see: iresnet-verify doctor") from error

    def native(self, a: HostArray, requires_grad: bool = False) -> Native:
        """Return a fresh contiguous leaf tensor."""
        tensor = self.torch.tensor(np.ascontiguousarray(a), dtype=self._dtype, device=self.device)
        return tensor.requires_grad_(requires_grad)

    def host(self, a: Native) -> HostArray:
        """Return a detached NumPy copy."""
        a = a.detach().cpu()
        return np.array((a.float() if a.dtype == self.torch.bfloat16 else a).numpy(), copy=True)

    def is_array(self, a: object) -> bool:
        """Tensors."""
        return isinstance(a, self.torch.Tensor)

    def seed(self, n: int) -> None:
        """Seed `random`, NumPy and torch (all its devices).

        Where torch has no device but the CPU its one generator is seeded directly: `torch.manual_seed` formats three
        stack traces for devices that do not exist, which was 60 % of an audit of a small network.
        """
        super().seed(n)
        if self._only_cpu:
            self.torch.default_generator.manual_seed(n)
        else:
            self.torch.manual_seed(n)

    def snapshot_globals(self) -> Globals:
        """Add torch's generators, default dtype, gradient mode and determinism switch."""
        t = self.torch
        cuda = t.cuda.get_rng_state_all() if t.cuda.is_initialized() else []
        return {**super().snapshot_globals(), "torch.random": t.get_rng_state(), "torch.cuda.random": cuda,
                "torch.default_dtype": t.get_default_dtype(), "torch.grad_enabled": t.is_grad_enabled(),
                "torch.deterministic": t.are_deterministic_algorithms_enabled(), "torch.threads": t.get_num_threads()}

    def restore_globals(self, state: Globals) -> None:
        """Put all of them back."""
        super().restore_globals(state)
        t = self.torch
        t.set_rng_state(state["torch.random"])
        if state["torch.cuda.random"]:
            t.cuda.set_rng_state_all(state["torch.cuda.random"])
        t.set_default_dtype(state["torch.default_dtype"])
        t.set_grad_enabled(state["torch.grad_enabled"])
        if t.get_num_threads() != state["torch.threads"]:
            t.set_num_threads(state["torch.threads"])
        if t.are_deterministic_algorithms_enabled() != state["torch.deterministic"]:
            t.use_deterministic_algorithms(state["torch.deterministic"])

    def call_context(self) -> AbstractContextManager[Any]:
        """Autograd enabled, whatever surrounds the audit."""
        stack = ExitStack()
        if self.torch.is_inference_mode_enabled():
            stack.enter_context(self.torch.inference_mode(False))
        stack.enter_context(self.torch.enable_grad())
        return stack


class BackendFramework(NumpyFramework):
    """Any other name that `iresnet_backends.get` accepts: array-api-strict, cupy, jax, …"""

    def __init__(self, name: str, dtype: str) -> None:
        import iresnet_backends
        from iresnet_ref.errors import IResNetError

        try:
            self.backend = iresnet_backends.get(name, dtype=dtype)
            array = self.backend.asarray(np.zeros(1, dtype=HOST_DTYPE[dtype]))
        except (IResNetError, ValueError, TypeError, ImportError) as error:
            raise SubjectError(f"expected a framework that iresnet_backends.get accepts, got framework={name!r}, "
                               f"dtype={dtype!r} ({error}); try framework='torch' or 'numpy', "
                               "or see: iresnet-verify doctor") from error
        self.name, self.dtype, self._type = name, dtype, type(array)
        self.array_type = f"{self._type.__module__.split('.')[0]}.{self._type.__name__}"

    def native(self, a: HostArray, requires_grad: bool = False) -> Native:
        """Return a fresh array of the backend."""
        return self.backend.asarray(np.array(a, dtype=HOST_DTYPE[self.dtype], order="C", copy=True))

    def host(self, a: Native) -> HostArray:
        """Return a NumPy copy."""
        return np.array(self.backend.to_numpy(a), copy=True)

    def is_array(self, a: object) -> bool:
        """Arrays of the backend's type."""
        return isinstance(a, self._type) or (hasattr(a, "__array_namespace__") and not isinstance(a, np.ndarray))


def framework_of(subject: Subject) -> Framework:
    """Return the framework a subject declares, or raise a `SubjectError` that names the remedy."""
    if subject.dtype not in UNIT_ROUNDOFF:
        raise SubjectError(f"expected dtype one of {sorted(UNIT_ROUNDOFF)}, got dtype={subject.dtype!r}; "
                           "try dtype='float64'")
    name, _, device = subject.framework.partition(":")
    device = device or subject.device
    if name == "torch":
        return TorchFramework(subject.dtype, device)
    if name == "numpy":
        return NumpyFramework(subject.dtype, device)
    return BackendFramework(name if device == "cpu" else f"{name}:{device}", subject.dtype)
