"""A comparison: the raw scores with their summaries, differences and verdicts."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import write_text
from ..core.formatting import interval, json_ready, number, p_value
from ..core.optional import room
from ..errors import InputError
from ..integration.attribution import INCOMPLETE, Attribution
from .baseline_sensitivity import Sensitivity
from .map_agreement import MapAgreement
from .scores import Numbers, Scores
from .statistics import Difference, Inference, Summary, Verdict, differences, summaries, verdict

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Comparison:
    """Scores of methods by metrics on the same examples, with statistics, figures and a page.

    Args:
        scores: the raw results, a ``Scores``.
        reference: the method that the others are held against.
        sure: level, draws and seed of intervals and tests.
        notes: how each method was set up, in words.
        agreement: between the maps of methods, where it was measured.
        sensitivity: to the baseline, where others were tried.
        shown: attributions of one example by method, for pictures; not saved.
    """

    scores: Scores
    reference: str
    sure: Inference = Inference()
    notes: Mapping[str, str] = field(default_factory=dict)
    agreement: MapAgreement | None = None
    sensitivity: Sensitivity | None = None
    shown: Mapping[str, Attribution] = field(default_factory=dict)

    # --- statistics -----------------------------------------------------------------------------------------------

    @cached_property
    def summaries(self) -> dict[tuple[str, str], Summary]:
        """By (method, metric)."""
        return {
            (summary.method, summary.metric): summary
            for summary in summaries(self.scores, self.sure)
        }

    @cached_property
    def differences(self) -> dict[tuple[str, str], Difference]:
        """Against the reference, by (method, metric)."""
        return {
            (difference.method, difference.metric): difference
            for difference in differences(self.scores, self.reference, self.sure)
        }

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """By metric."""
        return {metric: verdict(self.scores, metric, self.sure) for metric in self.scores.metrics}

    def verdict(self, metric: str) -> Verdict:
        """The verdict by one metric. Raises ``UnknownName`` for another metric."""
        self.scores.of(metric)
        return self.verdicts[metric]

    def winner(self, metric: str) -> str | None:
        """The method that is significantly better than all others by a metric; None where there is
        none, and ``verdict(metric).words`` says why."""
        return self.verdict(metric).winner

    def against(self, reference: str) -> Comparison:
        """The same scores, with differences from another method. Raises ``UnknownName``."""
        self.scores.select(methods=[reference])
        return dataclasses.replace(self, reference=reference)

    def table(self) -> list[dict[str, Any]]:
        """All results as plain data, a row for each metric and method: mean with interval,
        difference from the reference, cost.

        Costs are means per example. ``incomplete`` is how many maps miss more than a tenth of the
        change of F.
        """
        return [
            self._row(metric, m)
            for metric in self.scores.metrics
            for m in range(len(self.scores.methods))
        ]

    def _row(self, metric: str, m: int) -> dict[str, Any]:
        scores, method = self.scores, self.scores.methods[m]
        summary = self.summaries[method, metric]
        row: dict[str, Any] = {
            "metric": metric,
            "higher_is_better": scores.is_higher(metric),
            "method": method,
            "control": method in scores.controls,
            **{
                name: getattr(summary, name)
                for name in ("n", "missing", "mean", "low", "high", "median")
            },
            "quantiles": list(summary.quantiles),
        }
        difference = self.differences.get((method, metric))
        for name in ("mean", "low", "high", "p", "corrected", "wins", "wins_low", "wins_high"):
            key = {"mean": "difference", "low": "difference_low", "high": "difference_high"}.get(
                name, name
            )
            row[key] = None if difference is None else getattr(difference, name)
        row |= {
            name: _known_mean(getattr(scores, name)[m])
            for name in ("gradients", "rows", "seconds", "gap", "error")
        }
        row["incomplete"] = int((scores.gap[m] > INCOMPLETE).sum())
        return row

    def cost(self) -> dict[str, tuple[float, float, float]]:
        """Mean gradients, rows and seconds per example, by method."""
        numbers = (self.scores.gradients, self.scores.rows, self.scores.seconds)
        means = zip(
            *(np.array([_known_mean(row) for row in costs]) for costs in numbers), strict=True
        )
        return {
            name: (float(a), float(b), float(c))
            for name, (a, b, c) in zip(self.scores.methods, means, strict=True)
        }

    # --- printing -------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(self.scores.methods)} by {', '.join(self.scores.metrics)} on {len(self.scores)} examples>"

    def __str__(self) -> str:
        return "\n\n".join(self._block(metric) for metric in self.scores.metrics)

    def _block(self, metric: str) -> str:
        level = f"{100 * self.sure.level:g} %"
        head = [
            "method",
            "mean",
            level,
            f"− {self.reference}",
            level,
            "p",
            "better on",
            "gradients",
            "rows",
            "s",
        ]
        cells = [self._cells(row) for row in self.table() if row["metric"] == metric]
        better = "higher" if self.scores.is_higher(metric) else "lower"
        title = f"{metric} ({better} is better), {len(self.scores)} example{'s' * (len(self.scores) != 1)}"
        return "\n".join([title, *_aligned([head, *cells]), self.verdicts[metric].words])

    def _cells(self, row: Mapping[str, Any]) -> list[str]:
        name = row["method"] + (" (control)" if row["control"] else "")
        cells = [name, number(row["mean"]), interval(row["low"], row["high"])]
        if row["difference"] is None:
            cells += ["", "", "", ""]
        else:
            wins = "–" if math.isnan(row["wins"]) else f"{100 * row['wins']:.0f} %"
            difference = (
                number(row["difference"], signed=True),
                interval(row["difference_low"], row["difference_high"]),
            )
            cells += [*difference, p_value(row["corrected"]), wins]
        spent = (row["gradients"], row["rows"])
        costs = ["–" if math.isnan(rows) else f"{rows:.0f}" for rows in spent]
        costs.append(f"{row['seconds']:.2g}")
        return [*cells, *costs] + ([f"{row['missing']} without a value"] if row["missing"] else [])

    def _repr_html_(self) -> str:
        return str(room("report.comparison").fragment(self))

    # --- pictures -------------------------------------------------------------------------------------------------

    def plot_curves(self, metric: str | None = None, **options: Any) -> Any:
        """Mean curves with their spread, of every metric that measures one; see
        ``report.comparison``. Needs integrand[plot].

        Args:
            metric: which metric; all of them that can be drawn so unless given.
            **options: of the picture: see ``integrand.report.comparison``.

        Returns:
            A matplotlib figure.
        """
        return room("report.comparison").plot_curves(self, metric, **options)

    def plot_boxes(self, metric: str | None = None, **options: Any) -> Any:
        """The distribution over examples of every method. Needs integrand[plot].

        Args:
            metric: which metric; the first unless given.
            **options: of the picture: see ``integrand.report.comparison``.

        Returns:
            A matplotlib figure.
        """
        return room("report.comparison").plot_boxes(self, metric, **options)

    def plot_pareto(self, metric: str | None = None, **options: Any) -> Any:
        """Quality against cost, with the methods that nothing beats in both. Needs
        integrand[plot].

        Args:
            metric: which metric; the first unless given.
            **options: of the picture: see ``integrand.report.comparison``.

        Returns:
            A matplotlib figure.
        """
        return room("report.comparison").plot_pareto(self, metric, **options)

    # --- disk -----------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, *, page: bool = True) -> None:
        """Write scores.parquet, comparison.json and, with ``page``, index.html.

        Args:
            folder: made if there is none.
            page: whether to write index.html.

        Raises:
            MissingExtra: without integrand[save], and for the page without integrand[report].
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        self.scores.to_parquet(place / "scores.parquet")
        if self.sensitivity is not None:
            self.sensitivity.scores.to_parquet(place / "baselines.parquet")
        write_text(place / "comparison.json", json.dumps(self._json(), indent=1, allow_nan=False))
        if page:
            write_text(place / "index.html", room("report.comparison").page(self))

    def _json(self) -> dict[str, Any]:
        record: dict[str, Any] = json_ready(
            {
                "format": _FORMAT,
                "reference": self.reference,
                "sure": dataclasses.asdict(self.sure),
                "notes": dict(self.notes),
                "verdicts": [
                    dataclasses.asdict(metric_verdict) for metric_verdict in self.verdicts.values()
                ],
                "table": self.table(),
                "agreement": None if self.agreement is None else dataclasses.asdict(self.agreement),
                "sensitivity": None
                if self.sensitivity is None
                else {
                    "baselines": self.sensitivity.baselines,
                    "methods": self.sensitivity.methods,
                    "ranks": self.sensitivity.ranks,
                },
                "about": self.scores.about,
            }
        )
        return record

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """Read what ``save`` wrote; pictures of maps are only in its page.

        Raises:
            InputError: for a folder without a comparison, or one of a newer integrand.
        """
        place = Path(folder)
        if not (place / "comparison.json").is_file():
            raise InputError(f"There is no comparison in {str(folder)!r}: no comparison.json.")
        header = json.loads((place / "comparison.json").read_text("utf-8"))
        if header["format"] > _FORMAT:
            raise InputError(
                f"{str(folder)!r} was written by a newer integrand: upgrade to read it."
            )
        agreed, moved = header["agreement"], header["sensitivity"]
        return cls(
            Scores.from_parquet(place / "scores.parquet"),
            header["reference"],
            Inference(**header["sure"]),
            header["notes"],
            agreed
            and MapAgreement(
                tuple(agreed["methods"]),
                _array(agreed["ranks"]),
                _array(agreed["first"]),
                agreed["top"],
            ),
            moved
            and Sensitivity(
                tuple(moved["baselines"]),
                tuple(moved["methods"]),
                _array(moved["ranks"]),
                Scores.from_parquet(place / "baselines.parquet"),
            ),
        )


# --- words ------------------------------------------------------------------------------------------------------------


def _aligned(rows: list[list[str]]) -> list[str]:
    columns = max(map(len, rows))
    filled = [row + [""] * (columns - len(row)) for row in rows]
    widths = [max(len(row[i]) for row in filled) for i in range(columns)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in filled
    ]


def _known_mean(values: Numbers) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _array(nested: object) -> Any:
    return np.array(nested, dtype=np.float64)  # null becomes NaN
