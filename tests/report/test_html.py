"""Pages and fragments: complete, honest, self-contained, and safe to show what they are given."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

import integrand as ig
from integrand.core.formatting import number
from integrand.errors import InputError, MissingExtra, ShapeError
from integrand.integration.attribution import Attribution
from integrand.report import Case, fragment, page
from integrand.report.arrays import data_uri, flat_map, limit_of

pytest.importorskip("jinja2")
Image = pytest.importorskip("PIL.Image")

_VOID = {"meta", "img", "br", "line", "polyline", "circle", "path", "rect", "link", "hr"}
UNIT = ig.Normalisation.unit()


class Outline(HTMLParser):
    """Checks that tags nest, and collects them with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += " " + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.Softplus(),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 14 * 14, 8),
        torch.nn.Tanh(),
        torch.nn.Linear(8, 3),
    ).eval()


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def results(model: torch.nn.Module, photograph: torch.Tensor) -> dict[str, Attribution]:
    def explained(method: str, **options: Any) -> Attribution:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ig.errors.IntegrandWarning)
            return ig.explain(
                model, photograph, target="predicted", method=method, normalisation=UNIT, **options
            )

    others = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    return {
        "integrated": explained("integrated", baseline="black"),
        "weighted": explained(
            "weighted", baseline=["black", "white", "blurred"], rule=ig.rules.GaussLegendre(4)
        ),
        "ig2": explained("ig2", baseline=others, steps=6, record=("path",)),
    }


def case(results: dict[str, Attribution], **changes: Any) -> Case:
    return dataclasses.replace(
        Case("Cat", [("tabby cat", 0.62), ("lynx", 0.11)], "logit of tabby cat", results), **changes
    )


@pytest.fixture(scope="module")
def made(results: dict[str, Attribution]) -> str:
    return page([case(results)], title="A page")


def pixels(uri: str | None) -> np.ndarray:
    assert uri is not None
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    )


def picture(outline: Outline, alt: str) -> np.ndarray:
    return pixels(next(i["src"] for i in outline.all("img") if i["alt"] == alt))


# --- page -------------------------------------------------------------------------------------------------------------


def test_a_page_is_well_formed_and_needs_nothing_from_outside(made: str) -> None:
    outline = Outline(made)
    assert made.lstrip().lower().startswith("<!doctype html>")
    addresses = [
        a[k] for _, a in outline.tags for k in ("src", "href", "data", "action") if a.get(k)
    ]
    assert addresses
    assert all(
        address and address.startswith(("data:image/png;base64,", "#")) for address in addresses
    )
    assert not re.search(r"@import|url\(", made)
    assert not outline.all("script")
    assert not [k for _, a in outline.tags for k in a if k.startswith("on")]
    assert all(image.get("alt") for image in outline.all("img"))


def test_a_page_says_what_was_predicted_and_explained(made: str) -> None:
    text = Outline(made).text
    for words in ("A page", "Cat", "tabby cat", "62.0 %", "lynx", "logit of tabby cat"):
        assert words in text
    assert "width:62.0%" in made


def test_the_summary_holds_the_numbers_of_every_method(
    made: str, results: dict[str, Attribution]
) -> None:
    text = Outline(made).text
    for name, found in results.items():
        assert ig.methods.about(name).title in text
        change = float((found.weights * found.change).sum())
        for value in (change, float(found.values.sum()), float(found.residual)):
            # The residual of a complete map is rounding, and so are the last digits of its sum.
            assert number(value) in text or abs(value) < 1e-4
        assert f"{found.cost.gradients:,}" in text


def test_maps_are_painted_to_the_limit_that_is_printed(
    made: str, results: dict[str, Attribution]
) -> None:
    outline = Outline(made)
    for name, found in results.items():
        values = flat_map(found.values[0])
        limit = limit_of([values])
        assert f"+{number(limit)}" in outline.text
        expected = ig_signed(values, limit)
        np.testing.assert_array_equal(
            picture(outline, f"{ig.methods.about(name).title}, map alone"), expected
        )


def ig_signed(values: np.ndarray, limit: float) -> np.ndarray:
    from integrand.report.figures import signed_rgb

    return signed_rgb(values, limit)


