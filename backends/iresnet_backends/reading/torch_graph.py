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
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from iresnet_backends.errors import ModuleError
from iresnet_backends.reading.forward_graph import Value
from iresnet_backends.reading.observed import unobserved
from iresnet_backends.reading.sorting import ORDER, Sorting
from iresnet_backends.reading.torch_library import TORCH

ROWS = 5
"""Rows of the batch that is followed; the comparison takes another number."""
ABOUT = frozenset([
    "dtype", "device", "ndim", "is_cuda", "is_cpu", "is_mps", "is_meta", "is_sparse", "is_quantized", "is_nested", "layout", "dim",
    "ndimension", "element_size", "is_floating_point", "is_complex", "get_device",
])  # fmt: skip
"""What may be asked of a value: the same for every batch, in every mode."""
SIZED = frozenset(["reshape", "view", "expand", "unflatten"])
"""Functions that take the number of rows as the first side of a shape."""

ANY_ROWS = "expected a forward that does the same for any number of rows"
Rule = Callable[..., Any]
WITH_ORDER = frozenset(["sort", "topk", "max", "min"])
"""Functions whose second result is the order of the first."""
DECLARED = "declared as "
"""How the functions of declared activations begin, which are no functions of torch."""


class Followed(torch.Tensor):
    """A tensor that depends on the input, as rules see it: `value` says how. The code of the module sees plain tensors."""

    value: Value
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # its stub is another's


class _Unasked:
    """What a `Rows` computes with: nothing."""

    def __getattr__(self, name: str) -> Any:
        raise ModuleError(f"from_torch: {ANY_ROWS}, got one that computes with their number ({name}); try x.shape[1:] or -1")


class Rows(torch.SymInt):
    """The number of rows: a side of a new shape, equal to itself, and nothing else."""

    def __init__(self) -> None:
        super().__init__(_Unasked())  # type: ignore[no-untyped-call]  # torch does not annotate it

    __class__: Any = property(lambda self: int)


def _asking(name: str) -> Callable[..., Any]:
    def method(self: Rows, *others: Any) -> Any:
        return (others and self is others[0] and name == "__eq__") or _Unasked.__getattr__(self.node, name)

    return method


for _method in set(dir(int)) - set(dir(object)) - {"__getnewargs__"} | {
    "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__repr__", "__str__", "__format__",
}:  # fmt: skip
    setattr(Rows, _method, _asking(_method))


