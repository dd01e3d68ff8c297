"""Recipes: what a run computes, as TOML, validated before anything runs.

    [model]   import = "my.py:load"        a function, or model = "efficientnet-lite0"
    [data]    kind = "npy", path = "inputs.npy"
    [method]  method = "integrated(baseline=0.0, rule=GaussLegendre(8))", target = "predicted", seed = 0
    [store]   rows_per_shard = 64

The canonical JSON of all that changes a number is the recipe's fingerprint: results of two
fingerprints never lie in one folder.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from ..core.optional import optional
from ..errors import InputError
from ..text.models import named_folder

optional("pydantic", extra="run", needs="integrand.run")
from pydantic import BaseModel, ConfigDict, Field, ValidationError  # noqa: E402


class _Section(BaseModel):
    """A part of a recipe: frozen, and without entries that nobody reads."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ModelSection(_Section):
    """Where the model comes from: ``import`` names a function of the user's, ``name`` a model that
    is built in, or "hf:FOLDER", the local folder of a model of Hugging Face."""

    import_: Annotated[str | None, Field(alias="import")] = None
    name: str | None = None

    def model_post_init(self, context: object) -> None:
        if (self.import_ is None) == (self.name is None):
            raise ValueError('give import = "file.py:function", or name = "efficientnet-lite0"')

    @property
    def folder(self) -> str | None:
        """The folder of a model of Hugging Face, as the recipe names it."""
        return None if self.name is None else named_folder(self.name)


class DataSection(_Section):
    """The inputs.

    kind      npy, zarr, csv, parquet (or Arrow), huggingface (what save_to_disk wrote), images (a
              folder), text (lines of a file)
    columns   of a table, in the order the model takes them; all that are numbers unless given
    id        a column that names rows; their numbers unless given
    door      "tables" for models that read frames, words included: pipelines of scikit-learn
    continuation  a column of words that follow each text, whose log-probability is explained
    max_pixels, max_characters, max_tokens   of a picture and of a text; larger ones are failed
              rows. Maps of texts have max_tokens numbers, zeros behind the last token
    """

    kind: Literal["npy", "zarr", "csv", "parquet", "huggingface", "images", "text"]
    path: str
    columns: Annotated[tuple[str, ...] | None, Field(min_length=1)] = None
    id: str | None = None
    door: Literal["tables"] | None = None
    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    max_characters: Annotated[int, Field(ge=1)] = 1_000_000
    max_tokens: Annotated[int, Field(ge=1)] = 512
    continuation: str | None = None

    def model_post_init(self, context: object) -> None:
        if self.door == "tables" and self.kind not in ("csv", "parquet", "huggingface"):
            raise ValueError(f'door = "tables" is for tables, not for kind = "{self.kind}"')


class MethodSection(_Section):
    """How each row is explained: what ``ig.explain`` takes.

    method      as it prints, or a published name
    target      "predicted", a class, or a target as it prints; None for a model's only output
    references  an .npy file of references (R, …), which the method may call ``references``
    batch       rows explained together; part of what decides the last bits of a map
    """

    method: str = "integrated"
    target: str | int | None = None
    tol: Annotated[float | None, Field(gt=0)] = None
    seed: Annotated[int, Field(ge=0)] = 0
    references: str | None = None
    batch: Annotated[int, Field(ge=1)] = 32
    metrics: dict[str, str] = Field(default_factory=dict)


class TextSection(_Section):
    """How texts are explained, where the model is one of Hugging Face; see ``ig.text.explain``.

    baseline     "mean", "zero", "pad", "mask" or "unk"; several are averaged, or weighed
    keep         which tokens stay where they are
    granularity  what the numbers of a map are of
    """

    baseline: str | tuple[str, ...] = "mean"
    keep: str | None = "special+template"
    granularity: Literal["token", "word", "sentence"] = "token"


class StoreSection(_Section):
    """What is kept of each map.

    channels   "sum" adds up the axis of channels
    pool       maps of pictures in n × n blocks, each the sum of its pixels
    top_k      of each map, the k numbers of the largest size and where they stood
    dtype      float16 halves; int8 keeps a scale for each map
    """

    rows_per_shard: Annotated[int, Field(ge=1)] = 256
    channels: Literal["keep", "sum"] = "keep"
    pool: Annotated[int | None, Field(ge=1)] = None
    top_k: Annotated[int | None, Field(ge=1)] = None
    dtype: Literal["float64", "float32", "float16", "int8"] | None = None


class Recipe(_Section):
    """What a run computes.

    Example:
        >>> from integrand.run import Recipe
        >>> recipe = Recipe.parsed('''
        ... [model]
        ... import = "my.py:load"
        ... [data]
        ... kind = "npy"
        ... path = "inputs.npy"
        ... ''')
        >>> recipe.store.rows_per_shard, len(recipe.fingerprint)
        (256, 32)
    """

    model: ModelSection
    data: DataSection
    method: MethodSection = MethodSection()
    text: TextSection = TextSection()
    store: StoreSection = StoreSection()

    @classmethod
    def parsed(cls, text: str, name: str = "recipe") -> Recipe:
        """A recipe from TOML.

        Raises:
            InputError: that says what is wrong, and where.
        """
        return cls.of(_toml(text, name), name)

    @classmethod
    def of(cls, document: object, name: str = "recipe") -> Recipe:
        """A recipe from nested dicts, as TOML and JSON give them."""
        try:
            recipe: Recipe = cls.model_validate(document)
        except ValidationError as error:
            raise InputError(f"{name}: {_sentence(error)}") from None
        return recipe

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """A recipe from a file.

        Raises:
            InputError: for a file that is not there or is no recipe.
        """
        return cls.of(cls.document_of(path), str(path))

    @staticmethod
    def document_of(path: str | Path) -> dict[str, Any]:
        """What the file of a recipe says, not validated.

        Raises:
            InputError: for a file that is not there or is no TOML.
        """
        try:
            text = Path(path).read_bytes().decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{str(path)!r} is no text in UTF-8: {error}.") from None
        except (OSError, ValueError) as error:  # no such file, a folder, a name that none can have
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"There is no recipe {str(path)!r}: {reason}.") from None
        return _toml(text, str(path))

    @property
    def canonical(self) -> str:
        """The recipe as JSON that two recipes share only where they compute the same."""
        return json.dumps(self.document(), sort_keys=True, separators=(",", ":"))

    def document(self) -> dict[str, Any]:
        """The recipe as nested dicts."""
        document: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return document

    @property
    def fingerprint(self) -> str:
        """A hash of the canonical JSON."""
        return hashlib.blake2b(self.canonical.encode(), digest_size=16).hexdigest()


def _toml(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{name} is no TOML: {error}.") from None


def differences(first: Recipe, second: Recipe) -> list[str]:
    """Entries by which two recipes differ, such as ``method.seed``."""
    ours, theirs = first.document(), second.document()
    return sorted(
        f"{section}.{entry}"
        for section in ours
        for entry in ours[section]
        if ours[section][entry] != theirs[section][entry]
    )


def _sentence(error: Any) -> str:
    """What pydantic found, on one line: the first three entries and what is wrong with each."""
    faults = error.errors(include_url=False)
    sentences = []
    for entry in faults[:3]:
        place = ".".join(str(part).removesuffix("_") for part in entry["loc"]) or "recipe"
        if entry["type"] == "extra_forbidden":
            sentences.append(f"{place} is no entry of a recipe")
        elif entry["type"] == "missing":
            sentences.append(f"{place} is missing")
        else:
            sentences.append(f"{place}: {entry['msg'].removeprefix('Value error, ')}")
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return "; ".join(sentences) + more + "."
