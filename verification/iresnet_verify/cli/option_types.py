"""Types of options of the command line."""

from __future__ import annotations

import math
from typing import Any

import click

from iresnet_verify.check.budget import LONGEST


class Within(click.FloatRange):
    """A number in a range. Not a number is in none, though no comparison says so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Raises click.BadParameter."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


SECONDS = Within(min=1, max=LONGEST)
