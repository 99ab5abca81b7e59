"""Newly built subjects: `fresh` is called with a dtype and a device, and without them where it takes none."""

from __future__ import annotations

from iresnet_verify.subject.errors import Refused, SubjectError, raised_at
from iresnet_verify.subject.subject import Subject


def build_fresh(subject: Subject, dtype: str | None = None) -> Subject:
    """Return what `subject.fresh` builds in a dtype, by default the subject's own.

    Raises `Refused` where `fresh` builds none of that dtype, `SubjectError` where it builds nothing at all.
    """
    assert subject.fresh is not None
    wanted = dtype or subject.dtype
    try:
        made = subject.fresh(dtype=wanted, device=subject.device)
    except Exception as error:
        if wanted != subject.dtype:
            raise Refused(f"fresh(dtype={wanted!r}) raises {_what(error)}: no network of that dtype is offered") from error
        made = _without_a_dtype(subject)
    if made.dtype != wanted:
        raise Refused(f"fresh(dtype={wanted!r}) builds a network of {made.dtype}; pass the dtype on to the network and to Subject(dtype=…)")
    return made


def _without_a_dtype(subject: Subject) -> Subject:
    assert subject.fresh is not None
    try:
        return subject.fresh()
    except Exception as error:
        raise SubjectError(f"fresh(): expected a Subject, got {_what(error)}; try fresh=lambda dtype=None, device=None: …") from error


def _what(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0][:160]
    return f"{type(error).__name__}: {text}{raised_at(error)}"
