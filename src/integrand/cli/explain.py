"""``integrand explain``: for every picture, the predictions and a map by every requested method.

    names checked ─▶ model ─▶ for each picture:  predict ─▶ explain by each method ─▶ maps and a page
                                                 on disk, a record in the journal, a table on the
                                                 terminal
                                                                    └──▶ summary and overview

Names are checked and packages looked for before the model is loaded. A picture that cannot be read
or explained is named, recorded and passed over, and so is a file that cannot be written. Whatever
stops the work, what is finished is on disk, and ``--resume`` goes on from there.

A map depends on its picture and on the settings, not on the other pictures: baselines are constants
or fixed photographs, and calls of the model hold rows of one picture, so many of them as its size
says (and not as timings say, which differ from run to run). The same picture has the same bits.
"""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor

from ..core.files import digest, digest_of_file, write_text
from ..core.formatting import count, percent, printable, shortened
from ..core.optional import check_installed
from ..errors import (
    ImageError,
    IncompleteWarning,
    InputError,
    IntegrandError,
    IntegrandWarning,
    MissingExtra,
    NonFiniteInput,
    OptimizeWarning,
    TrainingModeWarning,
    UnknownName,
)
from ..explain import explain
from ..images import REGISTRY, ImageModel, load_model, pictures, samples, title, titles
from ..images.files import SAMPLE, find
from ..integration.attribution import Attribution, Explainer
from ..methods import about as about_method
from ..model.network import weights_digest
from ..report import Case, sheet
from ..report.formatting import incomplete, unsettled
from ..report.html import page
from ..report.overview import map_thumbnail, thumbnail_ending, write_thumbnail
from ..tables.results import per_example
from . import console, jobs, presets, summary
from .jobs import Outcome
from .pages import THUMBS, OutputFolder, PictureFiles, claimed, gap_text, stems
from .progress import PictureProgress
from .records import MapRecord, PictureFile, PictureRecord
from .signals import undisturbed as undisturbed
from .supplies import Supplies

_TOP = 5
_ALL = "all"  # methods
_SHEET = 7  # methods and more are also drawn together on one picture
_POOL = 64  # references that are looked at
_HEAD = 40  # characters of names in the title of a picture
_TOLD = 20  # pictures that are told of one by one on the terminal
_PREVIEWS = 5  # maps of a picture that have a thumbnail
_HOPELESS = 3  # pictures that fail one after the other, before any is explained, end the run
_ELEMENTS, _FEWEST, _MOST = 1 << 20, 8, 1024  # of a call of the model: numbers, and rows
_ELEMENTS_ON_GPU = 1 << 25
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
    resume: bool = False
    part: tuple[int, int] = (1, 1)
    jobs: int = 1
    strict: bool = False


def run(request: ExplainOptions) -> int:
    """Do it. Returns the exit status: 1 if a picture was passed over, a file not written, or, where
    that is asked, a map is not as it should be; 2 if nothing was done."""
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
    run = _Run(Session(request, model, every=all_methods))
    try:
        run.all()
    finally:
        run.folder.finish()
    return run.status()


def _check_packages(save: bool) -> None:
    """What is needed only at the end is looked for at the beginning."""
    extras = {
        "PIL": "cli",
        "matplotlib": "plot",
        "jinja2": "report",
        "pyarrow": "save",
        **({"safetensors": "save"} if save else {}),
    }
    check_installed(extras, "integrand explain")


# --- all pictures -----------------------------------------------------------------------------------------------------


