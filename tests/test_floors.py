"""Floors: a file imports from lower floors, and on its own floor only inside its own folder (docs/design/0001)."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import integrand as ig

SOURCE = Path(inspect.getfile(ig)).parent

FLOORS: list[list[str]] = [
    ["errors"],
    ["core"],
    ["targets"],
    ["model"],
    ["backprop"],
    ["fields"],
    ["baselines", "paths", "rules", "weightings", "task"],
    ["integration"],
    ["methods", "tables"],
    ["explain", "synthetic", "images"],
    ["explain_batches", "explain_targets", "correlate", "summarize", "interactions"],
    ["metrics", "text"],
    ["compare", "testing", "compat", "circuits"],
    ["expressions"],
    ["report", "run"],
    ["bench"],
    ["cli", "__main__"],
]
"""From the ground up; `__init__` stands outside and may import everything."""

WITHIN = {("__main__", "cli")}
"""Who may look at whom on the same floor: the entry at what it starts."""


def floor_of(name: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if name in names)


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name below `integrand`."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


MODULES = modules()


def imported(name: str, text: str) -> set[str]:
    """Modules of the package that a module imports, at the top or inside functions, by their dotted names."""
    package = (
        name.split(".")
        if MODULES.get(name, Path("x.py")).name == "__init__.py"
        else name.split(".")[:-1]
    )
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("integrand.")
                for alias in node.names
                if alias.name.startswith("integrand.")
            }
            found |= {"__init__" for alias in node.names if alias.name == "integrand"}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
            elif node.module and node.module.split(".")[0] == "integrand":
                base = []
                node = ast.ImportFrom(
                    node.module.removeprefix("integrand").lstrip("."), node.names, 0
                )
            else:
                continue
            if node.module:
                found.add(".".join([*base, node.module]))
            else:
                found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def breaches(name: str, text: str) -> list[str]:
    own = name.split(".")[0]
    wrong = []
    for target in sorted(imported(name, text)):
        other = target.split(".")[0]
        if other == own:
            continue
        if other in ("", "__init__"):
            wrong.append(f"{name} imports the whole package")
        elif floor_of(other) > floor_of(own):
            wrong.append(
                f"{name} (floor {floor_of(own)}) imports {target} from above (floor {floor_of(other)})"
            )
        elif floor_of(other) == floor_of(own) and (own, other) not in WITHIN:
            wrong.append(f"{name} imports {target}, its neighbour on floor {floor_of(own)}")
    return wrong


def test_every_module_has_one_floor() -> None:
    named = [name for names in FLOORS for name in names]
    assert len(named) == len(set(named))
    without = {name.split(".")[0] for name in MODULES} - set(named) - {"__init__"}
    assert without == set(), "give it a floor, here and in docs/design"


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__init__"])
def test_imports_go_down(name: str) -> None:
    assert breaches(name, MODULES[name].read_text()) == []


def test_rooms_above_are_reached_through_one_door() -> None:
    """`room("report.figures")` imports when it is called; it names modules that exist, and nothing else imports the package's own so."""
    rooms = [
        node.args[0].value
        for name in MODULES
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "room"
    ]
    assert len(rooms) >= 5
    assert [room for room in rooms if room not in MODULES] == []
    dynamic = {
        f"{name}: {ast.unparse(node)}"
        for name in MODULES
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "import_module"
        if "integrand" in ast.unparse(node) or "__package__" in ast.unparse(node)
    }
    assert {line.partition(":")[0] for line in dynamic} <= {
        "core.optional",
        "report.figures",
        "report.comparison",
    }


@pytest.mark.parametrize(
    ("name", "text", "breach"),
    [
        ("rules.quadrature", "from ..integration import Method", True),
        ("rules.quadrature", "from ..paths import Straight", True),
        ("rules.quadrature", "from ..fields import Field", False),
        ("rules.quadrature", "from .base import mean_gradient", False),
        ("rules.quadrature", "def late():\n    from ..explain import explain", True),
        ("weightings.fitness", "from ..fields import Field", False),
        ("weightings.fitness", "from ..baselines import Corners", True),
        ("methods", "from .citations import bibtex", False),
        ("methods.straight", "from ..explain import explain", True),
        ("errors", "import integrand", True),
        ("errors", "import integrand.core.shapes", True),
        ("fields.torch", "from integrand.explain import explain", True),
        ("explain", "from . import integration", False),
        ("targets", "from . import explain", True),
        ("targets", "import torch.nn", False),
    ],
)
def test_breaches_are_seen(name: str, text: str, breach: bool) -> None:
    assert bool(breaches(name, text)) is breach
