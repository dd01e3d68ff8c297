"""The session of ``integrand explain``: options, model, pictures, and the other photographs that
methods start from.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.files import digest, digest_of_file
from ..core.formatting import printable
from ..errors import (
    ImageError,
    IncompleteWarning,
    IntegrandError,
    IntegrandWarning,
    MissingExtra,
    OptimizeWarning,
    TrainingModeWarning,
)
from ..images import ImageModel, pictures, samples, title, titles
from ..images.files import SAMPLE, find
from ..model.network import weights_digest
from . import console, presets
from .pages import stems
from .records import PictureFile
from .signals import undisturbed as undisturbed
from .supplies import Supplies

_POOL = 64  # references that are looked at
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


@dataclass(frozen=True, eq=False)
class PictureQuestion:
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
    _supplies: tuple[PictureQuestion, Supplies] | None = None
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
        contents = "".join(picture_digest(source) for source in others)
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

    def method(self, name: str, question: PictureQuestion) -> Any:
        """The method called ``name``, set up for this picture; what it does not look for is not
        read."""
        wants = presets.wants(name, self.request.baselines)
        setting = presets.PresetInputs(
            self.request.baselines, nodes=self.request.nodes, tol=self.request.tol, brief=self.every
        )
        if wants == "pool" and self.pool is not None:
            pool, logits = self.pool
            setting = replace(
                setting, pool=pool, others=int((logits.argmax(1) != question.predicted).sum())
            )
        elif wants == "supplies":
            setting = replace(setting, supplies=self._supplied(question))
        if wants != "pool" and self.takes_photo(wants):
            photo, called = self._photo(question.x)
            setting = replace(setting, photo=photo, photo_name=called)
        return presets.method(name, setting)

    def remark(self, name: str, question: PictureQuestion) -> dict[str, str]:
        """What a reader of the map has to know of how the method was set up; also told at once."""
        supplies = self._supplied(question) if presets.supplied(name) else None
        words = supplies.made_for(presets.supplied(name)) if supplies else ""
        if words:
            self._tell_once(f"{name}: {words}.")
        return {name: words} if words else {}

    def _supplied(self, question: PictureQuestion) -> Supplies | None:
        """What is made of other photographs than this picture."""
        if self.pool is None:
            return None
        if self._supplies is None or self._supplies[0] is not question:
            pool, logits = self.pool
            different = (pool != question.x).flatten(1).any(1)
            supplies = Supplies(
                self.model, question.x, question.target, pool[different], logits[different]
            )
            self._supplies = (question, supplies)
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


def picture_digest(source: str) -> str:
    """The hash of a picture's file; empty where it cannot be read."""
    try:
        return digest_of_file(find(source))
    except (OSError, IntegrandError, ValueError):
        return ""