class _Run:
    """The pictures of this process, one after the other or side by side."""

    def __init__(self, desk: Session) -> None:
        self.desk, self.request = desk, desk.request
        place, parts = self.request.part
        self.pictures = desk.pictures[place - 1 :: parts]
        self.folder = OutputFolder(
            self.request.out,
            f"{desk.model.name} explained",
            desk.settings,
            desk.fingerprint,
            [picture.stem for picture in desk.pictures],
            self.request.part,
            self.request.resume,
        )
        self.errors: list[tuple[PictureFile, Exception]] = []
        """Why pictures were not explained, until one is: what is wrong with all is no picture's
        fault."""

    def all(self) -> None:
        """Explain what is missing.

        Raises:
            Exception: the first error, where no picture at all could be explained because of one.
        """
        if not self.pictures:
            return
        self.folder.open()
        missing = self._missing()
        with PictureProgress(len(self.pictures), len(self.pictures) - len(missing)) as progress:
            outcomes = self._side_by_side if self.request.jobs > 1 else self._one_by_one
            for outcome in outcomes(missing, progress):
                self._take(outcome, progress)
                if self.folder.full:
                    console.fail("Nothing can be written any more: make room, then --resume.")
                    return
        if self.errors and not self._explained:
            raise self.errors[0][1]

    def _missing(self) -> list[PictureFile]:
        """The pictures that are to be computed."""
        changed = self.folder.changed if self.request.resume else []
        if changed:
            console.note(
                f"What is in {self.request.out} was made with other settings ({', '.join(changed)}) and is computed again."
            )
        missing = []
        for picture in self.pictures if self.request.resume else ():
            methods = self.request.methods
            content = _digest_of(picture.source)
            record = self.folder.done(picture.stem, content, methods, self.request.save)
            if record is None:
                missing.append(picture)
            else:
                self.folder.keep(record)
        if not self.request.resume:
            return list(self.pictures)
        console.note(
            f"{count(len(self.pictures) - len(missing))} of {count(len(self.pictures))} pictures are done already."
        )
        return missing

    def _one_by_one(
        self, missing: Sequence[PictureFile], progress: PictureProgress
    ) -> Iterator[Outcome]:
        desk = self.desk
        for picture in missing:
            self._begin(picture)
            if self.folder.full:
                return
            work = PictureWork(desk, picture, progress, self._tells)
            try:
                work.run()
            except KeyboardInterrupt:
                with undisturbed():
                    if work.maps:
                        self.folder.add(work.finish(done=False))
                raise
            with undisturbed():  # a signal that comes while pages are written costs no picture
                record = work.finish()
                self.folder.add(record)
            yield Outcome(picture, record, work.files.refused, work.files.full, (), work.error)
            desk.tell_heard()

    def _side_by_side(
        self, missing: Sequence[PictureFile], progress: PictureProgress
    ) -> Iterator[Outcome]:
        start = jobs.Start(self.request, self.desk.every)
        for outcome in jobs.explained(start, missing, self.request.jobs, self._begin):
            if outcome is None:
                progress.wait()
                continue
            with progress.quiet():
                if self._tells and outcome.record and outcome.record.predictions:
                    console.out().print(_prediction(outcome.record))
                for kind, message in outcome.said:
                    self.desk.pass_on(kind, message)
            yield outcome

    def _begin(self, picture: PictureFile) -> None:
        methods = self.request.methods
        names = [f"{picture.stem}.html"]
        names += [f"{picture.stem}-{name}.png" for name in (*methods, "methods", _SAME_SCALE)]
        stems = [picture.stem, *(f"{picture.stem}-{name}" for name in methods[:_PREVIEWS])]
        names += [f"{THUMBS}/{stem}{end}" for stem in stems for end in (".jpg", ".png")]
        self.folder.begin(picture.stem, names)

    def _take(self, outcome: Outcome, progress: PictureProgress) -> None:
        """What came of a picture is told and recorded."""
        picture, record = outcome.picture, outcome.record
        if record is None:
            content = _digest_of(picture.source)
            reasons = {"": printable(str(outcome.error))}
            record = replace(_blank(self.desk, picture), digest=content, failed=reasons)
        self.folder.add(record)
        with progress.quiet() if self._tells or outcome.refused or outcome.error else nullcontext():
            for refused in outcome.refused:
                self.folder.refused.append(refused)
                console.fail(refused)
            self.folder.full = self.folder.full or outcome.full
            if outcome.error is not None:
                self._take_error(picture, outcome.error)
            if record.maps:
                self._tell_errors()
            if self._tells and record.maps:
                console.out().print(_table(record.maps))
                _footnote(record.maps)
        progress.step()

    def _take_error(self, picture: PictureFile, error: Exception) -> None:
        self.errors.append((picture, error))
        if self._explained:
            self._tell_errors()
        elif _is_mistake(error) or len(self.errors) >= _HOPELESS:
            raise self.errors[0][1]

    def _tell_errors(self) -> None:
        for picture, error in self.errors:
            console.fail(f"{picture.name} is not explained: {_words(error)}")
        self.errors.clear()

    @property
    def _tells(self) -> bool:
        """Whether every picture is told of on the terminal."""
        return len(self.pictures) <= _TOLD

    @property
    def _explained(self) -> bool:
        return any(record.maps for record in self.folder.records)

    def status(self) -> int:
        """Tell what came of it all. Returns the exit status."""
        folder, records = self.folder, self.folder.records
        if not self.pictures and self.desk.pictures:
            place, parts = self.request.part
            console.note(f"Part {place}/{parts} has no pictures: there are fewer than parts.")
            return 0
        if not self._explained or not folder.wrote:
            refused = folder.refused or (self._explained and not folder.wrote)
            console.fail(
                "Nothing was written." if refused else "None of the pictures could be read."
            )
            return 2
        counts = summary.counts(records)
        if len(records) > 1:
            console.out().print(Text(_totals(counts)), soft_wrap=True)
        tables = ", ".join(summary.NAMES)
        words = f"Wrote {self.request.out / 'index.html'}; {tables} beside it"
        console.out().print(Text(words, "bold"), soft_wrap=True)
        skipped = bool(self.desk.passed_over or counts["failed"] or folder.refused)
        faulty = self.request.strict and any(record.faulty for record in records)
        return 1 if skipped or faulty else 0


