"""Floors: a file imports from lower floors, and on its own floor only inside its own folder (DESIGN 3)."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import integrand as ig

SOURCE = Path(inspect.getfile(ig)).parent

FLOORS: list[list[str]] = [
    ["errors", "files", "formatting", "optional", "options", "shapes", "parts", "declared", "seeds", "normalisation"],
    ["target", "segment", "features"],
    ["field"],
    ["spacing", "task"],
    ["baseline", "path", "rule", "weighting", "cost"],
    ["walk"],
    ["attribution"],
    ["method"],
    ["layered"],
    ["methods", "cite", "archive"],
    ["explain"],
    ["explain_targets"],
    ["metrics", "vision"],
    ["compare", "testing"],
    ["run", "report"],
    ["bench"],
    ["cli", "__main__"],
]
"""From the ground up; `__init__` stands outside and may import everything."""

WITHIN = {
    ("methods", "cite"),
    ("__main__", "cli"),
    ("parts", "shapes"),
    ("parts", "options"),
    ("declared", "parts"),
    ("shapes", "errors"),
    ("optional", "errors"),
    ("options", "errors"),
    ("seeds", "options"),
    ("normalisation", "errors"),
}
"""Who may look at whom on the same floor: names at their sources, the entry at what it starts, printing at how shapes print, parts at
what their numbers may be, what parts declare at how they print."""


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
    package = name.split(".") if MODULES.get(name, Path("x.py")).name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("integrand.") for alias in node.names if alias.name.startswith("integrand.")
            }
            found |= {"__init__" for alias in node.names if alias.name == "integrand"}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
            elif node.module and node.module.split(".")[0] == "integrand":
                base = []
                node = ast.ImportFrom(node.module.removeprefix("integrand").lstrip("."), node.names, 0)
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
            wrong.append(f"{name} (floor {floor_of(own)}) imports {target} from above (floor {floor_of(other)})")
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


def test_attribution_reaches_up_through_its_door_only() -> None:
    """`_door("report.figures")` imports when it is called; nothing else in the file does, and it names modules that exist."""
    tree = ast.parse(MODULES["attribution"].read_text())
    doors = [
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_door"
    ]
    assert doors
    assert [door for door in doors if door not in MODULES] == []
    dynamic = [
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "import_module"
    ]
    assert set(dynamic) <= {"_door", "to_shap"}


@pytest.mark.parametrize(
    ("name", "text", "breach"),
    [
        ("rule.quadrature", "from ..method import Method", True),
        ("rule.quadrature", "from ..path import Straight", True),
        ("rule.quadrature", "from ..field import Field", False),
        ("rule.quadrature", "from .base import mean_gradient", False),
        ("rule.quadrature", "def late():\n    from ..explain import explain", True),
        ("weighting", "from .field import Field", False),
        ("weighting", "from .baseline import Corners", True),
        ("methods", "from .cite import bibtex", False),
        ("methods.straight", "from ..archive import load", True),
        ("errors", "import integrand", True),
        ("errors", "import integrand.shapes", True),
        ("field.torch", "from integrand.explain import explain", True),
        ("explain", "from . import method", False),
        ("target", "from . import explain", True),
        ("target", "import torch.nn", False),
    ],
)
def test_breaches_are_seen(name: str, text: str, breach: bool) -> None:
    assert bool(breaches(name, text)) is breach
