"""The reproduction writer: for each failed result a Python file that shows the violation on its own.

The file holds the counterexample as literals (large arrays in an .npz file; both exact) and the source of the
check's `measure`, loads the subject by FILE.py:FACTORY as the audit did (same seeds, same mode), prints value and
bound, and exits with 1 while not value <= bound, with 0 once it holds.

Before it is kept, the script's measurement is carried out in this process on the audited subject. Where there is no
`measure`, where its source cannot stand alone, or where the script does not show the violation, a second form is
written: it re-runs the one check through this library with the same seed, budget and mode. A subject that did not come
from a file is stored next to the script with cloudpickle.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import textwrap
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from iresnet_verify.check.outcome import Counterexample
from iresnet_verify.check.result import CheckResult
from iresnet_verify.report.text import legal
from iresnet_verify.reproduction import templates as script
from iresnet_verify.reproduction.literals import inputs_source, literal
from iresnet_verify.running.run import Prepared
from iresnet_verify.subject.loading import Origin
from iresnet_verify.subject.module_state import preserved
from iresnet_verify.subject.subject import Subject


@dataclass(frozen=True)
class Audited:
    """What a reproduction needs in addition to the failed result."""

    prepared: Prepared
    origin: Origin | None
    """None: the subject was an object in memory."""
    index: int
    """Which one of the factory's subjects it is."""
    seed: int
    budget: str
    alpha: float
    """The share of this check."""
    label: str
    """Start of the file names; unique within the folder."""

    @property
    def subject(self) -> Subject:
        """The subject itself."""
        return self.prepared.subject


def write(result: CheckResult, audited: Audited, folder: Path) -> Path:
    """Write the reproduction of one failed result and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{audited.label}.{result.id}.py"
    counterexample = result.counterexample
    text = standalone(result, counterexample, audited, path) if counterexample is not None else None
    if text is None:
        text = _rerun_script(result, audited, path)
    path.write_text(text, "utf-8")
    return path


def standalone(
    result: CheckResult, counterexample: Counterexample, audited: Audited, path: Path
) -> str | None:
    """The script around `measure`, or None if it cannot be written or does not show the violation."""
    source = _source(counterexample)
    if source is None:
        return None
    function, measure = source
    inputs = inputs_source(counterexample.inputs, path)
    if inputs is None:
        return None
    subject = audited.subject
    name, _, device = subject.framework.partition(":")
    device, dtype = device or subject.device, subject.dtype
    backend = f"iresnet_backends.get({name if device == 'cpu' else f'{name}:{device}'!r}, dtype={dtype!r})"
    imports, native, host = {
        "torch": ("import torch\n", f"torch.tensor(x, dtype=torch.{dtype}, device={device!r})", "out.detach().cpu().numpy()"),
        "numpy": ("", f"np.array(x, {dtype!r})", "np.array(out)"),
    }.get(name, ("import iresnet_backends\n", f"{backend}.asarray(x)", f"{backend}.to_numpy(out)"))
    calls = _calls(measure, subject)
    switch = subject.module is not None and result.mode in ("train", "eval")
    text = _head(result, audited) + script.STANDALONE.format(
        imports=imports, seed=audited.seed, seed_torch=", torch.manual_seed(seed)" if name == "torch" else "",
        load=_load(audited, path), native=native, host=host, per_row=script.PER_ROW if "per_row" in calls else "",
        mode=f"    subject.module.train({result.mode == 'train'})\n" if switch else "", calls=calls, measure=measure,
        inputs=inputs, function=function,
    )
    return text if _shows(text, function, audited.prepared, path) else None


def _calls(measure: str, subject: Subject) -> str:
    """Keyword arguments that give `calls` the attributes which `measure` uses."""
    given = []
    for name in dict.fromkeys(re.findall(r"calls\.(\w+)", measure)):
        packed = {"log_det": "forward", "inverse_log_det": "inverse"}.get(name)
        value = "None"
        if getattr(subject, name, None) is not None:
            value = f"call(subject.{name})"
        elif packed is not None and getattr(subject, packed) is not None:
            value = f"call(subject.{packed}, 1)"
        if name != "subject":
            given.append(f"{name}=per_row({value})" if "log" in name and value != "None" else f"{name}={value}")
    return ", ".join(given)


def _source(counterexample: Counterexample) -> tuple[str, str] | None:
    """Name and dedented source of `measure`, if it is a plain function."""
    try:
        text = textwrap.dedent(inspect.getsource(counterexample.measure)) if counterexample.measure else ""
        body = ast.parse(text).body
    except (OSError, TypeError, SyntaxError):
        return None
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef):
        return None
    body[0].decorator_list = []
    lines = text.rstrip().splitlines()[body[0].lineno - 1 :]
    return body[0].name, "\n".join(lines) + "\n"


def _shows(text: str, function: str, prepared: Prepared, path: Path) -> bool:
    """Whether the script's own measurement, carried out here on the audited subject, violates the bound."""
    subject, framework = prepared.subject, prepared.framework
    before = framework.snapshot_globals()
    names: dict[str, Any] = {"__name__": "reproduction", "__file__": str(path)}
    try:
        with preserved(subject.module), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(text, str(path), "exec"), names)
            value, bound = names[function](names["calls_of"](subject), **names["INPUTS"])
            return not value <= bound
    except Exception:
        return False
    finally:
        framework.restore_globals(before)


