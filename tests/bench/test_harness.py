"""Suites, run on a toy: numbers, resuming, sharing, stopping, and folders that belong to something else."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import integrand as ig
from integrand.bench import runner as harness
from integrand.bench import suite as recipe
from integrand.bench.claims import hold
from integrand.bench.power import detectable
from integrand.bench.problems import Examples, Problem, ProblemOptions, problem
from integrand.bench.problems.base import _PROBLEMS
from integrand.bench.problems.images import files_of
from integrand.bench.problems.text import lines_of
from integrand.bench.training import accuracy, trained
from integrand.compare.scores import Scores

RECIPE = """
title = "Toy"
question = "?"
[methods]
IG = "integrated(0.0, rule=GaussLegendre(8))"
"random map" = "RandomMap()"
[metrics]
deletion = "deletion(steps=4)"
[[run]]
name = "first"
problem = "toy"
batch = 2
[[claim]]
text = "IG is better than chance"
source = "nobody"
runs = ["first"]
metrics = ["deletion"]
method = "IG"
against = ["random map"]
"""


@pytest.fixture
def asked() -> Iterator[list[Sequence[int]]]:
    """Which examples of the toy were loaded, batch by batch."""
    loaded: list[Sequence[int]] = []
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))

    @problem("toy")
    def toy(setting: ProblemOptions) -> Problem:
        def load(numbers: Sequence[int]) -> Examples:
            loaded.append(tuple(numbers))
            return Examples(x[list(numbers)])

        return Problem("toy", model, tuple(f"x{i}" for i in range(12)), load, facts={"rows": 12})

    yield loaded
    del _PROBLEMS["toy"]


def test_a_suite_runs_and_goes_on_where_it_stopped(
    asked: list[Sequence[int]], tmp_path: Path
) -> None:
    suite = recipe.parsed("toy", RECIPE)
    whole = harness.run(suite, harness.RunOptions(tmp_path / "whole"))
    assert len(asked) == 6
    asked.clear()
    harness.run(suite, harness.RunOptions(tmp_path / "parts", examples=4))
    assert asked == [(0, 1), (2, 3)]
    (
        tmp_path / "parts/first/scores-00001.parquet"
    ).unlink()  # as if it had been killed before the second batch was done
    asked.clear()
    again = harness.run(suite, harness.RunOptions(tmp_path / "parts"))
    assert asked == [(2, 3), (4, 5), (6, 7), (8, 9), (10, 11)]
    (one,), (other,) = whole.finished, again.finished
    assert one.scores is not None
    assert other.scores is not None
    assert one.scores.examples == other.scores.examples == tuple(f"x{i}" for i in range(12))
    np.testing.assert_allclose(one.scores.values, other.scores.values)
    assert one.facts == {"rows": 12}


def test_processes_share_the_work(asked: list[Sequence[int]], tmp_path: Path) -> None:
    suite = recipe.parsed("toy", RECIPE)
    harness.run(suite, harness.RunOptions(tmp_path, part=(1, 2)))
    assert asked == [(0, 1), (4, 5), (8, 9)]
    asked.clear()
    done = harness.run(suite, harness.RunOptions(tmp_path, part=(2, 2)))
    assert asked == [(2, 3), (6, 7), (10, 11)]
    assert done.finished[0].scores is not None
    assert len(done.finished[0].scores) == 12


def test_time_is_kept(asked: list[Sequence[int]], tmp_path: Path) -> None:
    told: list[str] = []
    done = harness.run(
        recipe.parsed("toy", RECIPE), harness.RunOptions(tmp_path, minutes=0.0), told.append
    )
    assert asked == []
    assert done.finished[0].scores is None
    assert any("out of time" in line for line in told)


def test_a_folder_belongs_to_one_recipe_and_seed(
    asked: list[Sequence[int]], tmp_path: Path
) -> None:
    suite = recipe.parsed("toy", RECIPE)
    harness.run(suite, harness.RunOptions(tmp_path, examples=2))
    assert json.loads((tmp_path / "suite.json").read_text())["suite"] == "toy"
    with pytest.raises(ig.errors.InputError, match="another seed"):
        harness.run(suite, harness.RunOptions(tmp_path, examples=2, seed=1))
    with pytest.raises(ig.errors.InputError, match="another recipe"):
        harness.run(
            recipe.parsed("toy", RECIPE.replace("steps=4", "steps=5")), harness.RunOptions(tmp_path)
        )


def test_other_runs_of_a_recipe_may_change_and_come(
    asked: list[Sequence[int]], tmp_path: Path
) -> None:
    """What a batch was scored by must not: methods, metrics, words, problem, how many it holds."""
    first = harness.run(recipe.parsed("toy", RECIPE), harness.RunOptions(tmp_path, examples=4))
    second = (
        '[[run]]\nname = "second"\nproblem = "toy"\nmetrics = { more = "insertion(steps=4)" }\n'
    )
    changed = RECIPE.replace("?", "Why?").replace("[[claim]]", f"{second}[[claim]]")
    asked.clear()
    both = harness.run(recipe.parsed("toy", changed), harness.RunOptions(tmp_path, examples=4))
    assert asked == [(0, 1, 2, 3)]  # of the second run alone
    assert both.finished[0].scores is not None
    assert first.finished[0].scores is not None
    np.testing.assert_array_equal(both.finished[0].scores.values, first.finished[0].scores.values)
    other = recipe.parsed("toy", changed.replace("insertion(steps=4)", "insertion(steps=5)"))
    harness.run(other, harness.RunOptions(tmp_path, examples=4, runs=("first",)))
    with pytest.raises(ig.errors.InputError, match="another recipe of 'second'"):
        harness.run(other, harness.RunOptions(tmp_path, examples=4))
    for old, new in (("GaussLegendre(8)", "GaussLegendre(9)"), ("batch = 2", "batch = 3")):
        with pytest.raises(ig.errors.InputError, match="another recipe of 'first'"):
            harness.run(
                recipe.parsed("toy", RECIPE.replace(old, new)), harness.RunOptions(tmp_path)
            )


def test_a_folder_of_earlier_days_is_gone_on_with_where_its_recipe_is_the_same(
    asked: list[Sequence[int]], tmp_path: Path
) -> None:
    """Such folders hold one digest of the recipe's whole text."""
    mark = {"suite": "toy", "seed": 0, "data": None}
    digest = hashlib.blake2b(RECIPE.encode(), digest_size=8).hexdigest()
    for stored in (digest, "00"):
        (tmp_path / "suite.json").write_text(json.dumps({**mark, "recipe": stored}))
        if stored == digest:
            harness.run(recipe.parsed("toy", RECIPE), harness.RunOptions(tmp_path, examples=2))
            assert "recipes" in json.loads((tmp_path / "suite.json").read_text())
            assert asked
            asked.clear()
        else:
            with pytest.raises(ig.errors.InputError, match="another recipe"):
                harness.run(recipe.parsed("toy", RECIPE), harness.RunOptions(tmp_path))
    assert asked == []


