"""``integrand explain``: for every picture, the predictions and a map by every requested method.

    names checked ─▶ model ─▶ for each picture:  predict ─▶ explain by each method ─▶ maps on disk,
                                                 a table on the terminal
                                                                                 └──▶ pages of at
                                                                                 most 20 pictures

Names are checked and packages looked for before the model is loaded. A picture that cannot be read
is named and passed over, and so is a file that cannot be written. Whatever stops the work, maps
that are finished are on disk and the page tells of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text
from torch import Tensor

from ..core.formatting import percent, shortened
from ..core.optional import check_installed
from ..errors import (
    ImageError,
    IncompleteWarning,
    InputError,
    IntegrandError,
    IntegrandWarning,
    MissingExtra,
    OptimizeWarning,
    TrainingModeWarning,
)
from ..explain import explain
from ..fields.views import CallCount
from ..images import REGISTRY, Guess, ImageModel, load_model, pictures, samples, titles
from ..images.files import SAMPLE
from ..integration.attribution import Attribution, Explainer
from ..report import Case, sheet
from ..report.formatting import NO_GAP, NOT_CLAIMED, incomplete, unsettled
from . import console, presets
from .pages import Pages, claimed
from .signals import undisturbed as undisturbed
from .supplies import Supplies

_TOP = 5
_ALL = "all"  # methods
_SHEET = 7  # methods and more are also drawn together on one picture
_PAGE = 20  # pictures on a page: a browser still opens it, and their attributions fit into memory
_POOL = 64  # references that are looked at
_LISTED = 5  # pages that are named one by one when they are written
_HEAD = 40  # characters of names in the title of a picture
_OF_THE_MODEL = (TrainingModeWarning, OptimizeWarning)  # the same for every picture and method


@dataclass(frozen=True)
class ExplainOptions:
    """What was asked for on the command line."""

    images: tuple[str, ...]
    model: str = "efficientnet-lite0"
    methods: tuple[str, ...] = ("weighted",)
    baselines: tuple[str, ...] = ()
    target: str = "predicted"
    references: tuple[str, ...] = ()
    nodes: int | None = None
    tol: float | None = None
    seed: int | None = None
    device: str = "cpu"
    out: Path = Path("integrand-out")
    save: bool = False
    optimize: bool = False


def run(request: ExplainOptions) -> int:
    """Do it. Returns the exit status: 1 if a picture was passed over or a file not written, 2 if
    nothing was done."""
    all_methods = _ALL in request.methods
    if all_methods:
        request = replace(request, methods=presets.every())
    presets.check(request.methods, request.baselines)
    if request.nodes is not None and request.tol is not None:
        raise InputError("--nodes and --tol both say how to integrate: give one of them.")
    _check_packages(request.save)
    with claimed(request.out, "explain"):
        return _run(request, all_methods)


def _run(request: ExplainOptions, all_methods: bool) -> int:
    model = load_model(request.model).to(request.device)
    if model.name == request.model and request.model not in REGISTRY:  # its function did not say
        console.note(
            f"{model.name} is taken to want {model.size} x {model.size} pixels and {model.normalisation}."
        )
    desk = Session(request, model, every=all_methods)
    pages = Pages(request.out, f"{model.name} explained", _PAGE)
    try:
        for source in desk.images:
            with desk.passing_over():
                _explain_picture(desk, source, pages)
    finally:
        pages.finish()
    if not pages.written:
        console.fail(
            "Nothing was written." if pages.failed else "None of the pictures could be read."
        )
        return 2
    written = [str(file) for file in pages.written]
    listed = written if len(written) <= _LISTED else [written[0], "…", written[-1]]
    console.out().print(Text(f"Wrote {', '.join(listed)}", "bold"), soft_wrap=True)
    return 1 if desk.passed_over or pages.failed else 0


def _check_packages(save: bool) -> None:
    """What is needed only at the end is looked for at the beginning."""
    extras = {
        "PIL": "cli",
        "matplotlib": "plot",
        "jinja2": "report",
        **({"safetensors": "save"} if save else {}),
    }
    check_installed(extras, "integrand explain")


# --- one picture ------------------------------------------------------------------------------------------------------


def _explain_picture(desk: Session, source: str, pages: Pages) -> None:
    """One picture: what the model sees in it, and why by every method."""
    model, wanted = desk.model, desk.request.target
    x = model.prepare(source)
    with desk.hearing():
        logits = model.logits(x)
        guesses = model.guesses(logits, _TOP)[0]
        target = guesses[0].index if wanted == "predicted" else model.find(wanted, logits.shape[1])
        about = PictureTask(source, x, guesses[0].index, target)
        results: dict[str, Attribution] = {}
        remarks: dict[str, str] = {}
        left_out: dict[str, str] = {}
        methods = {}
        for name in desk.request.methods:
            with desk.leaving_out(name, left_out):
                methods[name] = desk.method(name, about)
                remarks |= desk.remark(name, about)
    case = Case(
        desk.titles[source],
        [(g.name, g.probability) for g in guesses],
        f"logit of {model.label(target)}",
        results,
        remarks,
        left_out,
        picture=model.normalisation.decode(x[0].double()).permute(1, 2, 0).cpu().numpy(),
        brief=desk.brief,
    )
    pages.add(case)
    console.out().print(_prediction(case.name, guesses, target, model.label(target)))
    with _bars() as bars:
        for name, method in methods.items():
            with desk.leaving_out(name, left_out):
                attribution = _explained(desk, about, name, method, bars)
                with undisturbed():
                    results[name] = (
                        attribution  # on the page, whether or not its own files can be written
                    )
                    with pages.writing():
                        _write(attribution, desk, pages, about, name)
                if "fit" in attribution.notes:
                    learnt = ", ".join(
                        f"{float(fit):.2f}" for fit in attribution.notes["fit"].flatten()
                    )
                    remarks[name] = (
                        f"{remarks.get(name, '')}; R² of its support regressors {learnt}".removeprefix(
                            "; "
                        )
                    )
    if len(results) >= _SHEET:
        with pages.writing():
            sheet(case, pages.file(f"{pages.name(source)}-methods.png"))
            sheet(case, pages.file(f"{pages.name(source)}-methods-same-scale.png"), same_scale=True)
    console.out().print(_table(results))
    _footnote(results)
    desk.tell_heard()


def _explained(
    desk: Session, about: PictureTask, name: str, method: Explainer, bars: Progress
) -> Attribution:
    """The attribution by one method."""
    with desk.hearing(f"{desk.titles[about.source]}, {name}: ", gaps=method.explains == "layer"):
        return explain(
            desk.model.module,
            about.x,
            target=about.target,
            method=method,
            normalisation=desk.model.normalisation,
            seed=desk.request.seed,
            progress=_bar(bars, name),
            optimize=desk.request.optimize,
        )


def _write(
    attribution: Attribution, desk: Session, pages: Pages, about: PictureTask, name: str
) -> None:
    stem = f"{pages.name(about.source)}-{name}"
    words = (
        shortened(desk.titles[about.source], _HEAD),
        shortened(desk.model.label(about.target), _HEAD),
        name,
    )
    attribution.plot(path=pages.file(f"{stem}.png"), titles=console.line(" · ".join(words)))
    if desk.request.save:
        attribution.save(pages.file(f"{stem}.safetensors"))


def _bars() -> Progress:
    """A bar per method, gone when the picture is done; nothing where stderr is no terminal."""
    return console.bars(TextColumn("{task.fields[work]}", markup=False))


def _bar(bars: Progress, method: str) -> Callable[[CallCount], None]:
    task = bars.add_task(method, total=None, work="")

    def watch(tally: CallCount) -> None:
        work = f"{tally.gradients} gradients, {tally.values} values"
        bars.update(task, completed=tally.gradients, total=tally.expected, work=work)

    return watch


def _prediction(head: str, guesses: Sequence[Guess], target: int, label: str) -> Text:
    text = Text.assemble((console.line(head), "bold"))
    for guess in guesses:
        mark = "  ◀ explained" if guess.index == target else ""
        text.append(
            f"\n  {guess.probability:6.1%}  {console.line(guess.name)} ({guess.index}){mark}"
        )
    if target not in [guess.index for guess in guesses]:
        text.append(f"\n     …     {console.line(label)} ({target})  ◀ explained")
    return text.append("\n")


def _table(results: Mapping[str, Attribution]) -> Table:
    numbers = ("residual", "gap", "error", "gradients", "seconds")
    table = console.table("method", *numbers, right=numbers)
    for method, attribution in results.items():
        residual = (
            f"{float(attribution.residual[0]):+.3f}" if attribution.claims_completeness else "–"
        )
        cost = attribution.cost
        table.add_row(
            method,
            residual,
            _gap(attribution),
            _error(attribution),
            str(cost.gradients),
            f"{cost.seconds:.1f}",
        )
    return table


def _gap(attribution: Attribution) -> Text:
    gap = float(attribution.gap[0])
    if not attribution.claims_completeness:
        return Text(f"{percent(gap)}  " if gap <= NO_GAP else f"{NOT_CLAIMED}  ", "dim")
    return (
        Text(f"{percent(gap)} *", "bold yellow")
        if incomplete(attribution, 0)
        else Text(f"{percent(gap)}  ")
    )


def _error(attribution: Attribution) -> Text:
    """The error that the method estimates of its map, where it does."""
    error = float(attribution.error[0])
    return (
        Text(f"{percent(error)} †", "bold yellow")
        if unsettled(attribution, 0)
        else Text(f"{percent(error)}  ")
    )


def _footnote(results: Mapping[str, Attribution]) -> None:
    missing = [name for name, attribution in results.items() if incomplete(attribution, 0)]
    if missing:
        words = (
            "* These maps miss more than a tenth of the change they should add up to. "
            + _remedy(missing, results)
        )
        console.out().print(Text(words, "yellow"))
    if any(unsettled(attribution, 0) for attribution in results.values()):
        words = "† These maps stopped before their estimated error was within the tolerance; a larger --tol is met sooner."
        console.out().print(Text(words, "yellow"))
    console.out().print()


def _remedy(missing: Sequence[str], results: Mapping[str, Attribution]) -> str:
    """What closes the gap of some maps: a tolerance, where their rule can be set and has none; else
    only another start."""
    able = [
        name for name in missing if presets.integrates(name) and results[name].error.isnan().all()
    ]
    rest = [name for name in missing if name not in able]
    sentences = [f"--tol 0.05 integrates {', '.join(able)} more closely."] if able else []
    sentences += [f"Of {', '.join(rest)} another --baseline may miss less."] if rest else []
    return " ".join(sentences)


# --- what is on the desk ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PictureTask:
    """A picture x (1, C, H, W) from somewhere, the class that the model gives it, and the one to
    explain."""

    source: str
    x: Tensor
    predicted: int
    target: int


@dataclass
class Session:
    """The model, the pictures, and the other photographs that methods start from; read once, when
    first needed."""

    request: ExplainOptions
    model: ImageModel
    every: bool = False
    """Whether all methods were asked for, and not these."""
    passed_over: list[str] = field(default_factory=list)
    _supplies: tuple[PictureTask, Supplies] | None = None
    _heard: list[str] = field(default_factory=list)
    _messages: set[str] = field(default_factory=set)

    # Pictures.

    @cached_property
    def images(self) -> list[str]:
        """The pictures to explain; folders are opened."""
        return self._opened(self.request.images)

    @cached_property
    def titles(self) -> dict[str, str]:
        """What to call each picture."""
        return titles(self.images)

    @cached_property
    def references(self) -> list[str]:
        """What was given with --references; folders are opened."""
        return self._opened(self.request.references)

    @cached_property
    def shipped(self) -> list[str]:
        """Sample photographs; none without scikit-image."""
        try:
            shipped = samples()
        except MissingExtra:
            return []
        return [SAMPLE + name for name in presets.PHOTOGRAPHS if name in shipped]

    def _opened(self, sources: Sequence[str]) -> list[str]:
        files: list[str] = []
        for source in sources:
            with self.passing_over():
                files += pictures(source)
        return list(dict.fromkeys(files))

    @contextmanager
    def passing_over(self) -> Iterator[None]:
        """A picture that cannot be read is named and passed over."""
        try:
            yield
        except ImageError as error:
            self.passed_over.append(str(error))
            console.fail(f"{error} Skipped.")

    # What methods start from.

    @property
    def brief(self) -> bool:
        """Whether methods are set up to take little."""
        return self.every and self.request.nodes is None and self.request.tol is None

    def method(self, name: str, about: PictureTask) -> Any:
        """The method called ``name``, set up for this picture; what it does not look for is not
        read."""
        wants = presets.wants(name, self.request.baselines)
        setting = presets.PresetInputs(
            self.request.baselines, nodes=self.request.nodes, tol=self.request.tol, brief=self.every
        )
        if wants == "pool" and self.pool is not None:
            pool, logits = self.pool
            setting = replace(
                setting, pool=pool, others=int((logits.argmax(1) != about.predicted).sum())
            )
        elif wants == "supplies":
            setting = replace(setting, supplies=self._supplied(about))
        if wants != "pool" and presets.PHOTO in (
            self.request.baselines or ((presets.PHOTO,) if wants == presets.PHOTO else ())
        ):
            setting = replace(setting, photo=self._photo(about.source, about.x))
        return presets.method(name, setting)

    def remark(self, name: str, about: PictureTask) -> dict[str, str]:
        """What a reader of the map has to know of how the method was set up; also told at once."""
        supplies = self._supplied(about) if presets.supplied(name) else None
        words = supplies.made_for(presets.supplied(name)) if supplies else ""
        if words:
            self._tell_once(f"{name}: {words}.")
        return {name: words} if words else {}

    def _supplied(self, about: PictureTask) -> Supplies | None:
        """What is made of other photographs than this picture."""
        if self.pool is None:
            return None
        if self._supplies is None or self._supplies[0] is not about:
            pool, logits = self.pool
            different = (pool != about.x).flatten(1).any(1)
            supplies = Supplies(
                self.model, about.x, about.target, pool[different], logits[different]
            )
            self._supplies = (about, supplies)
        return self._supplies[1]

    @contextmanager
    def leaving_out(self, name: str, left_out: dict[str, str]) -> Iterator[None]:
        """Where all methods were asked for, one that cannot be had is named and left out."""
        try:
            yield
        except IntegrandError as error:
            if not self.every:
                raise
            left_out[name] = str(error)
            console.note(f"{name} is left out: {error}")

    def _photo(self, source: str, x: Tensor) -> Tensor | None:
        """One other photograph than ``source``: a reference, else another picture that was given,
        else a sample."""
        for candidate in (*self.references, *self.images, *self.shipped):
            try:
                photo = x if candidate == source else self.model.prepare(candidate)
            except ImageError:  # named when its own turn comes
                continue
            if not torch.equal(photo, x):
                return photo[0]
        self._tell_once(
            "There is no other photograph, so that baseline is left out; --references adds one."
        )
        return None

    @cached_property
    def pool(self) -> tuple[Tensor, Tensor] | None:
        """Photographs to choose references from (N, C, H, W), and what the model says of each (N,
        classes)."""
        sources = self.references or self.shipped
        if len(sources) > _POOL:
            self._tell_once(f"Of {len(sources)} references {_POOL} are used, evenly spaced.")
            sources = [sources[i * len(sources) // _POOL] for i in range(_POOL)]
        photographs: list[Tensor] = []
        for source in sources:
            with self.passing_over():
                photographs.append(self.model.prepare(source))
        if not photographs:
            return None
        pool = torch.cat(photographs)
        return pool, self.model.logits(pool)

    # Warnings.

    @contextmanager
    def hearing(self, who: str = "", *, gaps: bool = False) -> Iterator[None]:
        """The library's warnings are kept, to be told when the table is out; others go where they
        would have gone.

        Those of ``gaps`` are kept only where the table does not tell them.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("always", IntegrandWarning)
            elsewhere = warnings.showwarning

            def show(
                message: Warning | str, category: type[Warning], *where: Any, **more: Any
            ) -> None:
                if not issubclass(category, IntegrandWarning):
                    elsewhere(message, category, *where, **more)
                elif gaps or not issubclass(category, IncompleteWarning):  # the table says so
                    self._heard.append(
                        str(message) if issubclass(category, _OF_THE_MODEL) else f"{who}{message}"
                    )

            warnings.showwarning = show
            yield

    def tell_heard(self) -> None:
        """Every warning once."""
        for message in self._heard:
            self._tell_once(message, console.warn)
        self._heard.clear()

    def _tell_once(self, message: str, how: Callable[[str], None] = console.note) -> None:
        if message not in self._messages:
            self._messages.add(message)
            how(message)
