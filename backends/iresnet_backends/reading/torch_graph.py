"""Which functions of torch a module applies to its input: its own forward is run on a tensor that records them.

Whatever stands between input and output is seen as it is computed: modules that stand twice, hooks, parametrisations, subclasses with
a forward of their own. All that does not depend on the input stays an ordinary tensor. A forward that asks for numbers (`if x.sum() > 0`,
`.item()`) is refused, since what it does elsewhere is unknown. So is what reads them past the record (`torch.tensor(x)`, scripted and
compiled parts): every operation that meets the memory of a followed tensor outside of a recorded call.
"""

# pyright: reportPrivateUsage=false
# A recorder of operations stands where torch's public interface ends.

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iresnet_backends.errors import ModuleError
from iresnet_backends.reading.forward_graph import Value
from iresnet_backends.reading.sorting import ORDER, Sorting

ROWS = 5
"""Rows of the batch that is followed; the comparison takes another number."""
ABOUT = frozenset(
    [
        "shape",
        "dtype",
        "device",
        "ndim",
        "is_cuda",
        "is_cpu",
        "is_mps",
        "is_meta",
        "is_sparse",
        "is_quantized",
        "is_nested",
        "layout",
        "requires_grad",
        "is_leaf",
        "grad_fn",
        "grad",
        "size",
        "dim",
        "numel",
        "nelement",
        "ndimension",
        "element_size",
        "is_floating_point",
        "is_complex",
        "is_contiguous",
        "stride",
        "get_device",
        "_version",
        "names",
        "storage_offset",
        "__len__",
        "__hash__",
        "_is_view",
        "is_inference",
        "is_same_size",
    ]
)
"""What may be asked of a value without asking for its numbers."""

Rule = Callable[..., Any]
WITH_ORDER = frozenset(["sort", "topk", "max", "min"])
"""Functions whose second result is the order of the first."""
DECLARED = "declared as "
"""How the functions of declared activations begin, which are no functions of torch."""