def test_areas_say_what_they_are() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(4 * 14 * 14, 3))  # fmt: skip
    x = torch.rand(1, 3, 16, 16)
    areas = ig.weightings.Areas([ig.baselines.Constant(0.0), ig.baselines.Blurred()])
    starts = ig.baselines.Union((ig.baselines.Constant(0.0), ig.baselines.Constant(1.0)))
    method = ig.Method(starts, rule=ig.rules.GaussLegendre(16), weighting=areas, record=("shares",))
    found = ig.explain(model, x, target=0, method=method, normalisation=ig.Normalisation.unit())
    shown = Outline(page([Case("noise", [("a class", 0.5)], "logit", {"areas": found})], title="areas"))  # fmt: skip
    assert found.criterion in shown.text
    assert found.fitness is not None
    for r in range(2):
        assert number(float(found.fitness[r, 0])) in shown.text
        assert f"{float(found.weights[r, 0]):.3f}" in shown.text


def test_every_baseline_shows_its_fitness_weight_change_and_map(
    made: str, results: dict[str, Attribution]
) -> None:
    outline, weighted = Outline(made), results["weighted"]
    assert weighted.fitness is not None
    assert weighted.shares is not None
    assert "what each baseline is worth" in outline.text
    assert "Fitness is the fewest of" in outline.text  # the word that its label is
    for r, name in enumerate(weighted.names):
        assert f"{int(weighted.fitness[r, 0]):,}" in outline.text
        assert f"{float(weighted.weights[r, 0]):.3f}" in outline.text
        assert number(float(weighted.change[r, 0])) in outline.text
        own = flat_map(weighted.shares[r, 0])
        np.testing.assert_array_equal(
            picture(outline, f"map from {name}"), ig_signed(own, limit_of([own]))
        )
    assert (picture(outline, "baseline black") == 0).all()
    assert (picture(outline, "baseline white") == 255).all()


def test_baselines_come_heaviest_first_and_dropped_ones_say_so(
    results: dict[str, Attribution],
) -> None:
    weighted = results["weighted"]
    weights = torch.tensor([[0.3], [0.0], [0.7]])
    text = page([case({"weighted": dataclasses.replace(weighted, weights=weights)})], title="t")
    names = [i["alt"] for i in Outline(text).all("img") if (i["alt"] or "").startswith("baseline ")]
    assert names == ["baseline blurred", "baseline black", "baseline white"]
    assert "dropped" in text


def test_a_reason_is_a_flag(results: dict[str, Attribution], made: str) -> None:
    flagged = dataclasses.replace(results["weighted"], reasons=("all baselines need <the> same",))
    text = page([case({"weighted": flagged})], title="t")
    assert "Here that says little" in Outline(text).text
    assert "all baselines need &lt;the&gt; same." in text
    clean = dataclasses.replace(results["weighted"], reasons=(None,))
    assert "Here that says little" not in page([case({"weighted": clean})], title="t")


def test_the_film_runs_from_the_counterfactual_to_the_input(
    made: str, results: dict[str, Attribution]
) -> None:
    outline, found = Outline(made), results["ig2"]
    assert found.frames is not None
    assert found.baselines is not None
    count = len(found.frames.clock)
    assert "The first 3 of 4 references are shown" in re.sub(r"\s+", " ", outline.text)
    first, last = (
        picture(outline, f"{found.names[0]} at clock 0"),
        picture(outline, f"{found.names[0]} at clock 1"),
    )
    start = found.baselines[0, 0].permute(1, 2, 0).clamp(0, 1).numpy()
    np.testing.assert_allclose(first / 255, start, atol=0.51 / 255)
    np.testing.assert_allclose(last / 255, found.inputs[0].permute(1, 2, 0), atol=0.51 / 255)
    differences = [
        i for i in outline.all("img") if (i["alt"] or "").startswith("difference at clock")
    ]
    assert len(differences) == 3 * count
    assert (
        np.ptp(pixels(differences[count - 1]["src"])) == 0
    )  # the input does not differ from itself


def test_the_difference_is_amplified_by_the_factor_that_is_stated(
    made: str, results: dict[str, Attribution]
) -> None:
    outline, found = Outline(made), results["ig2"]
    assert found.frames is not None
    factor = int(re.search(r"(\d+)× amplified", outline.text)[1])  # type: ignore[index]
    difference = (found.frames.points[0, 0, 0] - found.inputs[0]).permute(1, 2, 0).numpy()
    expected = np.clip(0.5 + factor * difference, 0, 1)
    np.testing.assert_allclose(
        picture(outline, "difference at clock 0") / 255, expected, atol=0.51 / 255
    )


