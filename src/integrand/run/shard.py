"""One shard: rows in, maps and a table of rows out. Nothing else decides what comes out.

The same shard of the same recipe has the same bytes wherever and whenever it is computed: rows are
explained in batches of a fixed size and order, model calls have a fixed number of rows, one thread,
and a seed for each batch that comes of the recipe's and of its first row. Where that cannot be (a
batch with a row that raises, memory that runs out) rows are explained alone or in smaller calls,
whose last digits may be others; the table has a note for each such row.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.optional import optional
from ..core.user_code import load_object
from ..errors import InputError, IntegrandError, IntegrandWarning, SmallerCallsWarning
from ..expressions.names import method as spelled_method
from ..expressions.names import metric as spelled_metric
from ..fields import Field
from ..fields.adopt import adopting
from ..images.models import ImageModel, as_image_model, load_model
from ..integration.attribution import Attribution, ExplainerLike
from ..model.doors import door_of
from ..model.network import parameter_dtype, weights_digest
from ..tables.results import per_example
from .data import EncodedText, source_of
from .explainers import ImageExplainer, NumberExplainer, RowExplainer, RowMaps, TextExplainer
from .identity import digest_of_folder
from .language import TextModel
from .recipe import Recipe, TextSection
from .reduce import Reduction
from .source import Source, digest_of
from .store import Array, ManifestEntry, ShardStore, versions

_NUMBERS = ("output", "base", "change", "residual", "gap", "error")
_COLUMNS = ("id", "row", "shard", "status", "reason", "note", "converged")
_ALONE = "explained alone: its batch failed"

Announce = Callable[[str, int], None]
"""Is told of each "batch", by its first row, and of each "row" that is explained alone."""


@dataclass(frozen=True)
class Doubts:
    """What is known of a shard that was lost, so that what ended its worker is found.

    announced  whether batches are announced before they are explained
    alone      batches, by their first row, that are explained row by row
    skip       rows that are left out, with the reason
    """

    announced: bool = False
    alone: frozenset[int] = frozenset()
    skip: Mapping[int, str] = field(default_factory=dict)

    def announcing(self) -> Doubts:
        """The same, with batches announced."""
        return replace(self, announced=True)

    def row_by_row(self, first: int) -> Doubts:
        """The same, with one more batch explained row by row."""
        return replace(self, alone=self.alone | {first})

    def without(self, row: int, reason: str) -> Doubts:
        """The same, without one more row."""
        return replace(self, skip={**self.skip, row: reason})


@dataclass
class ShardRows:
    """What is known of the rows of a shard, in order."""

    ids: list[str]
    status: list[str]
    reason: list[str | None]
    note: list[str | None]
    numbers: dict[str, NDArray[np.float64]]
    converged: list[bool | None]
    words: dict[str, list[list[str] | None]]
    gradients: int = 0

    @classmethod
    def blank(cls, ids: list[str], metrics: Sequence[str], words: Sequence[str] = ()) -> ShardRows:
        count = len(ids)
        return cls(
            ids,
            ["failed"] * count,
            [None] * count,
            [None] * count,
            {name: np.full(count, np.nan) for name in (*_NUMBERS, *metrics)},
            [None] * count,
            {name: [None] * count for name in words},
        )


class ShardWorker:
    """A recipe's model and data, read once, that computes shard after shard.

    Args:
        place: of the store: a folder, or the URL of an object store.
        base: where the recipe lies; relative paths begin there.

    Raises:
        IntegrandError: for a model, data or method that cannot be had.
    """

    def __init__(self, place: str | Path, base: Path, device: str = "cpu") -> None:
        self.store = ShardStore.open(place)
        self.recipe = self.store.recipe
        self.work = PreparedRecipe.of(self.recipe, base, device)

    def do(
        self, shard: int, doubts: Doubts = Doubts(), announce: Announce | None = None
    ) -> ManifestEntry:
        """Compute a shard and write its files. Returns its line, which is not written yet.

        Args:
            shard: its number.
            doubts: what is known of it, where it was lost before.
            announce: is told what is explained next, where there are doubts.
        """
        began = time.monotonic()
        numbers = list(self.store.rows_of(shard))
        rows, arrays = self.work.explained(numbers, doubts, announce)
        table = self.work.table(shard, numbers, rows)
        files = self.store.write(shard, arrays, table)
        return ManifestEntry(
            shard,
            self.store.fingerprint,
            self.work.digest(numbers),
            files,
            len(numbers),
            sum(status != "ok" for status in rows.status),
            sum(converged is False for converged in rows.converged),
            rows.gradients,
            round(time.monotonic() - began, 3),
            versions(),
        )


@dataclass
class PreparedRecipe:
    """A recipe made ready: data, what explains its rows, metrics, reduction.

    ``identity`` is a hash of the model and the references.
    """

    recipe: Recipe
    source: Source
    explainer: RowExplainer
    metrics: dict[str, Any]
    reduction: Reduction
    identity: str = ""
    arrays: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        dtype = str(self.reduction.kept_dtype).removeprefix("torch.")
        whole_numbers = dtype == "int8"
        self.arrays = {
            "values": Array(
                "values", self.reduction.kept_shape, dtype, 0 if whole_numbers else float("nan")
            )
        }
        if self.reduction.top_k is not None:
            self.arrays["indices"] = Array("indices", self.reduction.kept_shape, "int64", -1)
        if whole_numbers:
            self.arrays["scale"] = Array("scale", (), "float32", float("nan"))

    @classmethod
    def of(cls, recipe: Recipe, base: Path, device: str = "cpu") -> PreparedRecipe:
        """Read what a recipe names.

        Raises:
            IntegrandError: that says what cannot be had.
        """
        model = _model(recipe, base)
        source = source_of(recipe.data, base, model)
        section = recipe.method
        words = {} if section.references is None else {"references": _references(recipe, base)}
        bare = section.method.isidentifier()
        method = section.method if bare else spelled_method(section.method, words)
        metrics = {name: spelled_metric(text, words) for name, text in section.metrics.items()}
        reserved = [name for name in metrics if name in (*_NUMBERS, *_COLUMNS)]
        if reserved:
            raise InputError(f"method.metrics: {reserved[0]!r} is a column already: rename it.")
        explainer, dtype = _explainer(model, source, recipe, method, device)
        kept = torch.float64 if dtype == torch.float64 else torch.float32
        reduction = Reduction.of(recipe.store, source.shape, kept)
        identity = _identity(recipe, base, model, words)
        return cls(recipe, source, explainer, metrics, reduction, identity)

    def digest(self, numbers: Sequence[int]) -> str:
        """A hash of all that maps of rows are computed from: the rows, the model, references."""
        return digest_of([self.identity.encode(), self.source.digest_or_said(numbers).encode()])

    def table(self, shard: int, numbers: Sequence[int], rows: ShardRows) -> Any:
        """The rows of a shard as an Arrow table."""
        pa = optional("pyarrow", extra="run", needs="integrand.run")
        columns = {
            "id": _texts(rows.ids),
            "row": pa.array(list(numbers), pa.int64()),
            "shard": pa.array([shard] * len(numbers), pa.int64()),
            "status": _texts(rows.status),
            "reason": _texts(rows.reason),
            "note": _texts(rows.note),
            **{
                name: pa.array(column, pa.float64(), from_pandas=False)
                for name, column in rows.numbers.items()
            },
            "converged": pa.array(rows.converged, pa.bool_()),
            **{
                name: pa.array(column, pa.list_(pa.string())) for name, column in rows.words.items()
            },
        }
        return pa.table(columns)

    # --- rows -----------------------------------------------------------------------------------------------------

    def explained(
        self, numbers: Sequence[int], doubts: Doubts = Doubts(), announce: Announce | None = None
    ) -> tuple[ShardRows, dict[Array, NDArray[Any]]]:
        """The maps of rows and what is known of them; rows that fail are blank, with the reason."""
        rows = ShardRows.blank(self.source.ids(numbers), list(self.metrics), self.explainer.words)
        stored = {
            name: np.full((len(numbers), *array.shape), array.fill, array.dtype)
            for name, array in self.arrays.items()
        }
        for place, number in enumerate(numbers):
            rows.reason[place] = doubts.skip.get(number)
        if announce is None or not doubts.announced:
            announce = _nobody
        size = self.recipe.method.batch
        for start in range(0, len(numbers), size):
            batch = numbers[start : start + size]
            kept = [number for number in batch if number not in doubts.skip]
            alone = batch[0] in doubts.alone
            for part in [[number] for number in kept] if alone else [kept]:
                announce("row" if alone else "batch", (part or batch)[0])
                self._fill(part, numbers[0], rows, stored, announce)
            for place in [number - numbers[0] for number in kept if alone]:
                if rows.status[place] == "ok":
                    rows.note[place] = _joined(_ALONE, rows.note[place])
        return rows, {self.arrays[name]: content for name, content in stored.items()}

    def _fill(
        self,
        batch: list[int],
        first: int,
        rows: ShardRows,
        stored: dict[str, NDArray[Any]],
        announce: Announce,
    ) -> None:
        read = self.source.read_or_said(batch) if batch else None
        if read is None:
            return
        for number, reason in read.failed.items():
            rows.reason[number - first] = reason
        if read.x is None:
            return
        for part, kept in self._attributions(read.x, read.numbers, announce):
            places = [number - first for number in kept]
            if isinstance(part, str):
                rows.reason[places[0]] = part
                continue
            reduced = self.reduction(part.maps.values)
            for name, tensor in (
                ("values", reduced.values),
                ("scale", reduced.scale),
                ("indices", reduced.places),
            ):
                if tensor is not None:
                    stored[name][places] = tensor.cpu().numpy()
            columns = {**per_example(part.attribution), **part.scores}
            for name, texts in part.maps.words.items():
                for place, words in zip(places, texts, strict=True):
                    rows.words[name][place] = [_in_utf8(word) for word in words]
            for name, numbers in rows.numbers.items():
                numbers[places] = columns[name]
            for place, converged in zip(places, part.attribution.converged.tolist(), strict=True):
                rows.status[place] = "ok"
                rows.converged[place] = converged
                rows.note[place] = part.note
            rows.gradients += part.attribution.cost.gradients

    def _attributions(
        self, x: Any, numbers: list[int], announce: Announce
    ) -> Iterator[tuple[ExplainedRows | str, list[int]]]:
        """Explain a batch; where that fails each row alone, and say why for those that still do.

        What memory has no room for is a failure as well: a row alone takes less of it.
        """
        try:
            yield self._explain(x, numbers), numbers
            return
        except Exception as error:  # the user's model raises what it likes
            if len(numbers) == 1:
                yield _reason(error), numbers
                return
        for k, number in enumerate(numbers):
            announce("row", number)
            row = self.source.some(x, k, k + 1)
            for part, kept in self._attributions(row, [number], announce):
                if not isinstance(part, str):
                    part = replace(part, note=_joined(_ALONE, part.note))
                yield part, kept

    def _explain(self, x: Any, numbers: list[int]) -> ExplainedRows:
        seed = _seed(self.recipe.method.seed, numbers[0])
        with warnings.catch_warnings(record=True) as caught:
            # What they warn of is in the table: gap, error, converged, note.
            warnings.simplefilter("ignore", IntegrandWarning)
            warnings.simplefilter("always", SmallerCallsWarning)
            maps = self.explainer(x, seed)
            scores = {
                name: self.explainer.score(x, maps.attribution, metric)
                .detach()
                .cpu()
                .double()
                .numpy()
                for name, metric in self.metrics.items()
            }
        smaller = [str(w.message) for w in caught if issubclass(w.category, SmallerCallsWarning)]
        return ExplainedRows(maps, scores, smaller[-1] if smaller else None)


@dataclass(frozen=True)
class ExplainedRows:
    """Rows that were explained together: their maps, the metrics of these, and what is to be noted."""

    maps: RowMaps
    scores: dict[str, NDArray[Any]]
    note: str | None = None

    @property
    def attribution(self) -> Attribution:
        return self.maps.attribution


def _explainer(
    model: Any, source: Source, recipe: Recipe, method: str | ExplainerLike, device: str
) -> tuple[RowExplainer, torch.dtype]:
    """What explains the rows, and the type of its numbers: that of the model's weights."""
    if not isinstance(model, TextModel) and recipe.text != TextSection():
        raise InputError(
            "[text] says how models of Hugging Face are explained, and this is none: leave it out."
        )
    if isinstance(model, TextModel):
        dtype = parameter_dtype(model.language.module) or source.dtype
        return TextExplainer(model, recipe, method, device), dtype
    module = model.module if isinstance(model, ImageModel | EncodedText) else model
    dtype = parameter_dtype(module) or source.dtype if callable(module) else torch.float64
    if isinstance(module, torch.nn.Module) and device != "cpu":
        module.to(device)
    if isinstance(model, ImageModel):
        return ImageExplainer(model, recipe, method, dtype, device), dtype
    # A field and a model of another library have calls of their own.
    sized = not isinstance(module, Field) and door_of(module) is None
    sized = sized and adopting(module) is None
    return NumberExplainer(module, recipe, method, dtype, device, sized=sized), dtype