class Followed(torch.Tensor):
    """A tensor that depends on the input: `value` says how."""

    value: Value
    graph: Graph

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record the call."""
        del types
        kwargs = kwargs or {}
        graphs = [a.graph for a in _followed((args, kwargs))]
        if not graphs:  # a constructor or a class method
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **kwargs)
        return graphs[0].call(function, args, kwargs)


class Graph:
    """The calls of one forward pass; `rules` has a function for each function of torch that can be read."""

    def __init__(self, module: Any, rules: dict[str, Rule], refused: dict[str, str]) -> None:
        self.names = {id(part): name or "the module" for name, part in module.named_modules()}
        self.rules, self.refused = rules, refused
        self.recording = False
        self.sorting = Sorting()
        self.rounded: list[str] = []
        """The calls whose constants, such as the 1/3 of a mean, are no numbers of the dtype: they were rounded to it."""
        self._alive: list[weakref.ref[Followed]] = []

    def follow(self, x: Any, value: Value) -> Followed:
        """Return the tensor as one that is followed."""
        with torch._C.DisableTorchFunctionSubclass():
            tensor: Followed = x.detach().as_subclass(Followed)
        tensor.value, tensor.graph = value, self
        self._alive.append(weakref.ref(tensor))
        return tensor

    def call(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Compute the function, and record what it is by its rule. Raises ModuleError."""
        before, self.recording = self.recording, True
        try:
            return self._recorded(function, args, kwargs)
        finally:
            self.recording = before

    def _recorded(self, function: Any, args: Any, kwargs: Any) -> Any:
        name = _name(function)
        if name in ("__repr__", "__format__"):
            return f"a followed tensor of shape {tuple(args[0].shape)}"  # never its numbers: text can be decided on
        if name in ABOUT:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **kwargs)
        in_place = _in_place(name, kwargs) or (
            name in INPLACE_THIRD and len(args) > INPLACE_THIRD[name] and args[INPLACE_THIRD[name]] is True
        )
        plain = name if name.startswith("__") else name.rstrip("_") if in_place else name
        rule = self.rules.get(plain) if kwargs.get("out") is None else None
        if rule is not None and not (plain.startswith(DECLARED) or _of_torch(function)):
            raise ModuleError(
                f"from_torch: expected functions of torch, got {plain} of another library at {self.place()}: its name says nothing of it"
            )
        if rule is None:
            reason = self.refused.get(plain, "it is no layer whose Lipschitz constant is known here")
            raise ModuleError(
                f"from_torch: expected layers with a known Lipschitz constant, got {plain} at {self.place()}: {reason}"
            )
        self._require_plain(args, kwargs, plain)
        inputs = [a for a in _followed((args, kwargs)) if isinstance(a, Followed)]
        if any(a.value is ORDER for a in inputs):
            raise ModuleError(
                f"from_torch: expected values in {plain} at {self.place()}, got the order that a sort has found: what is read by it "
                "jumps where the order changes; try the sorted values"
            )
        with torch._C.DisableTorchFunctionSubclass():
            plain_args, plain_kwargs = _plain(args), _plain(kwargs)
            if in_place:
                self._require_sole_name(args[0] if args else None, plain)
            result = function(*plain_args, **plain_kwargs)
        self._require_rows(result, plain, inputs[0])
        try:
            made = rule(Call(self, function, args, kwargs, plain_args, plain_kwargs, result, plain), *args, **kwargs)
        except TypeError as error:
            raise ModuleError(
                f"from_torch: expected the usual arguments of {plain} at {self.place()}, got others ({error}); nothing is known of that"
            ) from error
        if isinstance(made, Followed):
            return made
        if in_place:
            inputs[0].value = made
            return inputs[0]
        if isinstance(made, (tuple, list)):
            return type(result)(self.follow(r, v) for r, v in zip(result, made, strict=True))
        return self.follow(result, made)

    def place(self) -> str:
        """Return the class and the name of the module whose code is running."""
        frame: Any = sys._getframe(1)
        while frame is not None:
            part = frame.f_locals.get("self")
            if isinstance(part, torch.nn.Module) and id(part) in self.names:
                name = self.names[id(part)]
                return f"{name} ({type(part).__name__})"
            frame = frame.f_back
        return "the module"

    def watched(self, x: Any) -> bool:
        """Whether a tensor shares its memory with one that is followed, as storage or by address (DLPack makes another storage of it)."""
        mine = _memory(x)
        alive = (_memory(other) for reference in self._alive if (other := reference()) is not None)
        return any(mine[0] == its[0] or (mine[1] < its[2] and its[1] < mine[2]) for its in alive)

    def _require_plain(self, args: Any, kwargs: Any, name: str) -> None:
        """Refuse constants of a class with operations of its own (quantised weights): the record would not see them."""
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, Followed) and not _ordinary(type(leaf)):
                raise ModuleError(
                    f"from_torch: expected plain tensors in {name} at {self.place()}, got a {type(leaf).__name__}, which may compute it in "
                    "its own way; try the module before it was converted"
                )

    def _require_rows(self, result: Any, name: str, x: Followed) -> None:
        parts = result if isinstance(result, (tuple, list)) else (result,)
        for part in parts[:1] if name in WITH_ORDER else parts:
            if not isinstance(part, torch.Tensor) or part.ndim == 0 or part.shape[0] != ROWS or part.dtype != x.dtype:
                got = (
                    f"{part.dtype} of shape {tuple(part.shape)}"
                    if isinstance(part, torch.Tensor)
                    else type(part).__name__
                )
                raise ModuleError(
                    f"from_torch: expected {name} at {self.place()} to keep the dtype and the rows of its batch {tuple(x.shape)}, "
                    f"got {got}; a branch maps each event on its own"
                )

    def _require_sole_name(self, x: Any, name: str) -> None:
        """Refuse to change in place what does not depend on the input, or what shares its memory with a tensor that is still in use."""
        if not isinstance(x, Followed):
            raise ModuleError(f"from_torch: expected {name} in place on what depends on the input at {self.place()}, got it on a constant")
        for reference in self._alive:
            other = reference()
            if other is not None and other is not x and other.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
                raise ModuleError(
                    f"from_torch: expected {name} in place on a tensor without a view at {self.place()}, got one with; try inplace=False"
                )


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Refuses every operation on the memory of a followed tensor that no recorded call makes."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.graph = graph