def test_the_distance_curve_has_every_point_of_the_descent(
    made: str, results: dict[str, Attribution]
) -> None:
    distance = results["ig2"].notes["distance"][:, 0, 0].double().numpy()
    curve = Outline(made).all("polyline")[0]["points"]
    points = np.array([p.split(",") for p in str(curve).split()], dtype=float)
    assert len(points) == len(distance) == 7
    heights = (96 - points[:, 1]) / 88
    np.testing.assert_allclose(heights, distance / distance.max(), atol=1e-3)
    assert (np.diff(points[:, 0]) > 0).all()
    assert f"{number(float(distance[0]))}" in made


def test_there_is_no_film_without_frames(results: dict[str, Attribution]) -> None:
    text = page([case({"ig2": dataclasses.replace(results["ig2"], frames=None)})], title="t")
    assert "path as a film" not in text


def test_an_incomplete_map_is_marked_and_a_complete_one_is_not(
    results: dict[str, Attribution],
) -> None:
    whole = results["integrated"]
    assert "▲" not in page([case({"integrated": whole})], title="t")
    broken = dataclasses.replace(whole, residual=whole.change[0] * 0.3)
    text = Outline(page([case({"integrated": broken})], title="t")).text
    assert text.count("▲ incomplete") == 2  # in the table and above the map
    assert "30.0 %" in text
    nothing = dataclasses.replace(whole, residual=torch.full((1,), float("nan")))
    assert "▲ incomplete" in page([case({"integrated": nothing})], title="t")


def test_the_estimated_error_is_told_where_there_is_one(results: dict[str, Attribution]) -> None:
    whole = dataclasses.replace(
        results["integrated"], error=torch.tensor([0.0412]), converged=torch.tensor([True])
    )
    text = Outline(page([case({"integrated": whole})], title="t")).text
    assert "4.1 %" in text
    assert "▲" not in text
    assert "4.1 %" in Outline(fragment(whole)).text
    assert "▲" not in fragment(whole)
    short = dataclasses.replace(whole, converged=torch.tensor([False]))
    text = Outline(page([case({"integrated": short})], title="t")).text
    assert text.count("▲ not converged") == 2  # in the table and above the map
    assert "▲ incomplete" not in text
    assert "▲ not converged 4.1 %" in Outline(fragment(short)).text


def test_what_estimates_nothing_is_not_called_unconverged(results: dict[str, Attribution]) -> None:
    """A fixed number of nodes promises nothing; its gap is marked, that is all there is to go by."""
    unknown = dataclasses.replace(
        results["integrated"],
        error=torch.tensor([float("nan")]),
        converged=torch.tensor([False]),
        method=ig.methods.integrated(rule=ig.rules.Midpoint(8)),
    )
    assert "▲" not in page([case({"integrated": unknown})], title="t")
    assert "▲" not in fragment(unknown)


def test_how_it_was_made_is_told(made: str, results: dict[str, Attribution]) -> None:
    outline = Outline(made)
    assert len(outline.all("details")) == 1
    for name, found in results.items():
        assert repr(found.method) in outline.text
        assert ig.methods.about(name).citation in outline.text
    assert f"torch {torch.__version__}" in outline.text
    assert "integrand " in outline.text


def test_a_method_without_a_publication_goes_by_its_name(results: dict[str, Attribution]) -> None:
    text = page([case({"my own method": results["integrated"]})], title="t")
    assert "my own method" in text
    assert "@inproceedings" not in text


def test_all_text_is_escaped(results: dict[str, Attribution]) -> None:
    bad = "<script>alert('x')</script>"
    weighted = dataclasses.replace(results["weighted"], names=(bad, "b", "c"))
    filmed = dataclasses.replace(results["ig2"], names=(bad,) * 4)
    text = page(
        [Case(bad, [(bad, 0.5)], bad, {bad: weighted, "ig2": filmed})],
        title=bad,
    )
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 5
    Outline(text)


def test_several_cases_have_a_table_of_contents(results: dict[str, Attribution], made: str) -> None:
    text = page([case(results), case({"integrated": results["integrated"]}, name="Dog")], title="t")
    assert [a["href"] for a in Outline(text).all("a")] == ["#case-1", "#case-2"]
    assert not Outline(made).all("a")


def test_a_saved_attribution_makes_the_same_page(
    results: dict[str, Attribution], made: str, tmp_path: Any
) -> None:
    pytest.importorskip("safetensors")
    loaded = {}
    for name, found in results.items():
        found.save(tmp_path / f"{name}.safetensors")
        loaded[name] = ig.load(tmp_path / f"{name}.safetensors")
    assert page([case(loaded)], title="A page") == made


