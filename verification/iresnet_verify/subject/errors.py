"""The exceptions of an audit: a subject that breaks its contract, a check that cannot decide; and where one was raised."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iresnet_ref.errors import IResNetError


class SubjectError(IResNetError, ValueError):
    """An audit subject could not be loaded, or does not keep the `Subject` contract.

    Try the field that the message names, or `iresnet-verify init FILE.py:CLASS`, which writes a first adapter.
    """


class Undecided(Exception):  # noqa: N818 - an outcome, not a fault
    """The oracle or the budget cannot decide; the runner makes the check inconclusive with this reason."""


class Refused(Exception):  # noqa: N818 - an outcome, not a fault
    """The subject refuses what a check asks for; the runner skips the check with this reason."""


class BackwardError(Undecided):
    """A backward pass raised. Two checks say so; for the others it is why they cannot decide."""


@contextmanager
def backward_pass(of: str) -> Iterator[None]:
    """Turn whatever a backward pass raises into a `BackwardError` that says of what it was; packages raise what they like."""
    try:
        yield
    except Exception as error:
        what = (str(error).strip().splitlines() or [""])[0][:160]
        raise BackwardError(f"the backward pass of {of} raised {type(error).__name__}: {what}{raised_at(error)}") from error


def raised_at(error: BaseException) -> str:
    """Return ` (file.py:12 in function)`: the last frame outside this suite and the frameworks, if there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    suite = Path(__file__).parents[1]
    own = [f for f in frames if suite not in Path(f.filename).parents and "site-packages" not in f.filename]
    chosen = (own or [f for f in frames if suite not in Path(f.filename).parents] or list(frames))[-1:]
    return "".join(f" ({Path(f.filename).name}:{f.lineno} in {f.name})" for f in chosen)