def test_half_written_tables_are_not_read(asked: list[Sequence[int]], tmp_path: Path) -> None:
    (tmp_path / "first").mkdir(parents=True)
    (tmp_path / "first/scores-00000.123.partial").write_text("half")
    done = harness.run(recipe.parsed("toy", RECIPE), harness.RunOptions(tmp_path, examples=2))
    assert done.finished[0].scores is not None
    assert asked == [(0, 1)]


# --- claims -----------------------------------------------------------------------------------------------------------


def scores(ours: Tensor, theirs: Tensor, *, higher: bool) -> Scores:
    values = torch.stack([ours, theirs])[:, None].double().numpy()
    nothing = np.zeros((2, len(ours)))
    return Scores(
        values,
        ("ours", "theirs"),
        ("m",),
        (higher,),
        tuple(map(str, range(len(ours)))),
        **dict.fromkeys(("gradients", "rows", "seconds", "gap", "error"), nothing),
    )


def claim(size: float | None) -> recipe.Claim:
    return recipe.Claim("", "", "run", "m", "ours", "theirs", size)


@pytest.mark.parametrize(
    ("factor", "size", "verdict"),
    [
        (0.5, None, "confirmed"),
        (0.5, 0.36, "confirmed"),
        (0.9, 0.36, "direction confirmed"),
        (1.0, 0.36, "not shown"),
        (1.3, 0.36, "contradicted"),
    ],
)
@pytest.mark.parametrize("higher", [False, True])
def test_verdicts(factor: float, size: float | None, verdict: str, higher: bool) -> None:
    stream = torch.Generator().manual_seed(0)
    theirs = 1 + 0.05 * torch.randn(60, generator=stream).double()
    factor = 2 - factor if higher else factor
    ours = factor * theirs + 0.05 * torch.randn(60, generator=stream).double()
    held = hold(claim(size), scores(ours, theirs, higher=higher))
    assert held.verdict == verdict
    assert held.share == pytest.approx(
        (1 if higher else -1) * float((ours - theirs).mean() / theirs.mean())
    )
    assert held.low <= held.share <= held.high


