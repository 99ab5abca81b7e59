"""What Sphinx asks for: pages with their generated parts, docstrings as reStructuredText, links out of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from _site import generated
from _site.docstrings import restructured

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx's events."""
    targets = generated.targets()

    def read(app: Sphinx, name: str, source: list[str]) -> None:
        source[0] = generated.filled(source[0])

    def document(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
        lines[:] = restructured(lines, targets)

    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", document)
    return {"parallel_read_safe": True, "version": "1"}
