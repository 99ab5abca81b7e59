"""Reports as JUnit XML, which continuous-integration services display.

One `testsuite` a subject, one `testcase` a check. A declared failure is `skipped` with its reason, as are inconclusive
and skipped checks; a declared failure that passed is a `failure`; an errored check is an `error`. A failure that follows from another
says so in place of its message.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

from iresnet_verify.check.audit_result import AuditResult
from iresnet_verify.check.result import CheckResult
from iresnet_verify.report.text import details, findings, legal


def write(reports: Sequence[AuditResult], path: str | Path, errors: Sequence[Exception] = ()) -> None:
    """Write one XML file for all reports; `errors`: the subjects that could not be loaded."""
    root = ET.Element("testsuites", name="iresnet-verify")
    for report in reports:
        _suite(root, report)
    if errors:
        suite = ET.SubElement(root, "testsuite", name="loading", tests=str(len(errors)), errors=str(len(errors)))
        for n, error in enumerate(errors):
            case = ET.SubElement(suite, "testcase", classname="loading", name=f"subject {n + 1}")
            ET.SubElement(case, "error", message=legal(error), type=type(error).__name__)
    for total in ("tests", "failures", "errors", "skipped"):
        root.set(total, str(sum(int(s.get(total, 0)) for s in root)))
    ET.indent(root)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _suite(root: ET.Element, report: AuditResult) -> None:
    name = legal(report.subject.get("name", "subject"))
    suite = ET.SubElement(root, "testsuite", name=name, time=f"{report.seconds:.3f}")
    properties = ET.SubElement(suite, "properties")
    known = {"seed": report.seed, "alpha": report.alpha, "budget": report.budget, "status": report.status}
    for key, value in {**known, **report.environment}.items():
        ET.SubElement(properties, "property", name=legal(key), value=legal(value))
    for finding in findings(report):
        ET.SubElement(properties, "property", name="finding", value=legal(f"{finding.sentences} [{finding.check}]"))
    wrong = {f.check: f.wrong for f in findings(report)}
    for result in report.checks:
        _case(suite, name, result, wrong)
    suite.set("tests", str(len(report.checks)))
    for total, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(total, str(len(suite.findall(f"testcase/{tag}"))))


def _case(suite: ET.Element, subject: str, result: CheckResult, wrong: Mapping[str, str]) -> None:
    place = f"{subject}.{legal(result.family)}"
    case = ET.SubElement(suite, "testcase", classname=place, name=legal(result.id), time=f"{result.seconds:.3f}")
    verdict = _verdict(result)
    if verdict is not None:
        tag, kind, message = verdict
        if result.because_of is not None and tag == "failure":
            message = f"follows from {result.because_of}: {wrong.get(result.because_of, '')}".rstrip(": ")
        elif tag == "failure":
            message = wrong.get(result.id, message)
        element = ET.SubElement(case, tag, message=legal(message))
        if tag != "skipped":
            element.set("type", kind)
        element.text = legal(details(result))


def _verdict(result: CheckResult) -> tuple[str, str, str] | None:
    if result.status == "failed":
        if result.expected is not None:
            return "skipped", "expected", f"expected failure: {result.expected}"
        return "failure", "failed", result.message
    if result.status == "passed":
        if result.expected is not None:
            message = f"declared to fail ({result.expected}) but passed: remove the declaration"
            return "failure", "unexpectedly-passed", message
        return None
    if result.status == "error":
        return "error", "error", result.message
    return "skipped", result.status, f"{result.status}: {result.message}"