def test_the_interval_covers_what_is_true() -> None:
    """Of 120 samples of 40 examples with a true improvement of a tenth, about 95 % of the intervals hold it."""
    stream = torch.Generator().manual_seed(0)
    held = 0
    for seed in range(120):
        theirs = 1 + 0.3 * torch.randn(40, generator=stream).double()
        ours = 0.9 * theirs + 0.2 * torch.randn(40, generator=stream).double()
        found = hold(claim(None), scores(ours, theirs, higher=False), seed=seed)
        held += found.low <= 0.1 <= found.high
    assert 108 <= held <= 119


def test_skewed_scores_are_no_contradiction() -> None:
    """Twenty examples whose differences are exponential and average 0: 5 % of claims are called true or false, not 9 %; and what
    could have been shown is said, as Student's test has it."""
    stream = np.random.default_rng(0)
    said = 0
    for seed in range(150):
        theirs = torch.from_numpy(stream.uniform(1, 2, 20))
        ours = theirs - torch.from_numpy(stream.exponential(size=20) - 1)
        found = hold(claim(None), scores(ours, theirs, higher=True), seed=seed)
        said += found.verdict != "not shown"
        spread = float((ours - theirs).std())
        assert found.detectable == pytest.approx(
            detectable(spread, 20) / float(theirs.mean()), rel=1e-6
        )
    assert said / 150 < 0.08


def test_few_examples_say_nothing() -> None:
    two = torch.tensor([1.0, 2.0])
    assert hold(claim(None), scores(two, two + 1, higher=False)).verdict == "2 examples say nothing"
    nothing = torch.full((8,), torch.nan)
    assert (
        hold(claim(None), scores(nothing, nothing, higher=False)).verdict
        == "0 examples say nothing"
    )


def test_ties_are_half_wins() -> None:
    eight = torch.arange(8.0)
    assert hold(claim(None), scores(eight, eight, higher=True)).wins == 0.5


# --- what problems are made of ----------------------------------------------------------------------------------------


def test_files_of_a_folder_of_folders_and_of_a_list(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.jpg", "c.png", "dog/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in files_of(tmp_path)] == ["c.png", "a.png", "b.jpg"]
    (tmp_path / "labels.csv").write_text("file,class\ncat/a.png,1\nc.png,2\n")
    assert [path.name for path in files_of(tmp_path / "labels.csv")] == ["a.png", "c.png"]
    (tmp_path / "labels.csv").write_text("file,class\ncat/a.png,1\nmissing.png,2\n")
    with pytest.raises(ig.errors.InputError, match=r"missing\.png"):
        files_of(tmp_path / "labels.csv")