def _head(result: CheckResult, audited: Audited) -> str:
    mode = f" in mode {result.mode!r}" if result.mode else ""
    title, claim, found = (
        textwrap.fill(legal(" ".join(t.split())).replace("\\", "/").replace('"""', "'''"), 110)
        for t in (f"{audited.subject.name}{mode}: the claim {result.id} is violated.", result.claim, result.message)
    )
    return script.HEAD.format(title=title, claim=claim, found=found)


def _relative(file: str, path: Path) -> str:
    """A path expression: `file` from the folder of the reproduction, where that is possible."""
    try:
        return f"HERE / {Path(os.path.relpath(file, path.parent.resolve())).as_posix()!r}"
    except ValueError:  # another drive
        return f"Path({file!r})"


def _load(audited: Audited, path: Path) -> str:
    origin = audited.origin
    if origin is None:
        reason = _store(audited, path)
        if reason is not None:
            return script.NOT_STORED.format(reason=reason)
        return script.FROM_PICKLE.format(paths=_import_paths(audited.subject), pickle=_stored(audited, path).name)
    return script.FROM_FILE.format(
        file=_relative(origin.file, path), factory=origin.factory, index=audited.index,
        keywords=origin.call,
    )


def _stored(audited: Audited, path: Path) -> Path:
    return path.with_name(f"{audited.label}.pkl")


def _store(audited: Audited, path: Path) -> str | None:
    """Store the subject next to the script, once for all its scripts; return why that was not possible, else None."""
    try:
        import cloudpickle

        _stored(audited, path).write_bytes(cloudpickle.dumps(audited.subject))
    except ImportError as error:
        return f'{error}; pip install "iresnet-ref[verify]"'
    except Exception as error:
        return " ".join(legal(f"{type(error).__name__}: {error}").split())
    return None


def _import_paths(subject: Subject) -> list[str]:
    """Folders from which the user's own modules behind the subject were imported: pickles name functions by module."""
    behind = [getattr(subject, f.name) for f in fields(subject)] + [type(subject.module)]
    found = []
    for name in {getattr(b, "__module__", None) or "" for b in behind}:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and not {"site-packages", "dist-packages"} & set(Path(file).parts):
            depth = name.count(".") + (Path(file).name == "__init__.py")
            found.append(str(Path(file).resolve().parents[depth]))
    return sorted(set(found) & {str(Path(p or ".").resolve()) for p in sys.path})


def _rerun_script(result: CheckResult, audited: Audited, path: Path) -> str:
    found = result.counterexample.inputs if result.counterexample is not None else {}
    inputs = inputs_source({k: v for k, v in found.items() if literal(v) is not None}, path) or "INPUTS = {}"
    origin = audited.origin
    if origin is None:
        reason = _store(audited, path)
        subject, paths = f"HERE / {_stored(audited, path).name!r}", f"sys.path += {_import_paths(audited.subject)}\n"
        if reason is not None:
            subject, paths = "load()", "\n\n" + script.NOT_STORED.format(reason=reason) + "\n"
    else:
        more = f", {origin.backend!r}" if origin.backend or origin.arguments else ""
        more += f", {origin.arguments!r}" if origin.arguments else ""
        subject, paths = f"({_relative(origin.file, path)}, {origin.factory!r}, {audited.index}{more})", ""
    return _head(result, audited) + script.RERUN.format(
        paths=paths, inputs=inputs, subject=subject, check=result.id, mode=result.mode, seed=audited.seed,
        budget=audited.budget, share=audited.alpha,
    )
