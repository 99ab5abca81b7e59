"""The parts of pages that are made of the code, where a page has `<!-- site: NAME -->`."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from itertools import groupby, pairwise
from textwrap import indent
from types import ModuleType
from typing import Any

from _site.docstrings import restructured
from _site.sources import COMMAND_LINE, PACKAGES, ROOT, Field, fields, messages
from iresnet_ref.errors import IResNetError
from iresnet_verify import catalogue
from iresnet_verify.report.json import _FIELDS

PLACE = re.compile(r"^<!-- site: (\w+)(?: ([\w.]+))? -->$", re.M)
FACES = ("activations", "bijections", "bounds", "densities", "layers", "roulette", "spectral", "training")
MODULES = (
    "iresnet_ref", *(f"iresnet_ref.{face}" for face in FACES), "iresnet_backends", "iresnet_backends.torch_layers",
    "iresnet_backends.jax_layers", "iresnet_verify", "iresnet_verify.adapters",
)  # fmt: skip
"""Modules whose names a user imports."""
PROMISE = r"\b{0}\b(?= of the subject|=| and \w+ of)|promise.*\b{0}\b"
"""How the reference of a check names a field of which it is the promise."""
ROW = re.compile(r"^\| (\[[BC]19\] [^|]*?) \| (.*?) \| `([\w/.]+)` \| `(\w+)` \|$", re.M)
"""Of docs/equations.md: statement, formula, file, function."""
VERIFY = PACKAGES[2]


@cache
def filled(page: str) -> str:
    """Return a page with its generated parts in their places."""
    return PLACE.sub(lambda found: PARTS[found.group(1)](*filter(None, [found.group(2)])), page)


def names(module: str) -> dict[str, Any]:
    """Return the public names of a module that hands them on: those of __all__, else what is neither private nor a module."""
    found = importlib.import_module(module)
    listed = getattr(found, "__all__", None) or [n for n, v in vars(found).items() if n[0] != "_" and not isinstance(v, ModuleType)]
    return {name: getattr(found, name) for name in listed}


def targets() -> Mapping[str, str]:
    """Return what a docstring may call a public name by, and where the reference has it."""
    found: dict[str, str] = {}
    for module in MODULES:
        short = module.replace("iresnet_ref", "ir")
        found |= {called: f"{module}.{n}" for n in names(module) for called in (n, f"{short}.{n}", f"{module}.{n}")}
    return found


def api(module: str) -> str:
    """Return the reference of a module, each name from its docstring; short names in signatures are first of all those of the module."""
    entries = "\n\n".join(_entry(module, name, thing) for name, thing in names(module).items())
    return f"```{{eval-rst}}\n.. py:currentmodule:: {module}\n\n{entries}\n```"


def _entry(module: str, name: str, thing: Any) -> str:
    if inspect.isclass(thing):
        return f".. autoclass:: {module}.{name}\n   :members:"
    if inspect.isroutine(thing):
        return f".. autofunction:: {module}.{name}"
    return f".. py:data:: {name}\n   :module: {module}\n\n" + indent("\n".join(restructured(constant(name, thing).splitlines())), "   ")


def constant(name: str, value: Any) -> str:
    """Return the text that follows the assignment of a constant, in the module that makes it; "" where there is none."""
    for module in [m for n, m in sys.modules.items() if n.startswith("iresnet_") and vars(m).get(name) is value]:
        body = ast.parse(inspect.getsource(module)).body
        for node, after in pairwise(body):
            made = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if getattr(made, "id", None) == name and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return inspect.cleandoc(str(after.value.value))
    return ""


def subject_fields() -> list[Field]:
    """Return the fields of `Subject`."""
    return fields(VERIFY / "subject/subject.py", "Subject")


def switched_on() -> Mapping[str, list[str]]:
    """Return, for each field of `Subject`, the checks that need it or whose promise it is, as the catalogue states them."""
    stands_for = {"parameters": ("module", "from_parameters", "parameters"), "autograd": ("module",), "torch": ("framework",),
                  "autodiff": ("framework",)}
    every = {field.name for field in subject_fields()}
    found: defaultdict[str, list[str]] = defaultdict(list)
    for check in catalogue.load().values():
        needed = {field for need in check.needs for field in stands_for.get(need, (need,))}
        promised = {f for f in every - {"name"} if re.search(PROMISE.format(f), check.reference)}
        for field in needed | promised:
            found[field].append(check.id)
    return found


def subject() -> str:
    """Return the fields of `Subject`, each with what it claims, its default, an example and the checks that it switches on."""
    checks = switched_on()
    parts = []
    for under, group in groupby(subject_fields(), key=lambda field: field.under):
        parts.append(f"## {(under or 'the network').capitalize()}\n")
        parts += [_field(field, checks.get(field.name, [])) for field in group]
    return "\n".join(parts)


def _field(field: Field, checks: list[str]) -> str:
    rows = {"Type": f"`{field.annotation}`", "Default": "none: it must be given" if field.default is None else f"`{_default(field)}`",
            "Example": field.example, "Switches on": ", ".join(map(check_link, checks))}
    listed = "\n".join(f"- *{name}*: {text}" for name, text in rows.items() if text)
    return f"### {field.name}\n\n{field.says}\n\n{listed}\n"


def _default(field: Field) -> str:
    return "{}" if "default_factory" in str(field.default) else str(field.default)


def check_link(id: str) -> str:
    """Return a link to a check on the page of the catalogue, from a page one folder below."""
    return f"[{id}](../checks.md#{id.replace('.', '').lower()})"


def errors() -> str:
    """Return every error class with what it says in its docstring, and every message that is made of it."""
    made = defaultdict(list)
    for message in messages():
        made[message.error].append(message)
    parts = []
    for error in error_classes():
        where = "iresnet_ref" if error.__module__.startswith("iresnet_ref") else error.__module__.split(".")[0]
        bases = " and ".join(f"`{b.__name__}`" for b in error.__bases__)
        says = _prose(inspect.getdoc(error) or "")
        parts.append(f"## {error.__name__}\n\nOf `{where}`; also {bases}.\n\n{says}\n")
        parts.append(_listed(made.pop(error.__name__, [])))
    parts.append("## Errors of Python's own\n\nArguments out of their range, and what Python itself calls by these names.\n")
    parts.append(_listed([m for name in sorted(made.keys() - set(COMMAND_LINE)) for m in made[name]], named=True))
    parts.append("## Of the command line\n\nBad usage ends with exit code 2.\n")
    parts.append(_listed([m for name in COMMAND_LINE for m in made.get(name, [])]))
    return "\n".join(parts)


def error_classes() -> list[type[BaseException]]:
    """Return the errors of the three packages that are raised on purpose, base first."""
    for module in ("iresnet_backends.errors", "iresnet_verify.subject.errors"):
        importlib.import_module(module)

    def below(error: type[BaseException]) -> list[type[BaseException]]:
        return [error, *(e for sub in error.__subclasses__() if sub.__module__.startswith("iresnet_") for e in below(sub))]

    return list(dict.fromkeys(below(IResNetError)))


def _listed(found: list[Any], named: bool = False) -> str:
    lines = [f"- {f'`{m.error}`: ' if named else ''}{_escaped(m.text)}" for m in found]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_`<>\[\]|])", r"\\\1", text)


def _prose(text: str) -> str:
    return text.partition(">>>")[0].strip()


def schema() -> str:
    """Return the fields of a report, its checks and its findings."""
    written = {"AuditResult": ("A report", "audit_result"), "CheckResult": ("An entry of `checks`", "result"),
               "Finding": ("An entry of `findings`", "finding")}  # fmt: skip
    parts = []
    for name, (title, file) in written.items():
        found = fields(VERIFY / f"check/{file}.py", name)
        rows = [f for f in found if (f.name in _FIELDS if name == "CheckResult" else f.name != "origin")]
        table = "\n".join(f"| `{f.name}` | `{f.annotation.replace('|', 'or')}` | {f.says} |" for f in rows)
        parts.append(f"## {title}\n\n| key | type | meaning |\n|---|---|---|\n{table}\n")
    return "\n".join(parts)


def equations() -> str:
    """Return each statement of docs/equations.md with its formula, what the function that computes it says, and its source."""
    rows = ROW.findall((ROOT / "docs/equations.md").read_text("utf-8"))
    parts = []
    for statement, formula, file, name in rows:
        text = (ROOT / "iresnet_ref" / file).read_text("utf-8")
        node = next(n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name)
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
        source = "\n".join(text.splitlines()[first : node.end_lineno])
        says = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
        parts.append(
            f"## {statement}: {name}\n\n{{.formula}}\n{formula.replace(chr(92) + '|', '|')}\n\n{_prose(says)}\n\n"
            f"<details><summary><code>iresnet_ref/{file}</code></summary>\n\n```python\n{source}\n```\n\n</details>\n"
        )
    return "\n".join(parts)


PARTS: Mapping[str, Callable[..., str]] = {
    "api": api, "equations": equations, "errors": errors, "schema": schema, "subject": subject,
}  # fmt: skip
