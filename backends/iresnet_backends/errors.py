"""Errors of the backends: what is not installed, and files that cannot be read."""

from __future__ import annotations

from iresnet_ref.errors import IResNetError


class BackendUnavailableError(IResNetError, ImportError):
    """A backend, device or optional dependency is missing; the message names the line that installs it.

    Try `iresnet_backends.available()` for what works here.
    """


class FormatError(IResNetError, ValueError):
    """A saved file is truncated, of another origin, or does not describe a valid subject. Try the one before it, or saving it again."""


class ModuleError(IResNetError, ValueError):
    """A module of a framework that cannot be read as a branch: the message names the place and what can be read.

    Try evaluation mode, a sequence of such layers, or a layer of your own.
    """
