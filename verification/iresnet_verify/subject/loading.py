"""FILE.py:FACTORY -> subjects.

The file is imported under a private name, so a file called `zuko.py` does not hide the package it adapts; its folder
and the current one are put at the *end* of `sys.path`, so siblings can be imported; no bytecode is written.
`random`, NumPy and torch are seeded before the file is imported and again before the factory is called (torch at the
moment it is first imported, if that happens inside the factory), so equal seeds give equal subjects in every process.

Whatever goes wrong ends in one `SubjectError` that names the cause and the remedy.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.subject import Subject

EXAMPLE = "iresnet-verify audit my_network.py:make_subject"


@dataclass(frozen=True)
class Origin:
    """Where subjects come from: a file, the name of a factory in it, the backend asked for, and further arguments of the factory."""

    file: str
    factory: str
    backend: str | None = None
    arguments: tuple[tuple[str, Any], ...] = ()
    """Names and values (numbers, texts, truth values) that the factory is called with, beside backend=."""

    def __str__(self) -> str:
        """FILE.py:FACTORY, as on the command line."""
        return f"{self.file}:{self.factory}"

    @property
    def keywords(self) -> dict[str, Any]:
        """What the factory is called with."""
        return {**({} if self.backend is None else {"backend": self.backend}), **dict(self.arguments)}

    @property
    def call(self) -> str:
        """The arguments of that call as Python, e.g. `backend='torch', depth=3`."""
        return ", ".join(f"{k}={v!r}" for k, v in self.keywords.items())


def parse(spec: str, backend: str | None = None) -> Origin:
    """Split FILE.py:FACTORY and check that the file exists."""
    file, colon, factory = spec.rpartition(":")
    if not colon or not file or not factory or "/" in factory or "\\" in factory:
        raise SubjectError(f"{spec!r}: expected FILE.py:FACTORY, for example `{EXAMPLE}`")
    path = Path(file)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise SubjectError(f"{spec!r}: the file {file} {what} (looked in {Path.cwd()}); check the path")
    return Origin(str(path.resolve()), factory, backend)


def load(origin: Origin | str, seed: int = 0) -> list[Subject]:
    """Import the file, call the factory, and return its subjects (`validation.validate` checks their fields)."""
    origin = parse(origin) if isinstance(origin, str) else origin
    with _torch_seeded_on_import(seed):
        seed_everything(seed)
        factory = attribute(import_file(origin), origin)
        seed_everything(seed)
        return _subjects(_call(factory, origin), origin)


def seed_everything(seed: int) -> None:
    """Seed `random`, NumPy's global generator and, where it is loaded, torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  audited code draws from the *global* generator
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


class _SeedTorch(importlib.abc.MetaPathFinder):
    """Seeds torch as soon as it has been imported."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Let the usual finders find torch, and seed it when its module has been executed."""
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torch")
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_seed(module: ModuleType) -> None:
                execute(module)
                module.manual_seed(self.seed)

            setattr(spec.loader, "exec_module", execute_and_seed)  # noqa: B010  a method, replaced on one instance
        return spec


@contextmanager
def _torch_seeded_on_import(seed: int) -> Iterator[None]:
    finder = _SeedTorch(seed)
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


def import_file(origin: Origin) -> ModuleType:
    """Import the file under a private name. Raises `SubjectError`."""
    path = Path(origin.file)
    name = "_iresnet_subject_" + "".join(c if c.isalnum() else "_" for c in path.stem)
    spec = importlib.util.spec_from_loader(name, importlib.machinery.SourceFileLoader(name, str(path)))
    if spec is None:
        raise SubjectError(f"{origin.file}: expected a Python file; rename it to something.py")
    module = importlib.util.module_from_spec(spec)
    for folder in (str(path.parent), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)
    sys.modules[name] = module
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        if spec.loader is not None:
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        sys.modules.pop(name, None)
        raise SubjectError(f"{origin.file} does not import: {_cause(error, origin)}. {_remedy(error)}") from error
    finally:
        sys.dont_write_bytecode = written
    return module


def attribute(module: ModuleType, origin: Origin) -> Any:
    """What the file calls `origin.factory`. Raises `SubjectError`."""
    found: Any = module
    for part in origin.factory.split("."):
        if not hasattr(found, part):
            functions = (v for v in vars(module).values() if inspect.isfunction(v))
            own = ", ".join(sorted(v.__name__ for v in functions if v.__module__ == module.__name__))
            names = f"the functions defined there are {own}" if own else "it defines no function"
            raise SubjectError(f"{origin.file} has no factory {origin.factory!r}; {names}")
        found = getattr(found, part)
    return found


def _call(factory: Any, origin: Origin) -> object:
    if not callable(factory):
        raise SubjectError(f"{origin}: expected a function without arguments that returns a Subject, got "
                           f"{_describe(factory)}; write `def factory(): return ...`")
    keywords = origin.keywords
    if origin.backend is not None:
        if not _takes(factory, "backend"):
            raise SubjectError(
                f"{origin}: the factory has no parameter backend=, so --backend {origin.backend} cannot be passed on; "
                f"leave --backend out, or write `def {origin.factory}(backend=...)`"
            )
        _known_backend(origin.backend)
    try:
        inspect.signature(factory).bind(**keywords)
    except TypeError as error:
        called = f"with {origin.call}" if origin.arguments else "without arguments"
        raise SubjectError(f"{origin}: a factory is called {called}, but {error}; give its parameters default values") from None
    except ValueError:
        pass  # no signature to be had (a C function): call it and see
    try:
        return factory(**keywords)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise SubjectError(f"{origin}: the factory raised {_cause(error, origin)}. {_remedy(error)}") from error


def _takes(factory: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _known_backend(name: str) -> None:
    from iresnet_backends import get

    try:
        get(name)
    except Exception as error:
        raise SubjectError(
            f"--backend {name}: {type(error).__name__}: {error}; `iresnet-verify doctor` lists what works here"
        ) from error


def _subjects(made: object, origin: Origin) -> list[Subject]:
    subjects = list(made) if isinstance(made, list | tuple) else [made]
    if not subjects:
        raise SubjectError(f"{origin}: the factory returned an empty list; expected a Subject or a list of them")
    return [_checked(subject, origin) for subject in subjects]


def _checked(subject: object, origin: Origin) -> Subject:
    if not isinstance(subject, Subject):
        raise SubjectError(
            f"{origin}: the factory returned {_describe(subject)}, expected a Subject or a list of them; end it with "
            "`return Subject(name=..., event_shape=..., forward=...)` (from iresnet_verify import Subject)"
        )
    return subject


def _describe(value: object) -> str:
    return "None (is the `return` missing?)" if value is None else f"a {type(value).__name__}"


def _cause(error: BaseException, origin: Origin) -> str:
    """The exception in one line, with the deepest line of the subject's own file that led to it."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == origin.file]
    where = f" (line {lines[-1]})" if lines and lines[-1] is not None else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' + text if text else ''}{where}"


def _remedy(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".")[0]
        return f"Install it into this environment (`{sys.executable} -m pip install {package}`), or correct the import"
    if isinstance(error, SystemExit):
        return "A subject file must not exit: move script code under `if __name__ == \"__main__\":`"
    return "Run the file with `python` to see the whole traceback, correct it, and audit again"