def _watched_dispatch(watch: Watch, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """Compute an operation, unless it reads past the record. Raises ModuleError."""
    del types
    kwargs, graph = kwargs or {}, watch.graph
    with torch._C.DisableTorchFunctionSubclass():
        if not graph.recording and any(isinstance(leaf, torch.Tensor) and graph.watched(leaf) for leaf in tree_leaves((args, kwargs))):
            raise ModuleError(
                f"from_torch: expected functions of torch that can be followed, got {function} on the numbers of the input at "
                f"{graph.place()}; parts of the forward that are compiled, scripted or copied (torch.tensor) cannot be read"
            )
        return function(*args, **kwargs)


# Not in the body of the class: torch would wrap it there, and the wrapper's first call imports torch._dynamo, which takes seconds.
DISPATCH = "__torch_dispatch__"
setattr(Watch, DISPATCH, _watched_dispatch)


INPLACE_THIRD = {"relu": 1, "elu": 2, "leaky_relu": 2, "selu": 1, "celu": 2, "silu": 1, "mish": 1, "hardtanh": 3, "relu6": 1,
                 "hardswish": 1, "hardsigmoid": 1, "dropout": 3, "rrelu": 4, "threshold": 3}  # fmt: skip
"""The place of `inplace` among the positional arguments of torch.nn.functional."""


class Call:
    """One call: what a rule may look at."""

    def __init__(
        self,
        graph: Graph,
        function: Any,
        args: Any,
        kwargs: Any,
        plain_args: Any,
        plain_kwargs: Any,
        result: Any,
        name: str,
    ) -> None:
        self.graph, self.function, self.args, self.kwargs = graph, function, args, kwargs
        self.plain_args, self.plain_kwargs, self.result, self.name = plain_args, plain_kwargs, result, name

    @property
    def place(self) -> str:
        """Where it stands."""
        return self.graph.place()

    def refuse(self, expected: str, got: str) -> ModuleError:
        """Return the error of a call that no rule takes."""
        return ModuleError(f"from_torch: expected {expected} at {self.place}, got {got}")

    def events(self) -> list[tuple[int, ...]]:
        """Return the event shapes of the results."""
        parts = self.result if isinstance(self.result, (tuple, list)) else (self.result,)
        return [tuple(part.shape[1:]) for part in parts]

    def matrices(self, event: tuple[int, ...]) -> list[tuple[Any, Any]]:
        """Return (matrix, shift) in float64 of each result: the function at 0, and at every unit vector of its one followed argument."""
        n = 1
        for side in event:
            n *= side

        def at(rows: Any) -> list[Any]:
            def put(a: Any) -> Any:
                if isinstance(a, Followed):
                    return rows
                if isinstance(a, torch.Tensor) and a.is_floating_point():
                    return a.double()
                return type(a)(put(b) for b in a) if type(a) in (tuple, list) else a

            with torch._C.DisableTorchFunctionSubclass(), torch.no_grad():
                found = self.function(*(put(a) for a in self.args), **{k: put(a) for k, a in self.kwargs.items()})
            return list(found) if isinstance(found, (tuple, list)) else [found]

        device = self.graph_device()
        shifts = at(torch.zeros((1, *event), dtype=torch.float64, device=device))
        rows = at(torch.eye(n, dtype=torch.float64, device=device).reshape(n, *event))
        return [
            ((image.reshape(n, -1) - shift.reshape(1, -1)).T.contiguous(), shift.reshape(-1))
            for image, shift in zip(rows, shifts, strict=True)
        ]

    def graph_device(self) -> Any:
        """Return the device of the followed argument."""
        with torch._C.DisableTorchFunctionSubclass():
            return next(a for a in _followed((self.args, self.kwargs))).device


def _followed(tree: Any) -> Iterator[Any]:
    if isinstance(tree, Followed):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from _followed(part)
    elif isinstance(tree, dict):
        yield from _followed(tuple(tree.values()))


def _plain(tree: Any) -> Any:
    if isinstance(tree, Followed):
        return tree.as_subclass(torch.Tensor)
    if type(tree) in (tuple, list):
        return type(tree)(_plain(part) for part in tree)
    return {k: _plain(v) for k, v in tree.items()} if isinstance(tree, dict) else tree


def _name(function: Any) -> str:
    name = getattr(function, "__name__", str(function))
    return str(function.__self__.__name__) if name == "__get__" else str(name)


def _of_torch(function: Any) -> bool:
    """Whether a function is one of torch itself: of its public face, or an operator of ATen; other libraries take its names too."""
    name: Any = torch.overrides.resolve_name(function)  # type: ignore[no-untyped-call, unused-ignore]
    operator = isinstance(function, (torch._ops.OpOverload, torch._ops.OpOverloadPacket))
    return name is not None and (not operator or str(name).startswith("aten."))


def _ordinary(kind: Any) -> bool:
    """Whether tensors of a class leave functions and operations as torch has them."""
    function, own = (getattr(f, "__func__", f) for f in (kind.__torch_function__, torch.Tensor.__torch_function__))
    return (
        function in (own, torch._C._disabled_torch_function_impl)
        and getattr(kind, DISPATCH) is getattr(torch.Tensor, DISPATCH)
    )


def _memory(x: Any) -> tuple[int, int, int]:
    """Return the storage of a tensor, and the addresses at which it begins and ends; without memory, none."""
    storage = x.untyped_storage()
    start = 0 if x.is_meta else storage.data_ptr()
    return storage._cdata, start, start + (storage.nbytes() if start else 0)


def _in_place(name: str, kwargs: Any) -> bool:
    return (
        kwargs.get("inplace") is True
        or (name.endswith("_") and not name.endswith("__"))
        or (name.startswith("__i") and name != "__invert__")
    )


@contextmanager
def undisturbed(module: Any, evaluate: bool = True) -> Iterator[None]:
    """Evaluation mode unless told otherwise, no gradients, plain sums (no Winograd, no TF32), and everything put back: modes, state, seeds.

    Raises: ModuleError where the forward has changed the module's state, since the next one would then compute something else.
    """
    modes = [(part, part.training) for part in module.modules()]
    state = [
        (stored, name, prefix, tensor, tensor.detach().clone())
        for prefix, part in module.named_modules() for stored in (part._parameters, part._buffers)
        for name, tensor in stored.items() if tensor is not None
    ]  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        libraries: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
        for library in libraries:
            stack.callback(setattr, library, "enabled", library.enabled)
            library.enabled = False
        changed = []
        try:
            for part, _ in modes if evaluate else ():
                part.training = False
            yield
        finally:
            for part, mode in modes:
                part.training = mode
            for stored, name, prefix, tensor, before in state:
                now = stored.get(name)
                if (
                    now is not tensor
                    or tensor.shape != before.shape
                    or not torch.equal(tensor.nan_to_num(), before.nan_to_num())
                ):
                    changed.append(f"{prefix}.{name}".lstrip("."))
                    tensor.data = before
                    stored[name] = tensor
        if changed:
            raise ModuleError(
                "from_torch: expected a forward that leaves the module as it is, got one that changed "
                f"{', '.join(changed[:3])}; if that happens once only, call the module once before"
            )


def place_of(error: BaseException, module: Any) -> str:
    """Return the name and class of the innermost module in which an error was raised."""
    names = {id(part): name or "the module" for name, part in module.named_modules()}
    found, trace = "the module", error.__traceback__
    while trace is not None:
        part = trace.tb_frame.f_locals.get("self")
        if isinstance(part, torch.nn.Module) and id(part) in names:
            found = f"{names[id(part)]} ({type(part).__name__})"
        trace = trace.tb_next
    return found