def _totals(counts: Any) -> str:
    faults = [f"{counts[name]} {name}" for name in ("incomplete", "not converged") if counts[name]]
    maps = f"{count(counts['maps'])} maps" + (f" ({', '.join(faults)})" if faults else "")
    parts = [
        f"{count(counts['pictures'])} pictures",
        maps,
        f"{count(counts['gradients'])} gradients",
    ]
    if counts["failed"]:
        parts.insert(1, f"{counts['failed']} failed")
    return ", ".join(parts)


def _is_mistake(error: Exception) -> bool:
    """Whether an error is of what was asked for, whatever the picture."""
    by_the_user = isinstance(error, InputError | UnknownName | MissingExtra)
    return by_the_user and not isinstance(error, NonFiniteInput)


def _words(error: Exception) -> str:
    """An error in words; of those that are not Integrand's with the type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, IntegrandError) else f"{type(error).__name__}: {text}"


def _digest_of(source: str) -> str:
    """The hash of a picture's file; empty where it cannot be read."""
    try:
        return digest_of_file(find(source))
    except (OSError, IntegrandError, ValueError):
        return ""


def _blank(desk: Session, picture: PictureFile) -> PictureRecord:
    return PictureRecord(
        printable(picture.source),
        picture.name,
        picture.stem,
        settings=desk.fingerprint,
        seed=desk.request.seed,
        versions=", ".join(f"{name} {metadata.version(name)}" for name in _VERSIONS),
    )


_VERSIONS = ("integrand", "torch", "numpy")
_SAME_SCALE = "methods-same-scale"


# --- one picture ------------------------------------------------------------------------------------------------------


