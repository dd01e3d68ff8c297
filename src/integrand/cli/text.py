"""``integrand explain --text``: what the words of texts contributed to what a model says of them.

texts, folder of a model ──▶ ig.text.explain ──▶ coloured text on the terminal, DIR/index.html and DIR/texts.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from ..core.files import whole
from ..core.optional import check_installed
from ..errors import InputError
from ..methods import about
from ..rules import GaussLegendre
from ..text import Continuation, CostEstimate, TextAttribution, explain
from ..text.demo import model_folder
from . import console
from .pages import claimed


@dataclass(frozen=True)
class TextOptions:
    """What was asked for on the command line."""

    texts: tuple[str, ...]
    files: tuple[Path, ...]
    model: str
    target: str = "predicted"
    target_text: str | None = None
    against: str | None = None
    methods: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    granularity: str = "word"
    per_token: bool = False
    nodes: int | None = None
    tol: float | None = None
    seed: int | None = None
    out: Path = Path("integrand-out")
    save: bool = False


def run(request: TextOptions) -> int:
    """Do it. Returns the exit status: 0."""
    extras = {"transformers": "text", "jinja2": "report"}
    check_installed(
        {**extras, **({"safetensors": "save"} if request.save else {})}, "integrand explain --text"
    )
    texts, folder = _texts(request), model_folder(request.model)
    target = _target(request)
    with claimed(request.out, "explain"):
        for name in request.methods or ("integrated",):
            result = explain(
                folder,
                None,
                texts,
                target=target,
                method=name,
                baseline=_baseline(request.baselines),
                granularity=request.granularity,
                per_token=request.per_token,
                tol=request.tol,
                seed=request.seed,
                preflight=_tell_of_long_work,
                **_nodes(name, request.nodes),
            )
            _tell(result)
            _write(result, request, name)
    return 0


def _texts(request: TextOptions) -> list[str]:
    """The texts that were given, and those of files: a file is a text."""
    texts = list(request.texts)
    for file in request.files:
        try:
            texts.append(file.read_text("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{str(file)!r} is no text in UTF-8: {error}") from error
    return texts


def _target(request: TextOptions) -> Any:
    if request.target_text is None and request.against is None:
        if request.target == "predicted":
            return None  # of classifiers the class that is predicted; what other models write
        return int(request.target) if request.target.isdecimal() else request.target
    if request.target != "predicted":
        raise InputError("--target names a class, and --target-text words that follow: give one.")
    return Continuation(request.target_text, against=request.against)


def _baseline(names: Sequence[str]) -> Any:
    return "mean" if not names else names[0] if len(names) == 1 else list(names)


def _nodes(method: str, nodes: int | None) -> dict[str, Any]:
    if nodes is None:
        return {}
    if "rule" not in about(method).options:
        raise InputError(f"--nodes does not go with {method}, which counts otherwise.")
    return {"rule": GaussLegendre(nodes)}


_LONG = 10.0  # seconds from which on it is worth saying what it will take
_USUAL = 50  # gradients that a tolerance takes


def _tell_of_long_work(estimate: CostEstimate) -> None:
    """A line on stderr, before work that takes long."""
    seconds = estimate.seconds
    if seconds is None:
        seconds = _USUAL * estimate.texts * estimate.gradient_seconds
    if seconds >= _LONG:
        console.note(str(estimate))


def _tell(result: TextAttribution) -> None:
    output = console.out()
    from ..report.text import terminal

    coloured = terminal(result, colour=output.color_system is not None)
    output.print(Text.from_ansi(coloured), soft_wrap=True)


def _write(result: TextAttribution, request: TextOptions, method: str) -> None:
    """The page, the numbers and, where wanted, the attribution; several methods have their name in
    that of the file."""
    several = f"-{method}" if len(request.methods) > 1 else ""
    request.out.mkdir(parents=True, exist_ok=True)
    page = request.out / f"index{several}.html"
    result.to_html(page, title=f"Texts explained by {method}")
    numbers = request.out / f"texts{several}.json"
    with whole(numbers) as partial:
        partial.write_text(json.dumps(result.to_json(), ensure_ascii=False, indent=1), "utf-8")
    written = [page, numbers]
    if request.save:
        written.append(request.out / f"texts{several}.safetensors")
        result.save(written[-1])
    files = ", ".join(map(str, written))
    console.out().print(Text(f"Wrote {files}", "bold"), soft_wrap=True)
