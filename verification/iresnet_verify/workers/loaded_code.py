"""What code a worker has loaded: the digest of every source file that was executed and of every file that was opened.

In effect only in a process that called `watch`. A source file outside the standard library, site-packages and this distribution
is compiled from its text, never from a cache, and the digest is that of the very bytes that were compiled; extension modules
and other files are digested when they are opened. What the process wrote itself does not count, unless it executed it.

Not seen: files that C or C++ opens without Python, the environment, names of files in a folder, files that were looked for in vain.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import os
import site
import sys
import sysconfig
import threading
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import iresnet_backends
import iresnet_ref

OURS = tuple(str(Path(p or ".").resolve().parent) + os.sep
             for p in (iresnet_ref.__file__, iresnet_backends.__file__, Path(__file__).parent))
"""The folders of this distribution's packages."""


@dataclass(frozen=True)
class LoadedCode:
    """What an audit depended on, as the worker saw it."""

    files: dict[str, str]
    """SHA-256 of each file, by its absolute path."""
    modules: tuple[str, ...]
    """Top-level names of the modules loaded from site-packages."""
    changed: tuple[str, ...] = ()
    """Files that had another content later than when they were read first: nothing can be said about the code that ran."""


def digest_of(path: str) -> str:
    """SHA-256 of a file's content."""
    with open(path, "rb") as file:  # noqa: PTH123  pathlib's open is slower, and this runs inside an audit hook
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The folders of installed packages, and those of everything else that is no code of the subject's."""
    paths = sysconfig.get_paths()
    installed = {paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages()}
    other = {paths["stdlib"], paths["platstdlib"], "/proc", "/sys", "/dev", *OURS}
    return tuple(os.path.join(p, "") for p in installed), tuple(os.path.join(p, "") for p in other)  # noqa: PTH118


INSTALLED, OTHER = _folders()


class _Watch:
    """The state of the watch in this process."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.changed: set[str] = set()
        self.executed: set[str] = set()
        self.written: set[str] = set()
        self.ignored: tuple[str, ...] = ()
        self.busy = threading.local()

    def note(self, path: str, digest: str) -> None:
        if self.files.setdefault(path, digest) != digest:
            self.changed.add(path)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in ("open", "import", "os.rename") or getattr(self.busy, "now", False):
            return
        self.busy.now = True
        try:
            if event == "os.rename":
                if os.path.abspath(os.fsdecode(arguments[0])) in self.written:  # noqa: PTH100
                    self.written.add(os.path.abspath(os.fsdecode(arguments[1])))  # noqa: PTH100
            elif event == "open":
                self._opened(*arguments)
            elif arguments[1]:
                self._read(arguments[1])
        except (OSError, ValueError, TypeError):
            pass  # a file that is not there, or a name that is none: the call itself will say so
        finally:
            self.busy.now = False

    def _opened(self, path: Any, mode: str | None, flags: int) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        if flags & (os.O_WRONLY | os.O_RDWR) or (mode and set(mode) & set("wax+")):
            self.written.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100  symbolic links stay: the name is what is opened
        else:
            self._read(path)

    def _read(self, path: Any) -> None:
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100
        if not name.startswith((*INSTALLED, *OTHER, *self.ignored)) and name not in self.written and os.path.isfile(name):  # noqa: PTH113
            self.note(name, digest_of(name))


_watch: _Watch | None = None


def watch(*ignored: str) -> None:
    """Watch this process from now on, but for files in the folders `ignored`. It cannot be undone: the process is a worker."""
    global _watch  # noqa: PLW0603  one watch a process, as there is one table of modules
    state = _watch = _Watch()
    state.ignored = tuple(os.path.join(f, "") for f in ignored)  # noqa: PTH118
    loader = importlib.machinery.SourceFileLoader
    usual = loader.get_code

    def get_code(self: importlib.machinery.SourceFileLoader, fullname: str) -> CodeType | None:
        path = os.path.abspath(self.get_filename(fullname))  # noqa: PTH100
        if path.startswith((*INSTALLED, *OTHER)):
            return usual(self, fullname)
        state.busy.now = True
        try:
            source = self.get_data(path)
        finally:
            state.busy.now = False
        state.executed.add(path)
        state.note(path, hashlib.sha256(source).hexdigest())
        return self.source_to_code(source, path)

    setattr(loader, "get_code", get_code)  # noqa: B010  mypy forbids the plain assignment to a method
    sys.addaudithook(state.hook)


def loaded() -> LoadedCode:
    """What has been loaded so far; each file is read once more, so that one which has changed meanwhile is named."""
    if _watch is None:
        raise RuntimeError("expected a process that is watched, got none; call watch() before anything of the subject is loaded")
    own = _watch.written - _watch.executed
    for path, digest in list(_watch.files.items()):
        try:
            if digest_of(path) != digest:
                _watch.changed.add(path)
        except OSError:  # one that was only read and is gone was a temporary file
            (_watch.changed if path in _watch.executed else own).add(path)
    files = {p: d for p, d in _watch.files.items() if p not in own}
    names = {n.partition(".")[0] for n, m in list(sys.modules.items()) if (getattr(m, "__file__", None) or "").startswith(INSTALLED)}
    return LoadedCode(dict(sorted(files.items())), tuple(sorted(names)), tuple(sorted(_watch.changed - own)))
