"""Every example in a docstring runs, and so do the README's."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch

import integrand as ig

SOURCE = Path(inspect.getfile(ig)).parent
NAMES = sorted(
    ".".join(
        (
            "integrand",
            *(p for p in path.relative_to(SOURCE).with_suffix("").parts if p != "__init__"),
        )
    )
    for path in SOURCE.rglob("*.py")
    if path.name != "__main__.py"
)
ROOT = Path(__file__).parent.parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(name: str) -> list[doctest.DocTest]:
    return [
        test
        for test in doctest.DocTestFinder().find(importlib.import_module(name))
        if test.examples
    ]


@pytest.mark.parametrize("name", NAMES)
def test_docstrings(name: str) -> None:
    torch.manual_seed(0)
    for test in examples(name):
        runner = doctest.DocTestRunner(optionflags=FLAGS)
        report: list[str] = []
        runner.run(test, out=report.append)
        assert runner.failures == 0, "".join(report)


def test_the_front_door_has_examples() -> None:
    named = {
        test.name
        for name in ("integrand", "integrand.explain", "integrand.integration.method")
        for test in examples(name)
    }
    assert {
        "integrand",
        "integrand.explain.explain",
        "integrand.integration.method.Method",
    } <= named


@pytest.mark.filterwarnings("ignore::integrand.errors.IntegrandWarning")
def test_the_readmes_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
