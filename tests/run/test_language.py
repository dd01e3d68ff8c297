"""Texts that a model of Hugging Face reads: each row is what ``ig.text.explain`` says of it alone."""

from __future__ import annotations

import csv
import json
import shutil
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
    _models_that_do_not_fit(place)
    np.save(place / "rows.npy", np.zeros((2, 3), np.float32))
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
        ({"text": {"baseline": ["mean", "nope"]}}, "text.baseline is one of"),
        ({"text": {"keep": "special+nope"}}, "text.keep is one of"),
        ({"method": {"method": "conductance"}}, "explains a layer"),
        ({"data": {"kind": "npy", "path": "rows.npy"}}, "reads texts, not numbers"),
        (
            {"data": {"kind": "parquet", "path": "lists.parquet", "columns": ["pieces"]}},
            "'pieces' holds list",
        ),
        ({"model": {"name": "hf:other"}}, "The tokenizer is that of another model"),
        ({"model": {"name": "hf:cut"}}, "holds no model that can be read"),
        ({"model": {"name": "hf:classes"}}, "There is no class named ' Paris'"),
    ],
)
def test_what_does_not_fit_is_said_before_a_folder_is_made(
    folder: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises((InputError, ig.errors.UnknownName), match=words):
        ig.run.run(document(**change), tmp_path / "out", base=folder, engine=Here())
    assert not (tmp_path / "out").exists()


def _models_that_do_not_fit(place: Path) -> None:
    """A tokenizer with more tokens than the model has vectors, weights that are cut off, classes;
    and columns of lists."""
    import transformers

    small = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    transformers.LlamaForCausalLM(small).save_pretrained(place / "other")
    byte_tokenizer().save_pretrained(place / "other")
    shutil.copytree(place / "model", place / "cut")
    weights = place / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    tiny("gpt2-classes", dtype=torch.float32).save_pretrained(place / "classes")
    byte_tokenizer().save_pretrained(place / "classes")
    pa.parquet.write_table(pa.table({"pieces": [["a"], ["b"]]}), place / "lists.parquet")


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("text", {"baseline": "pad"}, r"\[text\] says how models of Hugging Face"),
        ("data", {"continuation": "answer"}, "is for models of Hugging Face"),
    ],
)
def test_what_is_said_of_texts_is_for_models_of_texts(
    tmp_path: Path, section: str, change: dict[str, Any], words: str
) -> None:
    (tmp_path / "my.py").write_text("import torch\ndef load():\n    return torch.nn.Linear(2, 1)\n")
    pa.parquet.write_table(pa.table({"a": [1.0], "b": [2.0], "answer": ["x"]}), tmp_path / "t.parquet")  # fmt: skip
    recipe: dict[str, dict[str, Any]] = {
        "model": {"import": "my.py:load"},
        "data": {"kind": "parquet", "path": "t.parquet", "columns": ["a", "b"]},
        "method": {"target": 0},
    }
    recipe[section] = {**recipe.get(section, {}), **change}
    with pytest.raises(InputError, match=words):
        ig.run.run(recipe, tmp_path / "out", base=tmp_path, engine=Here())


def test_bytes_are_read_as_texts_and_empty_words_follow_nothing(
    folder: Path, tmp_path: Path
) -> None:
    """And a row that fails as it is read leaves its batch together."""
    prompts = [b"The capital of Italy is", b"\xff\xfe", b"Rome is", b"Paris"]
    table = pa.table({"prompt": prompts, "answer": [" Rome.", " a", "", None]})
    pa.parquet.write_table(table, folder / "bytes.parquet")
    data = {"kind": "parquet", "path": "bytes.parquet", "columns": ["prompt"], "continuation": "answer"}  # fmt: skip
    recipe = document(data=data)
    del recipe["method"]["target"]
    rows = ig.run.run(recipe, tmp_path / "out", base=folder, engine=Here()).table.to_pylist()
    assert [row["status"] for row in rows] == ["ok", "failed", "failed", "failed"]
    assert rows[0]["note"] is None
    assert rows[0]["tokens"] == alone(folder, prompts[0].decode(), " Rome.").tokens[0]
    assert "not in UTF-8" in rows[1]["reason"]
    assert rows[2]["reason"] == "The words that follow the text (answer) are empty."


def test_texts_longer_than_the_model_reads_leave_their_batch_together(tmp_path: Path) -> None:
    tiny("gpt2", dtype=torch.float32).save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "lines.txt").write_text("Rome is old.\n" + "What is this? " * 20 + "\nParis\n")
    recipe = document(data={"max_tokens": 512})
    rows = ig.run.run(recipe, tmp_path / "out", base=tmp_path, engine=Here()).table.to_pylist()
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert "reads 64 at most" in rows[1]["reason"]
    assert {row["note"] for row in rows} == {None}


def test_another_model_under_the_same_name(folder: Path, tmp_path: Path) -> None:
    """Rows of two models never stand in one folder: what the first computed is computed again."""
    shutil.copytree(folder / "model", tmp_path / "model")
    (tmp_path / "lines.txt").write_text(
        "\n".join([*TEXTS[:2], "Rome", "Paris is", "Rome is", "old"])
    )
    first = ig.run.run(document(), tmp_path / "out", base=tmp_path, engine=Here())
    before = first.values[:]
    counted: list[int] = []
    ig.run.run(document(), tmp_path / "out", base=tmp_path, engine=Here(), watch=lambda status, _: counted.append(status.done))  # fmt: skip
    assert counted == [2]  # nothing twice
    for file in (tmp_path / "out" / "rows").glob("*1.parquet"):
        file.unlink()  # what was lost meanwhile
    tiny("llama", dtype=torch.float32, scale=3.0).save_pretrained(tmp_path / "model")
    again = ig.run.run(document(), tmp_path / "out", base=tmp_path, engine=Here()).values[:]
    fresh = ig.run.run(document(), tmp_path / "fresh", base=tmp_path, engine=Here()).values[:]
    np.testing.assert_array_equal(again, fresh)
    assert not np.allclose(before, fresh)


def test_another_model_of_a_function_and_other_references(tmp_path: Path) -> None:
    """w ⊙ (x − b) of a linear model, whose weights or references changed between two starts."""
    (tmp_path / "my.py").write_text(
        "import pathlib, torch\n"
        "def load():\n"
        "    layer = torch.nn.Linear(2, 1)\n"
        "    with torch.no_grad():\n"
        "        layer.weight.fill_(float((pathlib.Path(__file__).parent / 'w').read_text()))\n"
        "        layer.bias.zero_()\n"
        "    return layer\n"
    )
    np.save(tmp_path / "rows.npy", np.array([[1.0, 2.0], [3.0, 5.0]], np.float32))
    recipe = {
        "model": {"import": "my.py:load"},
        "data": {"kind": "npy", "path": "rows.npy"},
        "method": {"method": "expected(references)", "references": "r.npy", "target": 0},
    }
    for weight, reference in ((1.0, 0.0), (2.0, 0.0), (2.0, 1.0)):
        (tmp_path / "w").write_text(str(weight))
        np.save(tmp_path / "r.npy", np.full((1, 2), reference, np.float32))
        results = ig.run.run(recipe, tmp_path / "out", base=tmp_path, engine=Here())
        expected = weight * (np.load(tmp_path / "rows.npy") - reference)
        np.testing.assert_allclose(results.values[:], expected, rtol=1e-5)


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
