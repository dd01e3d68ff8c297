"""The summary of a folder: a row for each map, and for each picture that has none, in three formats.

    summary.parquet     for polars, DuckDB, pandas; numbers are numbers
    summary.csv         for spreadsheets; texts that one would take for formulas are marked as text
    summary.json        a list of objects; what is no finite number is null

Columns are the same in all of them, and are told one by one in docs/usage/folders.md.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..core.files import whole, write_text
from ..core.formatting import json_ready, plain_cell, printable
from ..core.optional import optional
from .records import MapRecord, PictureRecord

NAMES = ("summary.parquet", "summary.csv", "summary.json")

COLUMNS: dict[str, str] = {
    "file": "string",
    "hash": "string",
    "status": "string",
    "reason": "string",
    "method": "string",
    "class": "string",
    "class_index": "int64",
    "probability": "double",
    "predicted": "string",
    "predicted_index": "int64",
    "output": "double",
    "base": "double",
    "change": "double",
    "residual": "double",
    "gap": "double",
    "error": "double",
    "converged": "bool",
    "incomplete": "bool",
    "claims_completeness": "bool",
    "gradients": "int64",
    "values": "int64",
    "seconds": "double",
    "seed": "int64",
    "page": "string",
    "map": "string",
    "attribution": "string",
    "settings": "string",
    "versions": "string",
}
"""Name → Arrow type."""

_OF_MAP = ("output", "base", "change", "residual", "gap", "error", "converged", "incomplete")
_OF_WORK = ("gradients", "values", "seconds")


def rows(records: Iterable[PictureRecord]) -> list[dict[str, Any]]:
    """A row for each map, for each method without one, and for each picture without any."""
    return [row for record in records for row in _rows(record)]


def _rows(record: PictureRecord) -> Iterable[dict[str, Any]]:
    common = dict.fromkeys(COLUMNS) | _of_picture(record)
    for map_record in record.maps:
        yield common | {"status": "ok", "method": map_record.method} | _of_map(record, map_record)
    for status, reasons in (("failed", record.failed), ("left out", record.left_out)):
        for method, reason in reasons.items():
            yield common | {"status": status, "method": method or None, "reason": reason}


def _of_picture(record: PictureRecord) -> dict[str, Any]:
    guess = record.predictions[0] if record.predictions else (None, None, None)
    explained = record.target is not None
    page = f"{record.stem}.html"
    return {
        "file": record.file,
        "hash": record.digest or None,
        "class": record.label if explained else None,
        "class_index": record.target,
        "probability": record.probability if explained else None,
        "predicted": guess[0],
        "predicted_index": guess[2],
        "seed": record.seed,
        "page": page if page in record.files else None,
        "settings": record.settings,
        "versions": record.versions,
    }


def _of_map(record: PictureRecord, map_record: MapRecord) -> dict[str, Any]:
    content = asdict(map_record)
    files = {
        "map": f"{record.stem}-{map_record.method}.png",
        "attribution": f"{record.stem}-{map_record.method}.safetensors",
    }
    return {
        **{name: content[name] for name in (*_OF_MAP, *_OF_WORK)},
        "claims_completeness": map_record.claimed,
        **{column: name if name in record.files else None for column, name in files.items()},
    }


def write(folder: Path, table: list[dict[str, Any]]) -> None:
    """Write the three files, each whole or not at all.

    Raises:
        OSError: where the disk refuses.
    """
    table = [{name: _clean(value) for name, value in row.items()} for row in table]
    _write_parquet(folder / NAMES[0], table)
    with (
        whole(folder / NAMES[1]) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        lines.writerows([_cell(row[name]) for name in COLUMNS] for row in table)
    text = json.dumps([json_ready(row) for row in table], indent=1, ensure_ascii=False)
    write_text(folder / NAMES[2], text + "\n")


def _write_parquet(file: Path, table: list[dict[str, Any]]) -> None:
    pa = optional("pyarrow", extra="save", needs="A summary")
    parquet = optional("pyarrow.parquet", extra="save", needs="A summary")
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])
    with whole(file) as partial:
        parquet.write_table(pa.Table.from_pylist(table, schema=schema), partial)


def _clean(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return plain_cell(value) if isinstance(value, str) else value


def counts(records: Iterable[PictureRecord]) -> Mapping[str, int]:
    """How many pictures and maps there are, and how many of each kind of fault."""
    listed = list(records)
    maps = [map_record for record in listed for map_record in record.maps]
    return {
        "pictures": len(listed),
        "maps": len(maps),
        "incomplete": sum(map_record.incomplete for map_record in maps),
        "not converged": sum(map_record.unsettled for map_record in maps),
        "failed": sum(bool(record.failed) for record in listed),
        "gradients": sum(map_record.gradients for map_record in maps),
    }