class PictureWork:
    """One picture: what the model sees in it, and why by every method; then its files."""

    def __init__(
        self,
        desk: Session,
        picture: PictureFile,
        progress: PictureProgress | None = None,
        tells: bool = False,
    ) -> None:
        self.desk, self.picture, self.progress, self.tells = desk, picture, progress, tells
        self.files = PictureFiles(desk.request.out, picture.stem)
        self.record = replace(_blank(desk, picture), digest=_digest_of(picture.source))
        self.maps: dict[str, Attribution] = {}
        self.remarks: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.error: Exception | None = None
        """Why there is no map, where something else than the file is the reason."""
        self.x: Tensor | None = None

    def run(self) -> None:
        """Explain it; whatever goes wrong with it is kept, and nothing raised."""
        try:
            self.x = self.desk.model.prepare(self.picture.source)
        except ImageError as error:
            self.failed[""] = printable(str(error))
            self.desk.say("fail", f"{error} Skipped.")
            return
        with self._attempting(""), self.desk.hearing():
            about, methods = self._set_up(self.x)
            self._announce()
        if not self.failed:
            for name, method in methods.items():
                with self._attempting(name):
                    self._explain(about, name, method)

    def _set_up(self, x: Tensor) -> tuple[PictureTask, dict[str, Any]]:
        """The class that is explained, and the methods that do."""
        desk, wanted = self.desk, self.desk.request.target
        model = desk.model
        logits = model.logits(x)
        guesses = model.guesses(logits, _TOP)[0]
        target = guesses[0].index if wanted == "predicted" else model.find(wanted, logits.shape[1])
        self.record = replace(
            self.record,
            predictions=tuple((g.name, g.probability, g.index) for g in guesses),
            target=target,
            label=model.label(target),
            probability=float(logits.softmax(1)[0, target]),
        )
        about = PictureTask(self.picture.source, x, guesses[0].index, target)
        methods = {}
        for name in desk.request.methods:
            with desk.leaving_out(name, self.left_out):
                methods[name] = desk.method(name, about)
                self.remarks |= desk.remark(name, about)
        return about, methods

    def _announce(self) -> None:
        if self.tells:
            with self.progress.quiet() if self.progress else nullcontext():
                console.out().print(_prediction(self.record))

    def _explain(self, about: PictureTask, name: str, method: Explainer) -> None:
        bar = self.progress.method(name) if self.progress else False
        with self.desk.leaving_out(name, self.left_out):
            attribution = _explained(self.desk, about, self.picture.name, name, method, bar)
            with undisturbed():
                self.maps[name] = attribution  # whether or not its own files can be written
                self._write(attribution, about, name)
            if "fit" in attribution.notes:
                fits = attribution.notes["fit"].flatten()
                learnt = ", ".join(f"{float(fit):.2f}" for fit in fits)
                words = f"R² of its support regressors {learnt}"
                self.remarks[name] = "; ".join(filter(None, (self.remarks.get(name), words)))

    @contextmanager
    def _attempting(self, name: str) -> Iterator[None]:
        """What cannot be done with this picture is kept; the next may fare better."""
        try:
            yield
        except Exception as error:  # the user's model raises what it likes
            self.failed[name] = printable(_words(error))
            self.error = self.error or error

    def _write(self, attribution: Attribution, about: PictureTask, name: str) -> None:
        stem = f"{self.picture.stem}-{name}"
        words = (
            shortened(self.picture.name, _HEAD),
            shortened(self.desk.model.label(about.target), _HEAD),
            name,
        )
        with self.files.writing(f"{stem}.png") as path:
            attribution.plot(path=path, titles=console.line(" · ".join(words)))
        if self.desk.request.save:
            with self.files.writing(f"{stem}.safetensors") as path:
                attribution.save(path)

    def finish(self, *, done: bool = True) -> PictureRecord:
        """Write thumbnails and the page. Returns what is known of the picture."""
        with undisturbed():
            if self.x is not None:
                self._write_pictures(self.x)
            self.record = replace(
                self.record,
                maps=tuple(
                    _map_record(name, attribution) for name, attribution in self.maps.items()
                ),
                failed=self.failed,
                left_out=self.left_out,
                files=self.files.written,
                done=done,
            )
        return self.record

    def _write_pictures(self, x: Tensor) -> None:
        normalisation, stem = self.desk.model.normalisation, self.picture.stem
        photograph = normalisation.decode(x[0].double()).permute(1, 2, 0).cpu().numpy()
        ending = thumbnail_ending(photograph)
        with self.files.writing(f"{THUMBS}/{stem}{ending}") as path:
            write_thumbnail(photograph, path)
        for name, attribution in list(self.maps.items())[:_PREVIEWS]:
            with self.files.writing(f"{THUMBS}/{stem}-{name}{ending}") as path:
                write_thumbnail(map_thumbnail(attribution, photograph), path)
        if not self.maps:
            return
        case = Case(
            self.picture.name,
            [(name, p) for name, p, _ in self.record.predictions],
            f"logit of {self.record.label}",
            self.maps,
            self.remarks,
            {**self.left_out, **self.failed},
            picture=photograph,
            brief=self.desk.brief,
        )
        if len(self.maps) >= _SHEET:
            for name, same_scale in (("methods", False), (_SAME_SCALE, True)):
                with self.files.writing(f"{stem}-{name}.png") as path:
                    sheet(case, path, same_scale=same_scale)
        with self.files.writing(f"{stem}.html") as path:
            title = f"{self.desk.model.name} explained"
            write_text(path, page([case], title=title, home="index.html"))


