"""The example of a nightly workflow stays what the command line takes."""

from __future__ import annotations

import re
import shlex

import pytest
from places import ROOT

from iresnet_verify.campaign import declaration
from iresnet_verify.cli.campaign_commands import campaign
from iresnet_verify.subject.loading import load

NIGHTLY = ROOT / "examples/nightly"


def test_the_campaign_of_the_example_is_one_and_its_factory_makes_every_layer() -> None:
    pytest.importorskip("normflows")
    units = declaration.read(NIGHTLY / "campaign.toml").units
    assert len(units) == 5 * 3
    kinds = [dict(u.origin.arguments)["kind"] for u in units if u.seed == 0]
    assert [load(u.origin, 0)[0].name for u in units if u.seed == 0] == kinds


def test_every_command_of_the_workflow_exists_with_its_options() -> None:
    text = (NIGHTLY / "workflow.yml").read_text("utf-8")
    commands = [shlex.split(line) for line in re.findall(r"iresnet-verify campaign ([^|;\n]+)", text)]
    assert {c[0] for c in commands} == {"run", "report", "diff"}
    for name, *words in commands:
        known = {o for p in campaign.commands[name].params for o in p.opts}
        assert {w for w in words if w.startswith("--")} <= known
