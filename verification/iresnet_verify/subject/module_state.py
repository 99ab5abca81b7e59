"""The state of a torch module, put back bit for bit: tensors, flags, modes, gradients, and the attributes that hold them.

Many published layers keep state outside `state_dict`: an `initialized` flag in a Python attribute, a cached log-det
in a plain tensor. So the snapshot holds, with parameters and buffers, every attribute of a plain immutable type and
every plain tensor attribute of every submodule. Containers (lists, dicts) are not followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

PLAIN = (bool, int, float, complex, str, bytes, type(None), tuple, frozenset)
_TABLES = ("_parameters", "_buffers", "_modules")


def is_torch_module(module: Any) -> bool:
    """Whether `module` is a `torch.nn.Module` (without importing torch for those who have none)."""
    return any(c.__module__.startswith("torch.nn") and c.__name__ == "Module" for c in type(module).__mro__)


def has_modes(module: Any) -> bool:
    """Whether `module` can be put into training and evaluation mode."""
    return callable(getattr(module, "train", None)) and callable(getattr(module, "eval", None))


def set_mode(module: Any, mode: str | None) -> None:
    """Put `module` into `mode` ("train" or "eval"); None, and modules without modes, are left alone."""
    if mode is not None and has_modes(module):
        module.train() if mode == "train" else module.eval()


@contextmanager
def copied_arguments(module: Any) -> Iterator[None]:
    """Let a torch module be called on copies of its tensors, which it may then change, for the length of the block."""
    if not is_torch_module(module):
        yield
        return
    hook = module.register_forward_pre_hook(lambda _, given: tuple(a.clone() if _is_tensor(a) else a for a in given))
    try:
        yield
    finally:
        hook.remove()


class ModuleState:
    """A snapshot of one module."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self._tables: list[tuple[Any, dict[str, dict[str, Any]]]] = []
        self._plain: list[tuple[Any, dict[str, Any]]] = []
        self._tensors: dict[int, tuple[Any, Any, bool, Any, Any]] = {}
        for sub in module.modules() if is_torch_module(module) else ():
            self._tables.append((sub, {t: dict(getattr(sub, t)) for t in _TABLES}))
            kept = _kept(sub)
            self._plain.append((sub, kept))
            for tensor in (*sub._parameters.values(), *sub._buffers.values(), *filter(_is_tensor, kept.values())):
                if tensor is not None and id(tensor) not in self._tensors:
                    grad = tensor.grad if tensor.is_leaf else None
                    copy = None if grad is None else grad.detach().clone()
                    self._tensors[id(tensor)] = (tensor, tensor.detach().clone(), tensor.requires_grad, grad, copy)

    def changes(self) -> list[str]:
        """Names of the tensors, flags and attributes that differ from the snapshot now."""
        found = []
        names = {id(t): n for n, t in (*self.module.named_parameters(), *self.module.named_buffers())} \
            if is_torch_module(self.module) else {}
        for key, (tensor, value, requires_grad, grad, kept) in self._tensors.items():
            name = names.get(key, "tensor attribute")
            if not _equal(tensor.detach(), value):
                found.append(name)
            if tensor.requires_grad != requires_grad:
                found.append(f"{name}.requires_grad")
            if tensor.is_leaf and (tensor.grad is not grad or (grad is not None and not _equal(grad, kept))):
                found.append(f"{name}.grad")
        for sub, tables in self._tables:
            found += [f"{type(sub).__name__}.{k}" for t in _TABLES for k in tables[t].keys() | getattr(sub, t).keys()
                      if tables[t].get(k) is not getattr(sub, t).get(k)]
        for sub, attributes in self._plain:
            now = _kept(sub) | {k: v for k, v in vars(sub).items() if k in attributes}
            found += [f"{type(sub).__name__}.{k}" for k in attributes.keys() | now.keys()
                      if k not in now or k not in attributes or not _same(now[k], attributes[k])]
        return found

    def restore(self) -> None:
        """Put everything back, touching no version counter of what did not change."""
        for sub, tables in self._tables:
            for name in _TABLES:
                current, kept = getattr(sub, name), tables[name]
                if list(current) != list(kept) or any(current[k] is not v for k, v in kept.items()):
                    current.clear()
                    current.update(kept)
        for sub, attributes in self._plain:
            for name in _kept(sub).keys() - attributes.keys():
                del vars(sub)[name]
            vars(sub).update(attributes)
        for tensor, value, requires_grad, grad, kept_grad in self._tensors.values():
            _refill(tensor, value)
            if tensor.is_leaf:
                if tensor.requires_grad != requires_grad:
                    tensor.requires_grad_(requires_grad)
                if grad is not None:
                    _refill(grad, kept_grad)
                if tensor.grad is not grad:
                    tensor.grad = grad


@contextmanager
def preserved(module: Any) -> Iterator[None]:
    """Put the state of `module` back on leaving, however the block ends."""
    if not is_torch_module(module):
        yield
        return
    state = ModuleState(module)
    try:
        yield
    finally:
        state.restore()


def _refill(tensor: Any, value: Any) -> None:
    """Give `tensor` the values it had, past its version counter, so that graphs built meanwhile stay usable."""
    if _equal(tensor.detach(), value):
        return
    if tensor.shape == value.shape and tensor.dtype == value.dtype and tensor.device == value.device:
        tensor.data.copy_(value)
    else:
        tensor.data = value.clone()


def _kept(sub: Any) -> dict[str, Any]:
    """The attributes of a module, beside its tables, that are of a plain type or tensors."""
    return {k: v for k, v in vars(sub).items() if _is_kept(type(v)) and k not in _TABLES}  # type: ignore[arg-type]  # mypy takes no class for hashable


@cache
def _is_kept(kind: type) -> bool:
    return issubclass(kind, PLAIN) or _is_tensor_type(kind)  # type: ignore[arg-type]  # mypy takes no class for hashable


@cache
def _is_tensor_type(kind: type) -> bool:
    return kind.__module__.startswith("torch") and hasattr(kind, "detach") and hasattr(kind, "is_leaf")


def _is_tensor(value: Any) -> bool:
    return _is_tensor_type(type(value))  # type: ignore[arg-type]  # mypy takes no class for hashable


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if _is_tensor(a) and _is_tensor(b):
        return _equal(a.detach(), b.detach())
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and isinstance(a, PLAIN) and bool(a == b)


def _equal(a: Any, b: Any) -> bool:
    """Bitwise enough: same shape, dtype and values, NaN equal to NaN."""
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    return bool(a.equal(b)) or bool(((a == b) | (a.isnan() & b.isnan())).all())