def test_questions_are_read_once_each(tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    file.write_text("NUM:dist How far ?\nLOC:city Where ?\nNUM:dist How far ?\n")
    lines = lines_of(file)
    assert lines.classes == ("LOC", "NUM")
    assert lines.words == [["how", "far", "?"], ["where", "?"]]
    assert lines.labels.tolist() == [1, 0]
    with pytest.raises(ig.errors.InputError, match="'NUM', which the training file does not"):
        lines_of(file, ["LOC"])
    file.write_text("NUM:dist\n")
    with pytest.raises(ig.errors.InputError, match="a label, a space, and a text"):
        lines_of(file)


def test_models_are_trained_once_and_from_their_seed(tmp_path: Path) -> None:
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()

    def build() -> nn.Module:
        return nn.Linear(4, 2)

    before = torch.get_rng_state()
    one = trained(build, x, y, cache=tmp_path / "a", name="toy", epochs=20, rate=0.05)
    assert torch.equal(torch.get_rng_state(), before)
    assert accuracy(one, x, y) > 0.95
    other = trained(build, x, y, cache=tmp_path / "b", name="toy", epochs=20, rate=0.05)
    torch.testing.assert_close(one.state_dict(), other.state_dict())
    (file,) = (tmp_path / "a").iterdir()
    stamp = file.stat().st_mtime_ns
    kept = trained(build, x, y, cache=tmp_path / "a", name="toy", epochs=20, rate=0.05)
    torch.testing.assert_close(kept.state_dict(), one.state_dict())
    assert file.stat().st_mtime_ns == stamp


class Squared(nn.Linear):
    """Takes the weights of a linear layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).square()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: nn.Linear(4, 2), lambda: Squared(4, 2)),
        (lambda: nn.Sequential(nn.Linear(4, 2), nn.Tanh()), lambda: nn.Sequential(nn.Linear(4, 2), nn.ReLU())),
        (lambda: nn.LayerNorm(4, eps=1e-5), lambda: nn.LayerNorm(4, eps=1e-2)),
    ],
    ids=["class", "layer", "setting"],
)  # fmt: skip
def test_a_changed_network_of_the_same_name_is_trained_anew(
    tmp_path: Path, one: Callable[[], nn.Module], other: Callable[[], nn.Module]
) -> None:
    """Weights of the same shapes, and of another function."""
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    for count, build in enumerate((one, one, other, other)):
        model = trained(build, x, y, cache=tmp_path, name="toy", epochs=2, rate=0.05)
        assert len(list(tmp_path.iterdir())) == 1 + count // 2
        alone = trained(build, x, y, cache=tmp_path / f"{count}", name="toy", epochs=2, rate=0.05)
        torch.testing.assert_close(model.state_dict(), alone.state_dict())
        shutil.rmtree(tmp_path / f"{count}")


def test_metrics_with_a_summary_of_their_own_keep_it(
    asked: list[Sequence[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SIC: one number for all examples that is not the mean of theirs."""
    deletion = ig.metrics.Deletion
    monkeypatch.setattr(
        deletion, "summary", lambda self, measured: measured.amax((1, 2)), raising=False
    )
    done = harness.run(recipe.parsed("toy", RECIPE), harness.RunOptions(tmp_path, examples=4))
    scores = done.finished[0].scores
    assert scores is not None
    found = done.finished[0].summaries["deletion"]
    assert found == {
        method: pytest.approx(scores.curves["deletion"][m].max())
        for m, method in enumerate(scores.methods)
    }


def test_metrics_may_say_words_of_examples(tmp_path: Path) -> None:
    """As another text is, which has as many tokens as the text: it fills what is removed."""
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    model = nn.Linear(6, 3)

    @problem("worded")
    def worded(setting: ProblemOptions) -> Problem:
        def load(numbers: Sequence[int]) -> Examples:
            return Examples(x[list(numbers)], words={"other": ig.baselines.Constant(3.0)})

        return Problem("worded", model, ("a", "b", "c", "d"), load)

    try:
        text = RECIPE.replace('"toy"', '"worded"').replace("steps=4", "steps=4, fill=other")
        done = harness.run(recipe.parsed("toy", text), harness.RunOptions(tmp_path))
    finally:
        del _PROBLEMS["worded"]
    (one,) = done.finished
    assert one.scores is not None
    expected = model(torch.full((4, 6), 3.0)).softmax(-1).gather(1, model(x).argmax(1)[:, None])
    ends = one.scores.curves["deletion"][0, :, -1]
    np.testing.assert_allclose(ends, expected[:, 0].detach().numpy(), rtol=1e-5)
    assert one.summaries == {}


def test_a_run_whose_data_are_not_there_is_left_out(
    asked: list[Sequence[int]], tmp_path: Path
) -> None:
    """The others are run; where there are data for none, that is an error."""
    second = RECIPE.replace(
        "[[claim]]", '[[run]]\nname = "texts"\nproblem = "questions"\n[[claim]]'
    )
    suite = recipe.parsed("toy", second)
    results = harness.run(suite, harness.RunOptions(tmp_path / "out", tmp_path))
    toys, texts = results.finished
    assert toys.scores is not None
    assert texts.scores is None
    assert "train.txt" in texts.left_out
    with pytest.raises(ig.errors.MissingData, match=r"train\.txt"):
        harness.run(suite, harness.RunOptions(tmp_path / "out2", tmp_path, runs=("texts",)))