def _explained(
    desk: Session, about: PictureTask, head: str, name: str, method: Explainer, bar: Any
) -> Attribution:
    """The attribution by one method."""
    with desk.hearing(f"{head}, {name}: ", gaps=method.explains == "layer"):
        return explain(
            desk.model.module,
            about.x,
            target=about.target,
            method=method,
            normalisation=desk.model.normalisation,
            seed=desk.request.seed,
            progress=bar,
            batch_size=desk.rows,
            optimize=desk.request.optimize,
        )


def _map_record(name: str, attribution: Attribution) -> MapRecord:
    columns = {spec.name for spec in dataclasses.fields(MapRecord)}
    numbers = {
        column: values[0].item()
        for column, values in per_example(attribution).items()
        if column in columns
    }
    cost = attribution.cost
    try:
        title = about_method(name).title
    except UnknownName:
        title = name
    return MapRecord(
        method=name,
        title=title,
        claimed=attribution.claims_completeness,
        incomplete=incomplete(attribution, 0),
        unsettled=unsettled(attribution, 0),
        gradients=cost.gradients,
        values=cost.values,
        seconds=round(cost.seconds, 4),
        **numbers,
    )


# --- what is printed --------------------------------------------------------------------------------------------------


def _prediction(record: PictureRecord) -> Text:
    text = Text.assemble((console.line(record.name), "bold"))
    for name, probability, index in record.predictions:
        mark = "  ◀ explained" if index == record.target else ""
        text.append(f"\n  {probability:6.1%}  {console.line(name)} ({index}){mark}")
    if record.target not in [index for _, _, index in record.predictions]:
        text.append(f"\n     …     {console.line(record.label)} ({record.target})  ◀ explained")
    return text.append("\n")


def _table(maps: Sequence[MapRecord]) -> Table:
    numbers = ("residual", "gap", "error", "gradients", "seconds")
    table = console.table("method", *numbers, right=numbers)
    for map_record in maps:
        table.add_row(
            map_record.method,
            f"{map_record.residual:+.3f}" if map_record.claimed else "–",
            _gap(map_record),
            _error(map_record),
            str(map_record.gradients),
            f"{map_record.seconds:.1f}",
        )
    return table


def _gap(map_record: MapRecord) -> Text:
    text = gap_text(map_record)
    if not map_record.claimed:
        return Text(f"{text}  ", "dim")
    return Text(f"{text} *", "bold yellow") if map_record.incomplete else Text(f"{text}  ")


def _error(map_record: MapRecord) -> Text:
    """The error that the method estimates of its map, where it does."""
    text = percent(map_record.error)
    return Text(f"{text} †", "bold yellow") if map_record.unsettled else Text(f"{text}  ")


def _footnote(maps: Sequence[MapRecord]) -> None:
    missing = [map_record for map_record in maps if map_record.incomplete]
    if missing:
        words = (
            "* These maps miss more than a tenth of the change they should add up to. "
            + _remedy(missing)
        )
        console.out().print(Text(words, "yellow"))
    if any(map_record.unsettled for map_record in maps):
        words = "† These maps stopped before their estimated error was within the tolerance; a larger --tol is met sooner."
        console.out().print(Text(words, "yellow"))
    console.out().print()


