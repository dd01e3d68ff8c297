"""``integrand compare``: scores every method on every picture by every metric; writes tables, a
page and raw scores.

    names checked ─▶ model ─▶ pictures ─▶ predict ─▶ methods at one budget ─▶ maps ─▶ metrics ─▶
    tables, page, Parquet

Names are checked and packages looked for before the model is loaded. A picture that cannot be read
is named and passed over; a method that fails on a picture has no score there, and the table says on
how many.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TextColumn
from rich.text import Text
from torch import Tensor

from ..compare import Comparison, Inference, compare
from ..compare.evaluate import metrics_by_name
from ..core.files import write_text
from ..core.formatting import number, p_value, printable
from ..core.optional import check_installed
from ..errors import ImageError, InputError, IntegrandWarning, UnknownName
from ..images import REGISTRY, load_model, title, titles
from ..report.comparison import page
from . import console, presets
from .pages import claimed
from .session import ExplainOptions as Explaining
from .session import Session
from .signals import undisturbed


@dataclass(frozen=True)
class CompareOptions:
    """What was asked for on the command line."""

    images: tuple[str, ...]
    methods: tuple[str, ...]
    metrics: tuple[str, ...] = ("deletion", "insertion")
    model: str = "efficientnet-lite0"
    budget: int | None = None
    tol: float | None = None
    target: str = "predicted"
    reference: str | None = None
    controls: bool = True
    baselines: tuple[str, ...] = ()
    vary: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    level: float = 0.95
    seed: int | None = None
    device: str = "cpu"
    out: Path = Path("integrand-compare")
    optimize: bool = False


def run(request: CompareOptions) -> int:
    """Do it. Returns the exit status: 1 if a picture was passed over or a map is missing."""
    presets.check(request.methods, (*request.baselines, *request.vary))
    _check_methods(request.methods)
    metrics_by_name(request.metrics)
    sure = Inference(request.level)
    if request.reference is not None and request.reference not in request.methods:
        raise UnknownName("method to compare with", request.reference, request.methods)
    _check_packages()
    with claimed(request.out, "compare"):
        return _run(request, sure)


def _run(request: CompareOptions, sure: Inference) -> int:
    model = load_model(request.model).to(request.device)
    if model.name == request.model and request.model not in REGISTRY:
        console.note(
            f"{model.name} is taken to want {model.size} x {model.size} pixels and {model.normalisation}."
        )
    session = Session(
        Explaining(request.images, baselines=request.baselines, references=request.references),
        model,
    )
    sources, x = _pictures(session)
    with session.hearing():
        logits = model.logits(x)
        target: Any = logits.argmax(1)
        if request.target != "predicted":
            target = model.find(request.target, logits.shape[1])
        methods = _methods(request, session, x, logits)
        vary = _vary(request)
        console.note(
            f"{len(sources)} pictures, {len(methods)} methods, {len(request.metrics)} metrics."
        )
        with _bar() as bars:
            task = bars.add_task("maps and scores", total=None)
            comparison = compare(
                model.module,
                x,
                target=target,
                methods=methods,
                metrics=request.metrics,
                gradients=request.budget,
                tol=request.tol,
                compare_to=request.reference,
                controls=request.controls,
                vary_baseline=vary,
                ids=[titles(sources)[source] for source in sources],
                normalisation=model.normalisation,
                seed=request.seed,
                inference=sure,
                optimize=request.optimize,
                progress=lambda finished, total: bars.update(task, completed=finished, total=total),
            )
    _tell(comparison)
    session.tell_heard()
    with undisturbed(), warnings.catch_warnings():
        warnings.simplefilter("ignore", IntegrandWarning)
        comparison.save(request.out, page=False)
        write_text(
            request.out / "index.html", page(comparison, title=f"Which method for {model.name}?")
        )
    console.out().print(Text(f"Wrote {request.out / 'index.html'}", "bold"), soft_wrap=True)
    return 1 if session.passed_over or comparison.scores.reasons else 0


def _check_packages() -> None:
    """What is needed only at the end is looked for at the beginning."""
    check_installed(
        {"PIL": "cli", "matplotlib": "plot", "jinja2": "report", "pyarrow": "save"},
        "integrand compare",
    )


# --- pictures and methods ---------------------------------------------------------------------------------------------


def _pictures(session: Session) -> tuple[list[str], Tensor]:
    """Those that can be read, as one batch."""
    sources: list[str] = []
    tensors: list[Tensor] = []
    for source in session.images:
        with session.passing_over():
            tensors.append(session.model.prepare(source))
            sources.append(source)
    if not tensors:
        raise InputError("None of the pictures can be read, so there is nothing to compare on.")
    return sources, torch.cat(tensors)


def _check_methods(names: Sequence[str]) -> None:
    """Refuse methods whose maps are not of pixels, and those that learn from data of which here are
    only pictures to judge them on."""
    for name in names:
        needs = presets.supplied(name)
        if "site" in needs:
            raise InputError(
                f"{name} explains a layer, whose map is not compared with maps of pixels: leave it out."
            )
        if needs:
            raise InputError(
                f"{name} needs {', '.join(needs)}, made of other data than what it is judged on: in Python, "
                f"ig.compare(…, methods={{{name!r}: ig.methods.{name}(…)}})."
            )


def _methods(
    request: CompareOptions, session: Session, x: Tensor, logits: Tensor
) -> dict[str, Any]:
    """Every method set up once, for all pictures."""
    wanted = {name: presets.wants(name, request.baselines) for name in request.methods}
    setting: dict[str, Any] = {"baselines": request.baselines, "tol": request.tol}
    if "pool" in wanted.values() and session.pool is not None:
        pool, said_of_pool = session.pool
        different = (
            said_of_pool.argmax(1)[None] != logits.argmax(1)[:, None]
        )  # of each picture, which of the pool
        setting |= {"pool": pool, "others": int(different.sum(1).min())}
    if any(session.takes_photo(wants) for wants in wanted.values()):
        setting["photo"], setting["photo_name"] = _photo(session, x)
    return {name: presets.method(name, presets.PresetInputs(**setting)) for name in request.methods}


def _photo(session: Session, x: Tensor) -> tuple[Tensor | None, str]:
    """One photograph that is none of the pictures, and what it is called."""
    for source in (*session.references, *session.shipped):
        try:
            photo = session.model.prepare(source)
        except ImageError:
            continue
        if not bool((photo == x).flatten(1).all(1).any()):
            return photo[0], printable(title(source))
    console.note(
        "There is no other photograph, so that baseline is left out; --references adds one."
    )
    return None, ""


def _vary(request: CompareOptions) -> dict[str, Any] | None:
    if not request.vary:
        return None
    if len(request.vary) < 2:
        raise InputError(
            f"--vary takes at least two baselines, such as --vary black,white, and {request.vary[0]} is one: maps from them are held "
            "against each other."
        )
    return {name: presets.baselines([name])[0] for name in request.vary}


def _bar() -> Progress:
    return console.bars(TextColumn("{task.completed} of {task.total} maps"))


# --- tables -----------------------------------------------------------------------------------------------------------


def _tell(comparison: Comparison) -> None:
    rows = comparison.table()
    for metric in comparison.scores.metrics:
        better = "higher is better" if comparison.scores.is_higher(metric) else "lower is better"
        console.out().print(
            Text.assemble((metric, "bold"), f"  {better}, {len(comparison.scores)} pictures")
        )
        console.out().print(_table(comparison, [row for row in rows if row["metric"] == metric]))
        verdict = comparison.verdict(metric)
        console.out().print(
            Text(verdict.words, "bold green" if verdict.winner else "yellow"), soft_wrap=True
        )
        console.out().print()
    misses = {row["method"]: row["incomplete"] for row in rows if row["incomplete"]}
    if misses:
        listed = ", ".join(f"{name} {count}" for name, count in misses.items())
        words = f"Maps that miss more than a tenth of the change they should add up to, of {len(comparison.scores)}: {listed}."
        console.out().print(Text(words, "yellow"), soft_wrap=True)
    notes = [f"{name}: {note}" for name, note in comparison.notes.items() if note != "as it is"]
    if notes:
        console.out().print(Text("; ".join(notes), "dim"), soft_wrap=True)
    if comparison.sensitivity is not None:
        alike = ", ".join(
            f"{name} {number(value)}" for name, value in comparison.sensitivity.alike().items()
        )
        over = ", ".join(comparison.sensitivity.baselines)
        console.out().print(Text(f"Likeness of maps from {over}: {alike}", "dim"), soft_wrap=True)


def _table(comparison: Comparison, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Fits eighty columns; intervals of differences, rows and incomplete maps are on the page."""
    numbers = ("mean", f"{100 * comparison.sure.level:g} %", "diff", "p", "better", "grads", "s")
    table = console.table("method", *numbers, right=numbers)
    for column in table.columns[1:]:
        column.no_wrap = True
    table.caption = f"diff, p, better: against {comparison.reference}"
    table.caption_justify = "left"
    sign = -1 if rows[0]["higher_is_better"] else 1
    for row in sorted(rows, key=lambda row: (math.isnan(row["mean"]), sign * row["mean"])):
        name = Text(row["method"], "dim" if row["control"] else "")
        if row["missing"]:
            name.append(f" ({row['missing']} missing)", "yellow")
        difference, p, wins = "", "", ""
        if row["difference"] is not None:
            difference, p = number(row["difference"], signed=True), p_value(row["corrected"])
            wins = "–" if math.isnan(row["wins"]) else f"{100 * row['wins']:.0f} %"
        interval = "–" if math.isnan(row["low"]) else f"{number(row['low'])}–{number(row['high'])}"
        cost = f"{row['gradients']:.0f}", f"{row['seconds']:.2g}"
        table.add_row(name, number(row["mean"]), interval, difference, p, wins, *cost)
    return table
