"""The error tree is as drawn, and names what is near."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import metadata
from pathlib import Path

import integrand as ig

SOURCE = Path(inspect.getfile(ig)).parent


def test_the_tree_is_as_drawn() -> None:
    """Every class in the docstring's drawing exists, under the parent it is drawn under, with the builtin it names."""
    parents: list[str] = []
    drawn = set()
    for line in (ig.errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│ ]*)([├└]── )?(\w+)(?: \((\w+)\))?(?:  |$)", line)
        if not found or (not found[3].endswith(("Error", "Warning")) and not found[2]):
            continue
        depth = len(found[1] + (found[2] or "")) // 4
        cls = getattr(ig.errors, found[3])
        drawn.add(found[3])
        parents[depth:] = [found[3]]
        if depth:
            assert issubclass(cls, getattr(ig.errors, parents[depth - 1])), line
        if found[4]:
            assert issubclass(cls, getattr(__builtins__, found[4], None) or eval(found[4])), line
    defined = {
        name
        for name, c in vars(ig.errors).items()
        if inspect.isclass(c) and c.__module__ == ig.errors.__name__
    }
    assert drawn == defined


def test_unknown_names_are_told_the_nearest() -> None:
    error = ig.errors.UnknownName("method", "integrate", ["integrated", "expected", "weighted"])
    assert error.near[0] == "integrated"
    assert str(error).startswith("There is no method named 'integrate'. Did you mean 'integrated'")
    far = ig.errors.UnknownName("layer", "zzz", ["", *(f"layer{i}" for i in range(20))])
    assert far.near == []
    assert "Known: 'layer0'" in str(far)
    assert str(far).endswith("'layer11', ….")
    assert "Known: none." in str(ig.errors.UnknownName("layer", "x", []))


def test_missing_extra_says_what_to_install() -> None:
    error = ig.errors.MissingExtra("safetensors", "save", "Saving")
    assert (
        str(error)
        == "Saving needs the package 'safetensors': install it with pip install 'integrand[save]'."
    )
    assert isinstance(error, ImportError)


def calls(name: str) -> list[tuple[str, ast.Call]]:
    return [
        (str(path.relative_to(SOURCE)), node)
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


def test_extras_that_messages_name_exist() -> None:
    """pip install 'integrand[extra]' must install something."""
    extras = set(metadata.metadata("integrand").get_all("Provides-Extra") or ())
    named = {
        (where, call.args[1].value)
        for where, call in calls("MissingExtra")
        if isinstance(call.args[1], ast.Constant)
    }
    assert named
    assert {(where, extra) for where, extra in named if extra not in extras} == set()


def test_everything_raised_on_purpose_is_in_the_tree() -> None:
    """The core raises no bare ValueError, TypeError or RuntimeError; IndexError is Python's own protocol."""
    plain = {"ValueError", "TypeError", "RuntimeError", "Exception", "LookupError", "KeyError"}
    core = [
        p
        for p in SOURCE.rglob("*.py")
        if p.relative_to(SOURCE).parts[0] not in ("report", "images", "run", "cli", "testing")
    ]
    bare = [
        f"{path.relative_to(SOURCE)} raises {node.exc.func.id}"
        for path in sorted(core)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and getattr(node.exc.func, "id", "") in plain
    ]
    assert bare == []


def test_warnings_are_warnings() -> None:
    assert issubclass(ig.errors.IntegrandWarning, UserWarning)
    for name in ("TrainingModeWarning", "IncompleteWarning", "FitnessWarning"):
        assert issubclass(getattr(ig.errors, name), ig.errors.IntegrandWarning)