def test_maps_of_zeros_make_a_page(results: dict[str, Attribution]) -> None:
    whole = results["integrated"]
    empty = dataclasses.replace(
        whole, values=torch.zeros_like(whole.values), shares=None, baselines=None
    )
    assert "nan" not in Outline(page([case({"integrated": empty})], title="t")).text.lower()
    still = results["ig2"]
    assert still.frames is not None
    points = still.inputs.expand_as(still.frames.points)
    frames = dataclasses.replace(still.frames, points=points)
    notes = {"distance": torch.zeros_like(still.notes["distance"])}
    assert "1× amplified" in page(
        [case({"ig2": dataclasses.replace(still, frames=frames, notes=notes)})], title="t"
    )


def test_large_photographs_get_a_map_of_regions() -> None:
    x = torch.rand(1, 3, 70, 56, generator=torch.Generator().manual_seed(0))
    found = ig.explain(
        lambda z: (z * z).flatten(1).cumsum(1)[:, -2:], x, target=0, normalisation=UNIT
    )
    outline = Outline(page([case({"integrated": found})], title="t"))
    assert "squares of 5 × 5 pixels" in outline.text
    assert picture(outline, "Integrated Gradients, sums of regions").shape == (70, 56, 3)


def test_a_case_holds_one_image(results: dict[str, Attribution], model: torch.nn.Module) -> None:
    two = ig.explain(model, torch.rand(2, 3, 16, 16), target=0)
    with pytest.raises(InputError, match=r"2 examples.*attribution\[i\]"):
        page([case({"integrated": two})], title="t")
    columns = ig.explain(lambda z: z.exp().cumsum(1), torch.rand(1, 5), target=0)
    with pytest.raises(ShapeError, match="use plot"):
        page([case({"integrated": columns})], title="t")
    with pytest.raises(InputError, match="no results"):
        page([case({})], title="t")


@pytest.mark.parametrize(("module", "package"), [("jinja2", "jinja2"), ("PIL.Image", "pillow")])
def test_a_missing_extra_is_named(
    results: dict[str, Attribution], monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"'{package}'.*integrand\[report\]"):
        page([case(results)], title="t")


def test_a_picture_in_an_address_is_the_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    flat = np.zeros((8, 9, 3), np.uint8)
    flat[2:5] = (200, 100, 7)
    for original in (noise, flat):
        np.testing.assert_array_equal(pixels(data_uri(original)), original)
    assert pixels(data_uri(noise, 20)).shape == (20, 15, 3)


# --- fragment ---------------------------------------------------------------------------------------------------------


def test_a_fragment_is_small_well_formed_and_complete(model: torch.nn.Module) -> None:
    many = ig.explain(model, torch.rand(10, 3, 16, 16), target="predicted")
    text = many._repr_html_()
    outline = Outline(text)
    assert text == fragment(many)
    assert len(outline.all("img")) == 3 * 8
    assert "and 2 more" in outline.text
    assert len(text) < 60_000
    for i in range(8):
        assert number(float(many.output[i])) in outline.text
        assert number(float(many.change[0, i])) in outline.text
    assert repr(many.method) in outline.text
    assert f"{many.cost.gradients:,} gradients" in outline.text


def test_a_fragment_marks_what_is_incomplete_and_escapes(results: dict[str, Attribution]) -> None:
    whole = results["integrated"]
    assert "incomplete" not in fragment(whole)
    broken = dataclasses.replace(whole, residual=whole.change[0] * 0.3, method=Odd(), target=Odd())
    text = fragment(broken)
    assert "▲ incomplete 30.0 %" in Outline(text).text
    assert "<script" not in text


class Odd:
    def __repr__(self) -> str:
        return "<script>"


def test_a_fragment_of_other_inputs_is_a_table() -> None:
    columns = ig.explain(lambda z: z.exp().cumsum(1), torch.rand(3, 5), target=1)
    outline = Outline(fragment(columns))
    assert not outline.all("img")
    assert "3x5" in outline.text
    Outline(
        fragment(
            ig.explain(
                lambda a, b: a.exp() + b.exp(), (torch.rand(3, 2), torch.rand(3, 2)), target=1
            )
        )
    )


def test_a_fragment_without_pillow_has_no_pictures_and_says_why(
    results: dict[str, Attribution], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    outline = Outline(fragment(results["integrated"]))
    assert not outline.all("img")
    assert "integrand[report]" in outline.text


def test_the_report_imports_no_extra_until_asked() -> None:
    check = "import sys, integrand.report; print([m for m in ('matplotlib', 'PIL', 'jinja2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
