"""One shard: rows in, maps and a table of rows out. Nothing else decides what comes out.

The same shard of the same recipe has the same bytes wherever and whenever it is computed: rows are
explained in batches of a fixed size and order, model calls have a fixed number of rows, one thread,
and a seed for each batch that comes of the recipe's and of its first row.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.optional import optional
from ..core.user_code import load_object
from ..errors import InputError, IntegrandError, IntegrandWarning
from ..explain import explain
from ..expressions.names import method as spelled_method
from ..expressions.names import metric as spelled_metric
from ..expressions.names import target as spelled_target
from ..fields import Field
from ..images.models import ImageModel, as_image_model, load_model
from ..integration.attribution import Attribution
from ..metrics import judge
from ..model.network import parameter_dtype
from ..tables.results import per_example
from .data import Source, source_of
from .recipe import Recipe
from .reduce import Reduction
from .store import Array, ManifestEntry, ShardStore, versions

_NUMBERS = ("output", "base", "change", "residual", "gap", "error")


@dataclass
class ShardRows:
    """What is known of the rows of a shard, in order."""

    ids: list[str]
    status: list[str]
    reason: list[str | None]
    numbers: dict[str, NDArray[np.float64]]
    converged: list[bool | None]
    gradients: int = 0

    @classmethod
    def blank(cls, ids: list[str], metrics: Sequence[str]) -> ShardRows:
        count = len(ids)
        return cls(
            ids,
            ["failed"] * count,
            [None] * count,
            {name: np.full(count, np.nan) for name in (*_NUMBERS, *metrics)},
            [None] * count,
        )


class ShardWorker:
    """A recipe's model and data, read once, that computes shard after shard.

    Args:
        folder: of the store.
        base: where the recipe lies; relative paths begin there.

    Raises:
        IntegrandError: for a model, data or method that cannot be had.
    """

    def __init__(self, folder: Path, base: Path, device: str = "cpu") -> None:
        self.store = ShardStore.open(folder)
        self.recipe = self.store.recipe
        self.work = PreparedRecipe.of(self.recipe, base, device)

    def do(
        self,
        shard: int,
        skip: dict[int, str] | None = None,
        announce: Callable[[int], None] | None = None,
    ) -> ManifestEntry:
        """Compute a shard and write its files. Returns its line, which is not written yet.

        Args:
            skip: rows not to touch, with the reason.
            announce: is told of each row before it is explained, which then is alone.
        """
        began = time.monotonic()
        numbers = list(self.store.rows_of(shard))
        rows, arrays = self.work.explained(numbers, skip or {}, announce)
        table = self.work.table(shard, numbers, rows)
        files = self.store.write(shard, arrays, table)
        return ManifestEntry(
            shard,
            self.store.fingerprint,
            self.work.source.digest(numbers),
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
    """A recipe made ready: model, data, method, target, metrics, reduction.

    dtype   rows are explained in it: the type of the model's weights
    """

    recipe: Recipe
    model: Any
    source: Source
    method: Any
    target: Any
    metrics: dict[str, Any]
    reduction: Reduction
    dtype: torch.dtype
    device: str = "cpu"
    arrays: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        dtype = str(self.reduction.kept_dtype).removeprefix("torch.")
        whole_numbers = dtype == "int8"
        self.arrays = {
            "values": Array(
                "values", self.reduction.kept_shape, dtype, 0 if whole_numbers else float("nan")
            )
        }
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
        target: Any = section.target
        if isinstance(target, str) and target != "predicted":
            target = spelled_target(target)
        metrics = {name: spelled_metric(text, words) for name, text in section.metrics.items()}
        reserved = [name for name in metrics if name in (*_NUMBERS, "id", "row", "shard", "status")]
        if reserved:
            raise InputError(f"method.metrics: {reserved[0]!r} is a column already: rename it.")
        module = model.module if isinstance(model, ImageModel) else model
        dtype = parameter_dtype(module) or source.dtype if callable(module) else torch.float64
        kept = torch.float64 if dtype == torch.float64 else torch.float32
        reduction = Reduction.of(recipe.store, source.shape, kept)
        return cls(recipe, model, source, method, target, metrics, reduction, dtype, device)

    def table(self, shard: int, numbers: Sequence[int], rows: ShardRows) -> Any:
        """The rows of a shard as an Arrow table."""
        pa = optional("pyarrow", extra="run", needs="integrand.run")
        columns = {
            "id": pa.array(rows.ids, pa.string()),
            "row": pa.array(list(numbers), pa.int64()),
            "shard": pa.array([shard] * len(numbers), pa.int64()),
            "status": pa.array(rows.status, pa.string()),
            "reason": pa.array(rows.reason, pa.string()),
            **{
                name: pa.array(column, pa.float64(), from_pandas=False)
                for name, column in rows.numbers.items()
            },
            "converged": pa.array(rows.converged, pa.bool_()),
        }
        return pa.table(columns)

    # --- rows -----------------------------------------------------------------------------------------------------

    def explained(
        self,
        numbers: Sequence[int],
        skip: dict[int, str],
        announce: Callable[[int], None] | None = None,
    ) -> tuple[ShardRows, dict[Array, NDArray[Any]]]:
        """The maps of rows and what is known of them; rows that fail are blank, with the reason."""
        rows = ShardRows.blank(self.source.ids(numbers), list(self.metrics))
        stored = {
            name: np.full((len(numbers), *array.shape), array.fill, array.dtype)
            for name, array in self.arrays.items()
        }
        for place, number in enumerate(numbers):
            rows.reason[place] = skip.get(number)
        size = 1 if announce else self.recipe.method.batch
        for start in range(0, len(numbers), size):
            batch = [n for n in numbers[start : start + size] if n not in skip]
            if announce and batch:
                announce(batch[0])
            self._fill(batch, numbers[0], rows, stored)
        return rows, {self.arrays[name]: content for name, content in stored.items()}

    def _fill(
        self, batch: list[int], first: int, rows: ShardRows, stored: dict[str, NDArray[Any]]
    ) -> None:
        read = self.source.read(batch) if batch else None
        if read is None:
            return
        for number, reason in read.failed.items():
            rows.reason[number - first] = reason
        if read.x is None:
            return
        for part, kept in self._attributions(read.x, read.numbers):
            places = [number - first for number in kept]
            if isinstance(part, str):
                rows.reason[places[0]] = part
                continue
            attribution, scores = part
            reduced = self.reduction(_plain(attribution.values))
            stored["values"][places] = reduced.values.cpu().numpy()
            if reduced.scale is not None:
                stored["scale"][places] = reduced.scale.cpu().numpy()
            columns = {**per_example(attribution), **scores}
            for name, numbers in rows.numbers.items():
                numbers[places] = columns[name]
            for k, place in enumerate(places):
                rows.status[place] = "ok"
                rows.converged[place] = bool(attribution.converged[k])
            rows.gradients += attribution.cost.gradients

    def _attributions(
        self, x: Tensor, numbers: list[int]
    ) -> Iterator[tuple[tuple[Attribution, dict[str, NDArray[Any]]] | str, list[int]]]:
        """Explain a batch; where that fails each row alone, and say why for those that still do."""
        try:
            yield self._explain(x, numbers), numbers
            return
        except MemoryError:
            raise
        except Exception as error:  # the user's model raises what it likes
            if len(numbers) == 1:
                yield _reason(error), numbers
                return
        for k, number in enumerate(numbers):
            yield from self._attributions(x[k : k + 1], [number])

    def _explain(
        self, x: Tensor, numbers: list[int]
    ) -> tuple[Attribution, dict[str, NDArray[Any]]]:
        section = self.recipe.method
        x = x.to(self.device, self.dtype)
        with warnings.catch_warnings():
            # What they warn of is in the table: gap, error, converged.
            warnings.simplefilter("ignore", IntegrandWarning)
            module = self.model.module if isinstance(self.model, ImageModel) else self.model
            options: dict[str, Any] = {} if section.tol is None else {"tol": section.tol}
            if isinstance(self.model, ImageModel):
                options["normalisation"] = self.model.normalisation
            attribution = explain(
                module,
                x,
                target=self.target,
                method=self.method,
                seed=_seed(section.seed, numbers[0]),
                batch_size=section.batch,
                **options,
            )
            scores = {
                name: judge(module, x, attribution, metric, target=self.target)
                .detach()
                .cpu()
                .double()
                .numpy()
                for name, metric in self.metrics.items()
            }
        return attribution, scores


def _seed(seed: int, first: int) -> int:
    """A seed for the batch that begins at a row."""
    digest = hashlib.blake2b(f"{seed}:{first}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def _plain(values: Any) -> Tensor:
    if not isinstance(values, Tensor):
        raise InputError("A run stores maps of one input tensor; these are of several.")
    return values.detach()


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, IntegrandError) else f"{type(error).__name__}: {text}"


def _model(recipe: Recipe, base: Path) -> Any:
    section = recipe.model
    if section.name is not None:
        return load_model(section.name)
    assert section.import_ is not None
    model = load_object(section.import_, base, ready=(ImageModel, Field))
    return as_image_model(model, section.import_) if recipe.data.kind == "images" else model


def _references(recipe: Recipe, base: Path) -> Tensor:
    path = Path(base, recipe.method.references or "")
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"The references {str(path)!r} cannot be read: {error}.") from None