class Graph:
    """The calls of one forward pass; `rules` has a function for each function of torch that can be read, None: they are listed only."""

    def __init__(self, module: Any, rules: dict[str, Rule] | None, refused: dict[str, str]) -> None:
        self.names = {id(part): name or "the module" for name, part in module.named_modules()}
        self.rules, self.refused = rules, refused
        self.recording = False
        self.sorting = Sorting()
        self.rounded: list[str] = []
        """The calls whose constants, such as the 1/3 of a mean, are no numbers of the dtype: they were rounded to it."""
        self.rows = Rows()
        self.calls: list[Any] = []
        """Each function by its name, with its arguments: what is followed as None, tensors by content."""
        self.refusal: ModuleError | None = None
        """The first error, whatever the module has made of it."""
        self._values: dict[int, tuple[weakref.ref[Any], Value]] = {}
        self._memory: dict[int, tuple[Any, tuple[int, int, int]]] = {}
        """What followed tensors lie in: kept, so that nothing else comes to lie there."""

    def add_rule(self, name: str, rule: Rule) -> None:
        """Read one more function, where functions are read."""
        if self.rules is not None:
            self.rules[name] = rule

    def follow(self, x: Any, value: Value) -> Any:
        """Follow a tensor from now on: it is this value."""
        self._values[id(x)] = (weakref.ref(x), value)
        memory = _memory(x)
        self._memory[memory[0]] = (x.untyped_storage(), memory)
        return x

    def value(self, x: Any) -> Value | None:
        """Return what a tensor is, None where it does not depend on the input."""
        reference, value = self._values.get(id(x), (None, None))
        return value if reference is not None and reference() is x else None

    def call(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Compute the function, and record what it is by its rule. Raises ModuleError."""
        with torch._C.DisableTorchFunction():
            if not any(leaf is self.rows or self.value(leaf) is not None for leaf in tree_leaves((args, kwargs))):
                return function(*args, **kwargs)
            before, self.recording = self.recording, True
            try:
                return self._recorded(function, args, kwargs)
            except ModuleError as error:
                self.refusal = self.refusal or error
                raise
            finally:
                self.recording = before

    def _recorded(self, function: Any, args: Any, kwargs: Any) -> Any:
        name = _name(function)
        if name in ABOUT:
            return function(*args, **kwargs)
        if name in ("shape", "size"):
            rows: Any = self.rows  # an integer to torch
            shape = torch.Size((rows, *args[0].shape[1:]))
            sides = [*args[1:], *kwargs.values()]
            return shape[sides[0]] if sides and sides[0] is not None else shape
        in_place = _in_place(name, kwargs) or (
            name in INPLACE_THIRD and len(args) > INPLACE_THIRD[name] and args[INPLACE_THIRD[name]] is True
        )
        plain = name if name.startswith("__") else name.rstrip("_") if in_place else name
        rule = _listed if self.rules is None else self.rules.get(plain) if kwargs.get("out") is None else None
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
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and self.value(leaf) is not None]
        if any(self.value(leaf) is ORDER for leaf in inputs):
            raise ModuleError(
                f"from_torch: expected values in {plain} at {self.place()}, got the order that a sort has found: what is read by it "
                "jumps where the order changes; try the sorted values"
            )
        plain_args, plain_kwargs = self._sized(args, ROWS), self._sized(kwargs, ROWS)
        if plain_args is not args or plain_kwargs is not kwargs:
            self._require_any_rows(function, args, kwargs, plain, inputs)
        if in_place:
            self._require_sole_name(args[0] if args else None, plain)
        result = function(*plain_args, **plain_kwargs)
        self._require_rows(result, plain, inputs[0])
        self.calls.append((name, tree_map(self._written, (args, kwargs))))
        marked, marked_kwargs = self._marked(args), self._marked(kwargs)
        try:
            made = rule(Call(self, function, marked, marked_kwargs, plain_args, plain_kwargs, result, plain), *marked, **marked_kwargs)
        except TypeError as error:
            raise ModuleError(
                f"from_torch: expected the usual arguments of {plain} at {self.place()}, got others ({error}); nothing is known of that"
            ) from error
        if in_place:
            return self.follow(args[0], made.value if isinstance(made, Followed) else made)
        if isinstance(made, (tuple, list)):
            return type(result)(self.follow(r, v) for r, v in zip(result, made, strict=True))
        return self.follow(result, made.value if isinstance(made, Followed) else made)

    def _marked(self, tree: Any) -> Any:
        """Return arguments as rules see them: what is followed bears its value."""
        def mark(leaf: Any) -> Any:
            value = self.value(leaf) if isinstance(leaf, torch.Tensor) else None
            if value is None:
                return leaf
            followed: Followed = leaf.detach().as_subclass(Followed)
            followed.value = value
            return followed

        return tree_map(mark, tree)

    def _written(self, leaf: Any) -> Any:
        if leaf is self.rows or (isinstance(leaf, torch.Tensor) and self.value(leaf) is not None):
            return None
        return repr(leaf) if (content := TORCH.content(leaf)) is None else content

    def _sized(self, tree: Any, rows: int) -> Any:
        """Return arguments with a number for that of the rows; the same object where there is none."""
        has = any(leaf is self.rows for leaf in tree_leaves(tree))
        return tree_map(lambda leaf: rows if leaf is self.rows else leaf, tree) if has else tree

    def _require_any_rows(self, function: Any, args: Any, kwargs: Any, name: str, inputs: list[Any]) -> None:
        """Refuse the number of rows anywhere but as the first side of a shape, with which events come out the same for another number."""
        shapes = []
        for rows in (ROWS, ROWS + 2) if name in SIZED and len(inputs) == 1 else ():
            other = torch.empty((rows, *inputs[0].shape[1:]), device="meta")
            put = tree_map(lambda leaf, other=other: other if leaf is inputs[0] else leaf, self._sized((args, kwargs), rows))
            shapes.append(tuple(function(*put[0], **put[1]).shape))
        if not shapes or shapes[0][1:] != shapes[1][1:] or [s[0] for s in shapes] != [ROWS, ROWS + 2]:
            raise ModuleError(
                f"from_torch: {ANY_ROWS}, got {name} of their number at {self.place()}; try x.shape[1:] or -1"
            )

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
        return any(mine[0] == its[0] or (mine[1] < its[2] and its[1] < mine[2]) for _, its in self._memory.values())

    def _require_plain(self, args: Any, kwargs: Any, name: str) -> None:
        """Refuse constants of a class with operations of its own (quantised weights), or in the memory of the input."""
        for leaf in tree_leaves((args, kwargs)):
            if not isinstance(leaf, torch.Tensor) or self.value(leaf) is not None:
                continue
            if self.watched(leaf):
                raise ModuleError(
                    f"from_torch: expected functions of torch that can be followed, got numbers of the input past them in {name} at "
                    f"{self.place()}"
                )
            if not _ordinary(type(leaf)):
                raise ModuleError(
                    f"from_torch: expected plain tensors in {name} at {self.place()}, got a {type(leaf).__name__}, which may compute it in "
                    "its own way; try the module before it was converted"
                )

    def _require_rows(self, result: Any, name: str, x: Any) -> None:
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
        if self.value(x) is None:
            raise ModuleError(f"from_torch: expected {name} in place on what depends on the input at {self.place()}, got it on a constant")
        for reference, _ in self._values.values():
            other = reference()
            if other is not None and other is not x and other.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
                raise ModuleError(
                    f"from_torch: expected {name} in place on a tensor without a view at {self.place()}, got one with; try inplace=False"
                )


class Recorder(TorchFunctionMode):
    """Hands every function of torch that meets a followed tensor, or the number of its rows, to the graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record the call."""
        del types
        with unobserved():
            return self.graph.call(function, args, kwargs or {})


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]  # annotated in some torch
    """Refuses every operation on the memory of a followed tensor that no recorded call makes."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]  # annotated in some torch
        self.graph = graph


def _watched_dispatch(watch: Watch, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    """Compute an operation, unless it reads past the record. Raises ModuleError."""
    del types
    kwargs, graph = kwargs or {}, watch.graph
    with torch._C.DisableTorchFunction():
        if graph.recording:
            return function(*args, **kwargs)
        if any(isinstance(leaf, torch.Tensor) and graph.watched(leaf) for leaf in tree_leaves((args, kwargs))):
            graph.refusal = graph.refusal or ModuleError(
                f"from_torch: expected functions of torch that can be followed, got {function} on the numbers of the input at "
                f"{graph.place()}; parts of the forward that are compiled, scripted or copied (torch.tensor) cannot be read"
            )
        elif torch.Tag.nondeterministic_seeded in function.tags:
            graph.refusal = graph.refusal or ModuleError(
                f"from_torch: expected a forward without random numbers, got {function} at {graph.place()}"
            )
        if graph.refusal is not None:
            raise graph.refusal
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
                if a is self.graph.rows:
                    return rows.shape[0]
                if isinstance(a, torch.Tensor) and a.is_floating_point():
                    return a.double()
                return type(a)(put(b) for b in a) if type(a) in (tuple, list) else a

            with torch._C.DisableTorchFunction(), torch.no_grad():
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
        return next(a for a in tree_leaves((self.args, self.kwargs)) if isinstance(a, Followed)).device


def _listed(call: Call, *args: Any, **kwargs: Any) -> Any:
    """The rule of a function that is not read again: only where its results come from."""
    del args, kwargs
    source = next(leaf.value for leaf in tree_leaves((call.args, call.kwargs)) if isinstance(leaf, Followed))
    values = [Value(event, (source,)) for event in call.events()]
    return values if isinstance(call.result, (tuple, list)) else values[0]


def _name(function: Any) -> str:
    name = getattr(function, "__name__", str(function))
    return str(function.__self__.__name__) if name == "__get__" else str(name)


def _of_torch(function: Any) -> bool:
    """Whether a function is one of torch itself: of its public face, or an operator of ATen; other libraries take its names too."""
    name: Any = torch.overrides.resolve_name(function)  # type: ignore[no-untyped-call, unused-ignore]  # annotated in some torch
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
