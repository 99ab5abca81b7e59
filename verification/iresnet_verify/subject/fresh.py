"""Newly built subjects: `fresh` is called with a dtype and a device, and without them where it takes none."""

from __future__ import annotations

from typing import Any

from iresnet_verify.subject.errors import Refused, SubjectError, raised_at
from iresnet_verify.subject.subject import Subject


def build_fresh(subject: Subject, dtype: str | None = None, **arguments: Any) -> Subject:
    """Return what `subject.fresh` builds in a dtype, by default the subject's own, and with these constructor arguments.

    Raises `Refused` where `fresh` builds none of that dtype, `SubjectError` where it builds nothing at all.
    """
    assert subject.fresh is not None
    wanted = dtype or subject.dtype
    try:
        made = subject.fresh(dtype=wanted, device=subject.device, **arguments)
    except Exception as error:
        if wanted != subject.dtype:
            raise Refused(f"fresh(dtype={wanted!r}) raises {_what(error)}: no network of that dtype is offered") from error
        made = _without_a_dtype(subject, arguments)
    if made.dtype != wanted:
        raise Refused(f"fresh(dtype={wanted!r}) builds a network of {made.dtype}; pass the dtype on to the network and to Subject(dtype=…)")
    return made


def _without_a_dtype(subject: Subject, arguments: dict[str, Any]) -> Subject:
    assert subject.fresh is not None
    try:
        return subject.fresh(**arguments)
    except Exception as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        names = "".join(f", {name}=…" for name in arguments)
        raise SubjectError(f"fresh({given}): expected a Subject, got {_what(error)}; "
                           f"try fresh=lambda dtype=None, device=None{names}: …") from error


def _what(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0][:160]
    return f"{type(error).__name__}: {text}{raised_at(error)}"