def _remedy(missing: Sequence[MapRecord]) -> str:
    """What closes the gap of some maps: a tolerance, where their rule can be set and has none; else
    only another start."""
    able = [m.method for m in missing if presets.integrates(m.method) and math.isnan(m.error)]
    rest = [m.method for m in missing if m.method not in able]
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
    listener: Callable[[str, str], None] | None = None
    """Is given what is to be told (a kind and a message) in place of the terminal."""
    _supplies: tuple[PictureTask, Supplies] | None = None
    _heard: list[str] = field(default_factory=list)
    _messages: set[str] = field(default_factory=set)
    _photographs: dict[str, Tensor] = field(default_factory=dict)

    # Pictures.

    @cached_property
    def images(self) -> list[str]:
        """The pictures to explain; folders are opened."""
        return self._opened(self.request.images)

    @cached_property
    def pictures(self) -> list[PictureFile]:
        """The same, with what they and their files are called."""
        names, files = titles(self.images), stems(self.images)
        return [PictureFile(image, printable(names[image]), files[image]) for image in self.images]

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
            self.say("fail", f"{error} Skipped.")

    # What decides the maps.

    @property
    def rows(self) -> int:
        """Rows of a call of the model: so many whatever else the machine does, since other numbers
        of rows may round otherwise."""
        size = 3 * self.model.size**2
        elements = _ELEMENTS if self.model.device.type == "cpu" else _ELEMENTS_ON_GPU
        return min(_MOST, max(_FEWEST, elements // size))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that a map depends on besides its picture, in words and numbers."""
        request, model = self.request, self.model
        others = self._others if self._needs_others else []
        contents = "".join(_digest_of(source) for source in others)
        return {
            "model": request.model,
            "weights": weights_digest(model.module),
            "input": f"{model.size} x {model.size} of {model.crop:g}, {model.normalisation}",
            "classes": digest(repr(model.classes).encode()),
            "methods": list(request.methods),
            "baselines": list(request.baselines),
            "target": request.target,
            "nodes": request.nodes,
            "tol": request.tol,
            "brief": self.brief,
            "seed": request.seed,
            "optimize": request.optimize,
            "other photographs": [printable(source) for source in others],
            "their content": digest(contents.encode()) if others else "",
        }

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the settings."""
        return digest(json.dumps(self.settings, sort_keys=True).encode())

    @property
    def _needs_others(self) -> bool:
        """Whether a method may start from other photographs."""
        wants = [presets.wants(name, self.request.baselines) for name in self.request.methods]
        return any(wants) or presets.PHOTO in self.request.baselines

    @cached_property
    def _others(self) -> list[str]:
        """The other photographs that are looked at; they are the same for every picture."""
        sources = self.references or self.shipped
        if len(sources) > _POOL:
            self._tell_once(f"Of {len(sources)} references {_POOL} are used, evenly spaced.")
            sources = [sources[i * len(sources) // _POOL] for i in range(_POOL)]
        return sources

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
        if wants != "pool" and self.takes_photo(wants):
            photo, called = self._photo(about.x)
            setting = replace(setting, photo=photo, photo_name=called)
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
            left_out[name] = printable(str(error))
            self.say("note", f"{name} is left out: {error}")

    def takes_photo(self, wants: str | None) -> bool:
        """Whether another photograph is among the baselines: where it was asked for, by name or by
        giving some, or usual, for models that know photographs."""
        if self.request.baselines:
            return presets.PHOTO in self.request.baselines
        return wants == presets.PHOTO and bool(self.model.photographs or self.request.references)

    def _photo(self, x: Tensor) -> tuple[Tensor | None, str]:
        """One other photograph than ``x``, and what it is called: the first of the references, else
        of the samples, and the second for the first itself."""
        for candidate in (*self.references, *self.shipped):
            try:
                photo = self._prepared(candidate)
            except ImageError as error:
                self._tell_once(f"{error} Skipped.", "fail")
                continue
            if not torch.equal(photo, x):
                return photo[0], printable(title(candidate))
        self._tell_once(
            "There is no other photograph, so that baseline is left out; --references adds one."
        )
        return None, ""

    def _prepared(self, source: str) -> Tensor:
        """A photograph as the model sees it, read once."""
        if source not in self._photographs:
            self._photographs[source] = self.model.prepare(source)
        return self._photographs[source]

    @cached_property
    def pool(self) -> tuple[Tensor, Tensor] | None:
        """Photographs to choose references from (N, C, H, W), and what the model says of each (N,
        classes)."""
        photographs: list[Tensor] = []
        for source in self._others:
            with self.passing_over():
                photographs.append(self._prepared(source))
        if not photographs:
            return None
        pool = torch.cat(photographs)
        firsts = range(0, len(pool), self.rows)
        return pool, torch.cat([self.model.logits(pool[i : i + self.rows]) for i in firsts])

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
            self._tell_once(message, "warn")
        self._heard.clear()

    def _tell_once(self, message: str, kind: str = "note") -> None:
        if message not in self._messages:
            self._messages.add(message)
            self.say(kind, message)

    def say(self, kind: str, message: str) -> None:
        """Tell something: a "note", something to "warn" of, or why something was passed over
        ("fail")."""
        if self.listener is not None:
            self.listener(kind, message)
            return
        if kind == "fail":
            self.passed_over.append(message)
        _HOW[kind](message)

    def pass_on(self, kind: str, message: str) -> None:
        """Tell what a process of ours said; what several said is told once."""
        self._tell_once(message, kind)


_HOW = {"note": console.note, "warn": console.warn, "fail": console.fail}
