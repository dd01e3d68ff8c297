"""Write what the documentation says of every method: python scripts/docs.py [--gallery FOLDER] [--examples] [--check]

Four pages hold blocks between marks that are made here, from the cards of ``ig.methods``, from costs as counted (measured_costs.py), and from
measurements that are kept as data; everything else on them is written by hand.

    README.md                     <!-- family -->    every published method by what it does
    docs/gallery.md               <!-- gallery -->   every method on one photograph; of docs/results/gallery.json
                                  <!-- examples -->  every script of examples/, its picture, and what it prints
    docs/usage/how-to-choose.md   <!-- methods -->   what each starts from, takes, and gave on that photograph, and its measured quality
    docs/usage/metrics.md         <!-- metrics -->   every metric in a line

``--gallery FOLDER`` takes in what ``integrand explain sample:chelsea --method all --save --out FOLDER`` has written. Quality comes from
docs/results/paths/results.json, what ``integrand bench paths`` has written, where that exists. ``--examples`` runs the scripts, and keeps their
pictures in docs/images and what they print in docs/results/examples.json.

Numbers in the prose of docs/usage/which-method.md, text.md and weightings.md are those of docs/results, between marks of their own:

    <!--= weighted/lite0/deletion/WG/mean -->0.0463<!--/-->             of a method: mean, interval, gradients
    <!--= weighted/lite0/deletion/WG>EG/share -->+21 %<!--/-->          of a claim: share, interval, wins, examples, verdict, detectable
    <!--= ig2/digits/examples -->200<!--/-->                            of a run
    <!--= truth/lite0/held out/areas, other fills>EG/share -->+8 %<!--/-->   of what was judged once: share, interval, p
    <!--= truth/lite0/whole/deletion, grey, signed/WG>EG/share -->−14 %<!--/-->   of a claim on both halves of the study
    <!--= truth/digits/carried/best by deletion, grey/deletion, blur -->−7 %<!--/-->   of the carry-over matrix: row, column
    <!--= text/baselines-minilm.json/difference -->0.2<!--/-->          of another file of results: its keys, one in the other

``--check`` writes nothing and fails where a page is not what would be written. ``make docs`` and ``make gallery`` run this.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

import integrand as ig
from integrand.core.formatting import beside, count, number, percent, signed_percent
from integrand.methods import Published

README = Path(__file__).parent.parent / "README.md"
DOCS = README.parent / "docs"
SCRIPTS, EXAMPLES = DOCS.parent / "examples", DOCS / "results" / "examples.json"
GALLERY, QUALITY = DOCS / "results" / "gallery.json", DOCS / "results" / "paths" / "results.json"
PICTURE, SAME_SCALE = DOCS / "images" / "gallery.png", DOCS / "images" / "gallery-same-scale.png"
PAGES = {
    README: ("family",),
    DOCS / "gallery.md": ("gallery", "examples"),
    DOCS / "usage" / "how-to-choose.md": ("methods",),
    DOCS / "usage" / "metrics.md": ("metrics",),
}

BESIDE = (
    (
        "Interactions",
        {"ig.interactions": "Integrated Hessians", "ig.interactions(draws=)": "Expected Hessians"},
    ),
    (
        "Edges and nodes inside a language model",
        {"ig.circuits.edges": "EAP-IG", 'method="eap"': "Edge Attribution Patching"},
    ),
    ("Training", {"create_graph=True": "attribution priors"}),
    ("Whole datasets", {"ig.correlate": "Integrated Gradient Correlation"}),
)
"""What is published and is no method of single examples: kind, and names with titles."""

STARTS = {
    "baseline": "a baseline, or several",
    "baselines": "several baselines",
    "references": "references",
    None: "finds its own start",
}

Results = dict[str, Any]


# --- the gallery ------------------------------------------------------------------------------------------------------


def taken_in(folder: Path) -> Results:
    """The numbers of every map in a folder that the command line has filled."""
    methods = {}
    for name in ig.methods.known():
        file = next(iter(folder.glob(f"*-{name}.safetensors")), None)
        if file is None:
            continue
        made = ig.load(file)
        claimed = made.claims_completeness
        methods[name] = {
            "change": float((made.output - made.base)[0]),
            "residual": float(made.residual[0]) if claimed else None,
            "gap": float(made.gap[0]) if claimed else None,
            "gradients": made.cost.gradients,
            "values": made.cost.values,
            "seconds": round(made.cost.seconds, 1),
            "setup": repr(made.method),
        }
    return {"made": _made_with(), "methods": methods}


def _made_with() -> str:
    versions = ", ".join(
        f"{package} {metadata.version(package)}" for package in ("integrand", "torch")
    )
    return f"{versions}, one thread"


def gallery(results: Results) -> Iterator[str]:
    """The block of docs/gallery.md."""
    yield f"Made with {results['made']}: `make gallery`."
    yield ""
    yield "| method | change of F | residual | gap | gradients | forward rows | seconds |"
    yield "|---|---|---|---|---|---|---|"
    for family, cards in _families():
        shown = [
            (one, results["methods"][one.name]) for one in cards if one.name in results["methods"]
        ]
        if shown:
            yield f"| *{family}* | | | | | | |"
        for one, found in shown:
            claimed = found["gap"] is not None
            residual = beside(found["residual"], found["change"]) if claimed else "–"
            gap = _gap(found)
            yield (
                f"| `{one.name}` {one.title} | {number(found['change'])} | {residual} | {gap} | {found['gradients']:,} | "
                f"{found['values']:,} | {found['seconds']:.1f} |"
            )
    missing = [name for name in ig.methods.known() if name not in results["methods"]]
    if missing:
        yield ""
        yield f"Not for photographs, or not measured yet: {', '.join(f'`{name}`' for name in missing)}."
    yield ""
    yield "How each was set up, as it prints:"
    yield ""
    for name, found in results["methods"].items():
        yield f"* `{name}`: `{_short(found['setup'])}`"


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:199] + "…"


def _gap(found: Results) -> str:
    return "not claimed" if found["gap"] is None else percent(found["gap"])


# --- the examples -----------------------------------------------------------------------------------------------------


def run_example(script: Path, pictures: Path) -> Results:
    """Run a script as a user would; its picture goes to a folder, what it prints comes back."""
    began = time.monotonic()
    command = [sys.executable, str(script), str(pictures)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"printed": run.stdout.splitlines(), "seconds": round(time.monotonic() - began)}


def run_examples(names: list[str]) -> None:
    """Run the scripts with these names, all of them where there are none, and keep what each prints
    as soon as it has."""
    told = (read(EXAMPLES) or {"examples": {}})["examples"]
    pictures = DOCS / "images" / "examples"
    for name in names or sorted(script.stem for script in SCRIPTS.glob("*.py")):
        print(name, flush=True)
        told[name] = run_example(SCRIPTS / f"{name}.py", pictures)
        results = {"made": _made_with(), "examples": dict(sorted(told.items()))}
        EXAMPLES.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")


def examples(results: Results) -> Iterator[str]:
    """The block of docs/gallery.md that shows the scripts in examples/."""
    yield f"Made with {results['made']}: `make examples`. Seconds are those of a machine that others were using."
    for name, told in results["examples"].items():
        script = SCRIPTS / f"{name}.py"
        (picture,) = (DOCS / "images" / "examples").glob(f"{name}.*")
        said = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""
        question, _, story = said.partition("\n\n")
        yield from ("", f"### {name.replace('_', ' ').capitalize()}", "")
        yield from (f"**{question}** {' '.join(story.split())}", "")
        yield from (f"![{question}](images/examples/{picture.name})", "")
        yield from ("```", *told["printed"], "```", "")
        yield f"[`examples/{name}.py`](../examples/{name}.py), {told['seconds']} s"


# --- how to choose ----------------------------------------------------------------------------------------------------


def choices(results: Results | None, quality: Results | None) -> Iterator[str]:
    """The block of docs/usage/how-to-choose.md."""
    columns = ["method", "starts from", "adds up", "cost", "counted: gradients + forward rows"]
    if results:
        columns += ["photograph: gap", "gradients", "forward rows"]
    if quality:
        columns += list(quality["columns"].values())
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for family, cards in _families():
        yield f"| *{family}* |{' |' * (len(columns) - 1)}"
        for one in cards:
            cells = [
                f"`{one.name}` {one.title}",
                _start(one),
                "yes" if one.axioms["complete"] else "not claimed",
            ]
            cells += [
                one.cost,
                "–"
                if one.measured is None
                else f"{one.measured.gradients:,} + {one.measured.values:,}",
            ]
            if results:
                cells += _on_the_photograph(results["methods"].get(one.name))
            if quality:
                own = quality["methods"].get(one.name, {})
                cells += [number(own[key]) if key in own else "–" for key in quality["columns"]]
            yield f"| {' | '.join(cells)} |"
    yield ""
    yield (
        f"Counted for one example with the defaults, on {ig.methods.counted_on()}. What is left to a tolerance depends on the problem: a real "
        "network takes more."
    )
    if results:
        yield "The photograph is that of the [gallery](../gallery.md), where methods are set up to take about a hundred gradients."
    if quality:
        yield quality["note"]


def _on_the_photograph(found: Results | None) -> list[str]:
    if found is None:
        return ["–", "–", "–"]
    return [_gap(found), f"{found['gradients']:,}", f"{found['values']:,}"]


def _start(one: Published) -> str:
    own = [name for name in one.needs if name != one.start]
    also = f"; needs {', '.join(f'`{name}`' for name in own)}" if own else ""
    return ("as the method inside" if one.wraps else STARTS[one.start]) + also


def _families() -> Iterator[tuple[str, list[Published]]]:
    for family, cards in groupby(ig.methods.known().values(), lambda one: one.family):
        yield family, list(cards)


def family() -> Iterator[str]:
    """The block of README.md: everything that is published, by what it does."""
    rows = [(kind, {card.name: card.title for card in cards}) for kind, cards in _families()]
    rows += BESIDE
    yield f"{sum(len(named) for _, named in rows)} published methods:"
    yield ""
    yield "| what it does | by name |"
    yield "|---|---|"
    for kind, named in rows:
        yield f"| {kind} | {', '.join(f'`{name}` {title}' for name, title in named.items())} |"


# --- metrics ----------------------------------------------------------------------------------------------------------


def measures() -> Iterator[str]:
    """The block of docs/usage/metrics.md."""
    yield "| metric | better | what it says |"
    yield "|---|---|---|"
    families: dict[str, list[tuple[str, type[ig.metrics.Metric]]]] = {}
    for name, cls in ig.metrics.known().items():
        families.setdefault(cls.__module__, []).append((name, cls))
    for module, members in families.items():
        family = (sys.modules[module].__doc__ or "").splitlines()[0].rstrip(".")
        yield f"| *{family}* | | |"
        for name, cls in members:
            yield f"| `{name}` | {'higher' if cls.higher else 'lower'} | {_said(cls)} |"


def _said(cls: type) -> str:
    """The first line of a docstring, without what the second column says."""
    said = (
        inspect.cleandoc(cls.__doc__ or "").splitlines()[0].replace("``", "`").replace("|", "\\|")
    )
    return re.sub(r" (Higher|Lower) is better\.", "", said)


# --- numbers in prose -------------------------------------------------------------------------------------------------

NUMBERED = tuple(DOCS / "usage" / name for name in ("which-method.md", "text.md", "weightings.md"))
_MARK = re.compile(r"<!--= (.*?) -->(.*?)<!--/-->", re.S)


def numbered(page: str, results: Path) -> str:
    """The page with every marked number exchanged for what the results say. Errors: ``KeyError`` for what they do not know."""
    return _MARK.sub(
        lambda found: f"<!--= {found[1]} -->{found_number(found[1], results)}<!--/-->", page
    )


def found_number(path: str, results: Path) -> str:
    """The number that a path such as suite/run/metric/method/mean names, in words."""
    suite, run, *rest = path.split("/")
    if run.endswith(".json"):
        return _of_file(json.loads((results / suite / run).read_text("utf-8")), rest)
    told = json.loads((results / suite / "results.json").read_text("utf-8"))
    claims, tables = told["claims"], told["runs"]
    if rest[0] in ("whole", "rivals"):  # parts of the study with claims of their own
        tables = told[rest[0]]
        claims, rest = tables[run]["claims"], rest[1:]
    if rest == ["examples"]:
        return str(tables[run]["examples"])
    if rest == ["held out", "examples"]:
        return str(tables[run]["held out"]["examples"])
    metric, who, what = rest
    method, _, than = who.partition(">")
    if metric == "held out":
        return _judged(told["runs"][run]["judged"], method, than, what)
    if metric == "carried":  # chosen on a row, judged by a column
        cell = told["runs"][run]["carried"]["cells"][who][f"{what}, signed"]
        return signed_percent(cell["share"])
    if than:
        keys = {"run": run, "metric": metric, "method": method, "than": than}
        claim = next(
            (one for one in claims if all(one[key] == value for key, value in keys.items())),
            None,
        )
        if claim is None:
            raise KeyError(path)
        if what == "detectable":  # results of earlier days do not say
            return percent(claim["detectable"], decimals=0)
        if what.startswith("difference"):
            unit = claim["difference"]
            interval = f"{number(unit['low'], signed=True)} to {number(unit['high'], signed=True)}"
            return interval if "interval" in what else number(unit["mean"], signed=True)
        return {
            "share": signed_percent(claim["share"]),
            "interval": f"{signed_percent(claim['low'])} to {signed_percent(claim['high'])}",
            "wins": percent(claim["wins"], decimals=0),
            "examples": str(claim["examples"]),
            "verdict": claim["verdict"],
        }[what]
    if what in ("gradients", "gap"):
        cost = tables[run]["costs"][method][what]
        return count(cost) if what == "gradients" else percent(cost, decimals=0)
    one = next(
        (
            one
            for one in tables[run]["summaries"]
            if (one["method"], one["metric"]) == (method, metric)
        ),
        None,
    )
    if one is None:
        raise KeyError(path)
    return {
        "mean": number(one["mean"]),
        "interval": f"{number(one['low'])} to {number(one['high'])}",
    }[what]


def _of_file(value: Any, keys: list[str]) -> str:
    """What stands under these keys, one in the other; the interval of a comparison stands as low and high."""
    for key in keys:
        if key == "interval":
            return f"{signed_percent(value['low'])} to {signed_percent(value['high'])}"
        value = value[key]
    if keys[-1] == "share":
        return signed_percent(value)
    if keys[-1] in ("wins", "detectable"):
        return percent(value, decimals=0)
    return str(value) if isinstance(value, int | str) else number(value)


def _judged(judged: Results, method: str, than: str, what: str) -> str:
    """What was said once of held-out examples: the gain of the method that had been chosen over another."""
    if judged["chosen"] != method:
        raise KeyError(f"{method} was not judged, but {judged['chosen']}")
    gain = judged["against"][than]
    return {
        "share": signed_percent(gain["mean"]),
        "interval": f"{signed_percent(gain['low'])} to {signed_percent(gain['high'])}",
        "p": number(gain["p"]),
    }[what]


# --- pages ------------------------------------------------------------------------------------------------------------


def read(file: Path) -> Results | None:
    """Results that are kept as data, where there are any."""
    return json.loads(file.read_text("utf-8")) if file.exists() else None


def quality_of(told: Results) -> Results:
    """Mean scores by method and metric, from the results of a suite; of several settings of a method the first counts."""
    name, run = next((name, run) for name, run in told["runs"].items() if "summaries" in run)
    published = {label: text.split("(")[0] for label, text in reversed(run["methods"].items())}
    labels = {method: label for label, method in published.items()}
    means = {(one["method"], one["metric"]): one["mean"] for one in run["summaries"]}
    kept = {
        method: {
            metric: mean for metric in run["metrics"] if (mean := means[label, metric]) is not None
        }
        for method, label in labels.items()
    }
    arrows = {
        metric: f"{metric} {'↑' if run['higher'][metric] else '↓'}" for metric in run["metrics"]
    }
    note = (
        f"Quality: means over {run['examples']} photographs of the [suite `{told['suite']}`](../results/{told['suite']}/results.md), run {name}, at about fifty "
        "gradients each; its tables have intervals, controls, and which differences are more than chance. Few are."
    )
    return {"columns": arrows, "methods": kept, "note": note}


def blocks() -> dict[str, str]:
    """What stands between the marks of each page."""
    results, told, shown = read(GALLERY), read(QUALITY), read(EXAMPLES)
    made = {"methods": "\n".join(choices(results, quality_of(told) if told else None))}
    made["metrics"] = "\n".join(measures())
    made["family"] = "\n".join(family())
    if results:
        made["gallery"] = "\n".join(gallery(results))
    if shown:
        made["examples"] = "\n".join(examples(shown))
    return made


def written(page: str, mark: str, block: str) -> str:
    """The page with the block between its marks exchanged."""
    found = re.compile(rf"<!-- {mark} -->.*?<!-- /{mark} -->", re.S)
    if not found.search(page):
        raise ValueError(f"The page has no <!-- {mark} --> … <!-- /{mark} -->.")
    return found.sub(lambda _: f"<!-- {mark} -->\n{block}\n<!-- /{mark} -->", page)


def rewritten(page: str, marks: Iterable[str], made: dict[str, str]) -> str:
    """The page with all of its blocks exchanged that are made."""
    for mark in marks:
        if mark in made:
            page = written(page, mark, made[mark])
    return page


def stale() -> list[Path]:
    """Pages that are not what would be written."""
    made = blocks()
    texts = {page: page.read_text("utf-8") for page in PAGES}
    found = [page for page, text in texts.items() if rewritten(text, PAGES[page], made) != text]
    proses = {page: page.read_text("utf-8") for page in NUMBERED}
    return found + [
        page for page, prose in proses.items() if numbered(prose, DOCS / "results") != prose
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--gallery", type=Path, help="take in what the command line has written there"
    )
    parser.add_argument(
        "--examples",
        nargs="*",
        metavar="NAME",
        help="run the scripts in examples/, or some of them",
    )
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    if asked.check:
        if found := stale():
            sys.exit(
                f"{', '.join(map(str, found))}: not what is known of the methods now; run make docs."
            )
        return
    if asked.gallery:
        GALLERY.parent.mkdir(exist_ok=True)
        GALLERY.write_text(
            json.dumps(taken_in(asked.gallery), indent=1, ensure_ascii=False) + "\n", "utf-8"
        )
        for end, picture in (("methods", PICTURE), ("methods-same-scale", SAME_SCALE)):
            drawn = Image.open(next(asked.gallery.glob(f"*-{end}.png"))).convert("RGB")
            # A palette would save half, and spoil the photograph.
            size = [round(0.8 * side) for side in drawn.size]
            drawn.resize(size, Image.Resampling.LANCZOS).save(picture, optimize=True)
    if asked.examples is not None:
        run_examples(asked.examples)
    made = blocks()
    for page, marks in PAGES.items():
        page.write_text(rewritten(page.read_text("utf-8"), marks, made), "utf-8")
    for page in NUMBERED:
        page.write_text(numbered(page.read_text("utf-8"), DOCS / "results"), "utf-8")


if __name__ == "__main__":
    main()
