"""Texts that a model of Hugging Face reads: each row is what ``ig.text.explain`` says of it alone."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

pytest.importorskip("transformers")

import integrand as ig
from integrand.errors import InputError
from integrand.run import Local
from tests.run.here import Here
from tests.text.tiny import byte_tokenizer, tiny

TEXTS = ["The capital of France is", "Rome is old.", "", "What is this? " * 40, "=cmd Paris is big!", "Rome"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("language")
    model = tiny("llama", dtype=torch.float32, scale=2.0)
    model.save_pretrained(place / "model")
    byte_tokenizer().save_pretrained(place / "model")
    (place / "lines.txt").write_text("\n".join(TEXTS))
    return place


def document(**sections: dict[str, Any]) -> dict[str, Any]:
    recipe: dict[str, dict[str, Any]] = {
        "model": {"name": "hf:model"},
        "data": {"kind": "text", "path": "lines.txt", "max_tokens": 48},
        "method": {
            "method": "integrated(rule=GaussLegendre(4))",
            "target": " Paris",
            "seed": 0,
            "batch": 4,
        },
        "store": {"rows_per_shard": 4},
    }
    for name, entries in sections.items():
        recipe[name] = {**recipe.get(name, {}), **entries}
    return recipe


def alone(folder: Path, text: str, target: Any, **options: Any) -> ig.text.TextAttribution:
    method = ig.methods.integrated(0.0, ig.rules.GaussLegendre(4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ig.errors.IncompleteWarning)
        return ig.text.explain(
            folder / "model", None, text, target=target, method=method, **options
        )


def test_each_line_is_what_it_is_alone(folder: Path, tmp_path: Path) -> None:
    results = ig.run.run(document(), tmp_path / "out", base=folder, engine=Here())
    rows = results.table.to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "failed", "ok", "ok"]
    assert rows[2]["reason"] == "The text is empty."
    assert {row["note"] for row in rows} == {None}
    assert "tokens, more than data.max_tokens = 48" in rows[3]["reason"]
    assert rows[3]["tokens"] is None
    for number in (0, 1, 4, 5):
        single = alone(folder, TEXTS[number], " Paris")
        assert rows[number]["tokens"] == single.tokens[0]
        length = len(single.tokens[0])
        np.testing.assert_allclose(
            results.values[number][:length], single.scores[0].numpy(), rtol=1e-3, atol=1e-5
        )
        assert not results.values[number][length:].any()
        assert rows[number]["output"] == pytest.approx(float(single.attribution.output[0]), abs=1e-4)  # fmt: skip
        total = results.values[number].sum() + rows[number]["residual"]
        assert total == pytest.approx(rows[number]["change"], abs=1e-4)
    assert np.isnan(results.values[3]).all()

    results.to_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as opened:
        cells = [row["tokens"] for row in csv.DictReader(opened)]
    assert json.loads(cells[0]) == rows[0]["tokens"]
    assert cells[3] == ""


def test_the_words_that_follow_each_text(folder: Path, tmp_path: Path) -> None:
    prompts, answers = ["The capital of Italy is", "Rome is", "Paris"], [" Rome.", " old.", None]
    table = pa.table({"prompt": prompts, "answer": answers, "who": ["a", "b", "c"]})
    pa.parquet.write_table(table, folder / "asked.parquet")
    data = {
        "kind": "parquet", "path": "asked.parquet", "columns": ["prompt"], "continuation": "answer",
        "id": "who", "max_tokens": 16,
    }  # fmt: skip
    recipe = document(data=data, text={"granularity": "word", "baseline": ["zero", "mean"]})
    del recipe["method"]["target"]
    results = ig.run.run(recipe, tmp_path / "out", base=folder, engine=Here())
    rows = results.table.to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "failed"]
    assert "the cell is empty" in rows[2]["reason"]
    for number in (0, 1):
        single = alone(
            folder, prompts[number], answers[number], baseline=["zero", "mean"], granularity="word"
        )
        assert rows[number]["tokens"] == single.tokens[0]
        length = len(single.tokens[0])
        np.testing.assert_allclose(
            results.values[number][:length], single.scores[0].numpy(), rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": {"name": "hf:nowhere"}}, "There is no folder"),
        ({"method": {"metrics": {"d": "deletion()"}}}, "not of texts"),
        ({"text": {"granularity": "page"}}, "text.granularity"),
        ({"text": {"baselin": "mean"}}, "text.baselin"),
        ({"data": {"continuation": "answer"}}, "no columns"),
        ({"store": {"pool": 2}}, "does not divide"),
    ],
)
def test_what_does_not_fit_is_said_before_a_folder_is_made(
    folder: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        ig.run.run(document(**change), tmp_path / "out", base=folder, engine=Here())
    assert not (tmp_path / "out").exists()


def test_two_answers_to_what_is_explained(folder: Path, tmp_path: Path) -> None:
    table = pa.table({"prompt": ["Rome is"], "answer": [" old."]})
    pa.parquet.write_table(table, folder / "one.parquet")
    data = {"kind": "parquet", "path": "one.parquet", "columns": ["prompt"], "continuation": "answer"}  # fmt: skip
    with pytest.raises(InputError, match=r"and so does method\.target"):
        ig.run.run(document(data=data), tmp_path / "out", base=folder, engine=Here())


def test_targets_as_they_print(folder: Path, tmp_path: Path) -> None:
    target = ig.text.NextToken(" Paris", against=" Rome")
    recipe = document(method={"target": repr(target)}, data={"max_tokens": 24})
    (folder / "lines.txt").write_text("\n".join(TEXTS))
    results = ig.run.run(recipe, tmp_path / "out", base=folder, engine=Local(1))
    single = alone(folder, TEXTS[0], target)
    assert results.table["output"][0].as_py() == pytest.approx(float(single.attribution.output[0]), abs=1e-4)  # fmt: skip
