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

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from rich.table import Table
from rich.text import Text

from ..core.formatting import count, percent, printable
from ..core.optional import check_installed
from ..errors import (
    InputError,
    MissingExtra,
    NonFiniteInput,
    UnknownName,
)
from ..images import REGISTRY, load_model
from . import console, jobs, presets, summary
from .jobs import Outcome
from .pages import THUMBS, OutputFolder, claimed, gap_text
from .picture import PREVIEWS, SAME_SCALE, PictureWork, blank_record, in_words, prediction_text
from .progress import PictureProgress
from .records import MapRecord, PictureFile
from .session import ExplainOptions, Session, picture_digest
from .signals import undisturbed

_ALL = "all"  # methods
_TOLD = 20  # pictures that are told of one by one on the terminal
_HOPELESS = 3  # pictures that fail one after the other, before any is explained, end the run


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

    def __init__(self, session: Session) -> None:
        self.session, self.request = session, session.request
        place, parts = self.request.part
        self.pictures = session.pictures[place - 1 :: parts]
        self.folder = OutputFolder(
            self.request.out,
            f"{session.model.name} explained",
            session.settings,
            session.fingerprint,
            [picture.stem for picture in session.pictures],
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
            content = picture_digest(picture.source)
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
        session = self.session
        for picture in missing:
            self._begin(picture)
            if self.folder.full:
                return
            work = PictureWork(session, picture, progress, self._tells)
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
            session.tell_heard()

    def _side_by_side(
        self, missing: Sequence[PictureFile], progress: PictureProgress
    ) -> Iterator[Outcome]:
        start = jobs.Start(self.request, self.session.every)
        for outcome in jobs.explained(start, missing, self.request.jobs, self._begin):
            if outcome is None:
                progress.wait()
                continue
            with progress.quiet():
                if self._tells and outcome.record and outcome.record.predictions:
                    console.out().print(prediction_text(outcome.record))
                for kind, message in outcome.said:
                    self.session.pass_on(kind, message)
            yield outcome

    def _begin(self, picture: PictureFile) -> None:
        methods = self.request.methods
        names = [f"{picture.stem}.html"]
        names += [f"{picture.stem}-{name}.png" for name in (*methods, "methods", SAME_SCALE)]
        stems = [picture.stem, *(f"{picture.stem}-{name}" for name in methods[:PREVIEWS])]
        names += [f"{THUMBS}/{stem}{end}" for stem in stems for end in (".jpg", ".png")]
        self.folder.begin(picture.stem, names)

    def _take(self, outcome: Outcome, progress: PictureProgress) -> None:
        """What came of a picture is told and recorded."""
        picture, record = outcome.picture, outcome.record
        if record is None:
            content = picture_digest(picture.source)
            reasons = {"": printable(str(outcome.error))}
            record = replace(blank_record(self.session, picture), digest=content, failed=reasons)
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
            console.fail(f"{picture.name} is not explained: {in_words(error)}")
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
        if not self.pictures and self.session.pictures:
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
        skipped = bool(self.session.passed_over or counts["failed"] or folder.refused)
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


# --- what is printed --------------------------------------------------------------------------------------------------


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
