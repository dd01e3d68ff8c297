"""One picture of ``integrand explain``: predictions, a map by every method, and its files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from importlib import metadata
from typing import Any

from rich.text import Text
from torch import Tensor

from ..core.files import write_text
from ..core.formatting import printable, shortened
from ..errors import (
    ImageError,
    IntegrandError,
    UnknownName,
)
from ..explain import explain
from ..integration.attribution import Attribution, Explainer
from ..methods import about as about_method
from ..report import Case, sheet
from ..report.formatting import incomplete, unsettled
from ..report.html import page
from ..report.overview import map_thumbnail, thumbnail_ending, write_thumbnail
from ..tables.results import per_example
from . import console
from .pages import THUMBS, PictureFiles
from .progress import PictureProgress
from .records import MapRecord, PictureFile, PictureRecord
from .session import PictureQuestion, Session, picture_digest
from .signals import undisturbed

_TOP = 5
_SHEET = 7  # methods and more are also drawn together on one picture
_HEAD = 40  # characters of names in the title of a picture
PREVIEWS = 5  # maps of a picture that have a thumbnail
_VERSIONS = ("integrand", "torch", "numpy")
SAME_SCALE = "methods-same-scale"


class PictureWork:
    """One picture: what the model sees in it, and why by every method; then its files."""

    def __init__(
        self,
        session: Session,
        picture: PictureFile,
        progress: PictureProgress | None = None,
        tells: bool = False,
    ) -> None:
        self.session, self.picture, self.progress, self.tells = session, picture, progress, tells
        self.files = PictureFiles(session.request.out, picture.stem)
        self.record = replace(blank_record(session, picture), digest=picture_digest(picture.source))
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
            self.x = self.session.model.prepare(self.picture.source)
        except ImageError as error:
            self.failed[""] = printable(str(error))
            self.session.say("fail", f"{error} Skipped.")
            return
        with self._attempting(""), self.session.hearing():
            question, methods = self._set_up(self.x)
            self._announce()
        if not self.failed:
            for name, method in methods.items():
                with self._attempting(name):
                    self._explain(question, name, method)

    def _set_up(self, x: Tensor) -> tuple[PictureQuestion, dict[str, Any]]:
        """The class that is explained, and the methods that do."""
        session, wanted = self.session, self.session.request.target
        model = session.model
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
        question = PictureQuestion(self.picture.source, x, guesses[0].index, target)
        methods = {}
        for name in session.request.methods:
            with session.leaving_out(name, self.left_out):
                methods[name] = session.method(name, question)
                self.remarks |= session.remark(name, question)
        return question, methods

    def _announce(self) -> None:
        if self.tells:
            with self.progress.quiet() if self.progress else nullcontext():
                console.out().print(prediction_text(self.record))

    def _explain(self, question: PictureQuestion, name: str, method: Explainer) -> None:
        bar = self.progress.method(name) if self.progress else False
        with self.session.leaving_out(name, self.left_out):
            attribution = _explained(self.session, question, self.picture.name, name, method, bar)
            with undisturbed():
                self.maps[name] = attribution  # whether or not its own files can be written
                self._write(attribution, question, name)
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
            self.failed[name] = printable(in_words(error))
            self.error = self.error or error

    def _write(self, attribution: Attribution, question: PictureQuestion, name: str) -> None:
        stem = f"{self.picture.stem}-{name}"
        words = (
            shortened(self.picture.name, _HEAD),
            shortened(self.session.model.label(question.target), _HEAD),
            name,
        )
        with self.files.writing(f"{stem}.png") as path:
            attribution.plot(path=path, titles=console.line(" · ".join(words)))
        if self.session.request.save:
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
        normalisation, stem = self.session.model.normalisation, self.picture.stem
        photograph = normalisation.decode(x[0].double()).permute(1, 2, 0).cpu().numpy()
        ending = thumbnail_ending(photograph)
        with self.files.writing(f"{THUMBS}/{stem}{ending}") as path:
            write_thumbnail(photograph, path)
        for name, attribution in list(self.maps.items())[:PREVIEWS]:
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
            brief=self.session.brief,
        )
        if len(self.maps) >= _SHEET:
            for name, same_scale in (("methods", False), (SAME_SCALE, True)):
                with self.files.writing(f"{stem}-{name}.png") as path:
                    sheet(case, path, same_scale=same_scale)
        with self.files.writing(f"{stem}.html") as path:
            title = f"{self.session.model.name} explained"
            write_text(path, page([case], title=title, home="index.html"))


def _explained(
    session: Session, question: PictureQuestion, head: str, name: str, method: Explainer, bar: Any
) -> Attribution:
    """The attribution by one method."""
    with session.hearing(f"{head}, {name}: ", gaps=method.explains == "layer"):
        return explain(
            session.model.module,
            question.x,
            target=question.target,
            method=method,
            normalisation=session.model.normalisation,
            seed=session.request.seed,
            progress=bar,
            batch_size=session.rows,
            optimize=session.request.optimize,
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


def blank_record(session: Session, picture: PictureFile) -> PictureRecord:
    return PictureRecord(
        printable(picture.source),
        picture.name,
        picture.stem,
        settings=session.fingerprint,
        seed=session.request.seed,
        versions=", ".join(f"{name} {metadata.version(name)}" for name in _VERSIONS),
    )


def in_words(error: Exception) -> str:
    """An error in words; of those that are not Integrand's with the type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, IntegrandError) else f"{type(error).__name__}: {text}"


def prediction_text(record: PictureRecord) -> Text:
    text = Text.assemble((console.line(record.name), "bold"))
    for name, probability, index in record.predictions:
        mark = "  ◀ explained" if index == record.target else ""
        text.append(f"\n  {probability:6.1%}  {console.line(name)} ({index}){mark}")
    if record.target not in [index for _, _, index in record.predictions]:
        text.append(f"\n     …     {console.line(record.label)} ({record.target})  ◀ explained")
    return text.append("\n")
