"""A mutant: a network that is right but for one deliberate mistake, and the checks that must find it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from iresnet_verify.subject.subject import Subject

Factory = Callable[[int], Subject]


@dataclass(frozen=True)
class Mutant:
    """`make(seed)` gives the subject; it is killed if one of the checks `meant` for its mistake fails."""

    id: str
    mistake: str
    meant: tuple[str, ...]
    make: Factory


def table(group: str, entries: Mapping[str, tuple[str | tuple[str, ...], Factory]]) -> dict[str, Mutant]:
    """Return {id: mutant} of {mistake: (check or checks meant for it, factory)}; the id is "group/the-mistake"."""
    found = {}
    for mistake, (meant, make) in entries.items():
        name = f"{group}/{re.sub(r'[^a-z0-9]+', '-', mistake.lower()).strip('-')}"
        found[name] = Mutant(name, mistake, (meant,) if isinstance(meant, str) else meant, make)
    return found
