"""A campaign file is the product of its axes, and a mistake in it is named with what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from iresnet_verify.campaign import declaration
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.subject.errors import SubjectError
from iresnet_verify.subject.loading import Origin, load

SUBJECT = """
from iresnet_verify import Subject

def scaled(slope=1.5, depth=1, dtype="float64", backend="numpy"):
    return Subject(name=f"{slope} {depth} {dtype} {backend}", event_shape=(3,), framework="numpy",
                   forward=lambda x: slope * x, inverse=lambda y: y / slope)
"""


def written(folder: Path, text: str) -> Path:
    (folder / "flows.py").write_text(SUBJECT)
    (folder / "campaign.toml").write_text(text)
    return folder / "campaign.toml"


FULL = """
seeds = 3
dtypes = ["float32", "float64"]
checks = ["inverse"]
workers = 4
[[subjects]]
factory = "flows.py:scaled"
parameters = { slope = [1.5, 2.5], depth = 2 }
budgets = ["quick", "standard"]
[[subjects]]
factory = "flows.py:scaled"
seeds = [7]
dtypes = []
backends = ["numpy"]
checks = []
"""


def test_a_file_is_the_product_of_its_axes(tmp_path: Path) -> None:
    found = declaration.read(written(tmp_path, FULL))
    assert len(found.units) == 2 * 2 * 2 * 3 + 1
    assert len({u.name(tmp_path) for u in found.units}) == len(found.units), "each is an audit of its own"
    file = str(tmp_path / "flows.py")
    origin = Origin(file, "scaled", None, (("slope", 2.5), ("depth", 2), ("dtype", "float32")))
    assert Unit(origin, 2, "standard", ("inverse",)) in found.units
    assert found.units[-1] == Unit(Origin(file, "scaled", "numpy"), 7)
    assert (found.folder, found.settings) == (tmp_path / "campaign-results", {"workers": 4})
    (subject,) = load(origin)
    assert subject.name == "2.5 2 float32 numpy", "the factory is called with them"
    title = "flows.py:scaled(slope=2.5, depth=2, dtype='float32') standard"
    assert title in {u.title for u in found.units}
    assert {Unit.read(u.plain()) for u in found.units} == set(found.units)


def test_what_is_given_on_the_command_line_wins(tmp_path: Path) -> None:
    found = declaration.read(written(tmp_path, FULL), {"seeds": 1, "budgets": ["thorough"]})
    assert {(u.seed, u.budget) for u in found.units} == {(0, "thorough")}


@pytest.mark.parametrize(
    ("text", "said"),
    [("seds = 3", "got seds; try seeds"), ("seeds = 0", "expected seeds to be a number of seeds ≥ 1"), ("seeds = true", "expected seeds"),
     ("alpha = 1.0", "between 0 and 1"), ("alpha = nan", "between 0 and 1"), ("check_seconds = inf", "at most 1e+07"),
     ("load_seconds = nan", "at most 1e+07"),
     ('budgets = ["fast"]', "quick, standard, thorough"), ("seeds = ", "expected a campaign in TOML"),
     ("[[subjects]]\nfactry = 'x'", "try factory"), ("[[subjects]]\nseeds = 2", "expected a key factory"), ("", "at least one"),
     ("[[subjects]]\nfactory = 'nowhere.py:f'", "does not exist"), ("[[subjects]]\nfactory = 'flows.py'", "expected FILE.py:FACTORY"),
     ("checks = ['invrse.x']\n[[subjects]]\nfactory = 'flows.py:scaled'", "expected a check id"),
     ("[[subjects]]\nfactory = 'flows.py:scaled'\nparameters = { a = [] }", "expected parameters to be a table"),
     ("[[subjects]]\nfactory = 'flows.py:scaled'\nseeds = 2000000", "at most 1000000 audits")])
def test_a_mistake_is_named_with_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SubjectError) as raised:
        declaration.read(written(tmp_path, text))
    assert said in str(raised.value)


def test_a_factory_that_does_not_take_an_argument_says_with_what_it_was_called(tmp_path: Path) -> None:
    written(tmp_path, "")
    with pytest.raises(SubjectError, match="called with width=3, but"):
        load(Origin(str(tmp_path / "flows.py"), "scaled", None, (("width", 3),)))


def test_the_example_of_the_docstring_is_read(tmp_path: Path) -> None:
    text = str(declaration.__doc__).split("\n\n")[1].replace("flows.py:residual", "flows.py:scaled")
    text += "\n".join(["", *str(declaration.__doc__).split("\n\n")[2].splitlines()]).replace("flows.py:residual", "flows.py:scaled")
    plain = "\n".join(line.strip() for line in text.splitlines())
    assert len(declaration.read(written(tmp_path, plain)).units) == 50 * 2 * 2 * 2 * 2
