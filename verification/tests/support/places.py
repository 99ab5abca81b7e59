"""Where the tests find what is no module of theirs."""

from __future__ import annotations

from pathlib import Path

ROOT = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").is_file())
"""The root of the repository."""

EXAMPLES = ROOT / "examples"
BENCHMARKS = ROOT / "benchmarks"
HOSTILE = Path(__file__).parent / "subjects/hostile_subjects.py"
"""A file of subjects that crash, hang and flood, for whatever loads subjects by the name of a file."""

CUPY_CONTRACT = Path(__file__).parent / "cupy_contract"
"""The folder whose `cupy` stands in for CuPy."""