def _joined(note: str, more: str | None) -> str:
    return note if more is None else f"{note}; {more}"


def _nobody(kind: str, row: int) -> None:
    """Nobody is told."""


def _texts(texts: Sequence[str | None]) -> Any:
    """A column of texts; what is in no character set (names of files, say) is written out."""
    pa = optional("pyarrow", extra="run", needs="integrand.run")
    return pa.array([text if text is None else _in_utf8(text) for text in texts], pa.string())


def _in_utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _seed(seed: int, first: int) -> int:
    """A seed for the batch that begins at a row."""
    digest = hashlib.blake2b(f"{seed}:{first}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, IntegrandError) else f"{type(error).__name__}: {text}"


def _model(recipe: Recipe, base: Path) -> Any:
    section = recipe.model
    if section.folder is not None:
        return TextModel(Path(base, section.folder))
    if section.name is not None:
        return load_model(section.name)
    assert section.import_ is not None
    ready = (ImageModel, EncodedText, TextModel, Field)
    model = load_object(section.import_, base, ready=ready)
    return as_image_model(model, section.import_) if recipe.data.kind == "images" else model


def _identity(recipe: Recipe, base: Path, model: Any, words: Mapping[str, Tensor]) -> str:
    """A hash of what the recipe names, and that may have changed since."""
    parts = [words[name].numpy().tobytes() for name in words]
    if recipe.model.folder is not None:
        parts.append(digest_of_folder(Path(base, recipe.model.folder)).encode())
    elif isinstance(model, TextModel):
        parts.append(weights_digest(model.language.module).encode())
    else:
        module = model.module if isinstance(model, ImageModel | EncodedText) else model
        if isinstance(module, torch.nn.Module):
            parts.append(weights_digest(module).encode())
    return digest_of(parts)


def _references(recipe: Recipe, base: Path) -> Tensor:
    path = Path(base, recipe.method.references or "")
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"The references {str(path)!r} cannot be read: {error}.") from None
