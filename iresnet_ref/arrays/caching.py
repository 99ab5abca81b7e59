"""Caches of values that torch's compiler can see through, and methods that it calls instead of tracing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

Value = TypeVar("Value")
Method = TypeVar("Method", bound=Callable[..., Any])


class lazy(Generic[Value]):  # noqa: N801 - used as `cached_property` is
    """A property computed once per object, as `functools.cached_property`, which in Python 3.11 takes a lock no compiler can enter.

    Objects are values here, frozen: two threads may compute it twice, and get the same.
    """

    def __init__(self, function: Callable[[Any], Value]) -> None:
        self.function, self.name, self.__doc__ = function, function.__name__, function.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> Self: ...
    @overload
    def __get__(self, owner: object, kind: type | None = None) -> Value: ...
    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        """Return the value, and leave it where it is found before this property from now on."""
        if owner is None:
            return self
        value = self.function(owner)
        object.__setattr__(owner, self.name, value)
        return value


def outside_the_graph(method: Method) -> Method:
    """Let torch's compiler call this method as it is, on the object that it meets while tracing, instead of tracing it.

    What `torch.compiler.assume_constant_result` does, without importing torch. The method may only fill a cache of its
    object: reading the cache afterwards is traced, so that a call with another object is compiled again.
    """
    vars(method)["_dynamo_marked_constant"] = True
    return method
