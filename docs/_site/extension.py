"""What Sphinx asks for: pages with their generated parts, docstrings as reStructuredText, links out of this folder."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from _site import generated
from _site.docstrings import restructured

if TYPE_CHECKING:
    from sphinx.application import Sphinx

VALUE = re.compile(r"<(?:[^<>]|<[^<>]*>)*>")
"""A default that has no literal, such as <function f at 0x7f>: Sphinx reads no signature that holds one."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx's events."""
    targets = generated.targets()

    def read(app: Sphinx, name: str, source: list[str]) -> None:
        source[0] = generated.filled(source[0])

    def document(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
        lines[:] = restructured(lines, targets)

    def sign(app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None) -> tuple[Any, Any]:
        return (signature and VALUE.sub("...", signature)), returns

    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", document)
    app.connect("autodoc-process-signature", sign)
    return {"parallel_read_safe": True, "version": "1"}
