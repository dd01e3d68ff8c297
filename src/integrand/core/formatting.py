"""Number formatting, the same in tables, figures, notebooks, pages and on the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

NOTHING = "–"
"""What stands where there is no number."""


def number(value: float | None, *, signed: bool = False) -> str:
    """Three significant digits, a true minus, no bare exponent for everyday sizes.

    >>> number(-0.01234), number(1234567), number(0), number(float("nan")), number(0.5, signed=True)
    ('−0.0123', '1,234,567', '0', '–', '+0.500')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    sign = "+" if signed else ""
    text = f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}#.3g}".rstrip(".")
    return text.replace("-", "−")


def beside(value: float, larger: float) -> str:
    """A number that is read beside a larger one: what is lost in the latter's digits is nothing.

    >>> beside(-0.012, 9.9), beside(4.5e-7, 9.9), beside(4.5e-7, 2e-5)
    ('−0.0120', '0', '4.50e−07')
    """
    return "0" if abs(value) < 5e-4 * abs(larger) else number(value)


def percent(value: float | None, *, decimals: int = 1) -> str:
    """A fraction in per cent; beyond a thousand the digits say nothing more.

    >>> percent(0.1234), percent(50.0), percent(0.056, decimals=0)
    ('12.3 %', '> 999 %', '6 %')
    """
    if value is None or math.isnan(value):
        return NOTHING
    return "> 999 %" if value >= 10 else f"{100 * value:.{decimals}f} %".replace("-", "−")


def signed_percent(value: float | None) -> str:
    """A difference in whole per cent.

    >>> signed_percent(-0.056), signed_percent(0.2)
    ('−6 %', '+20 %')
    """
    return (
        NOTHING
        if value is None or not math.isfinite(value)
        else f"{100 * value:+.0f} %".replace("-", "−")
    )


def interval(low: float, high: float) -> str:
    """Both ends, or a dash where there is no interval.

    >>> interval(-0.5, 2), interval(float("nan"), 1)
    ('[−0.500, 2.00]', '–')
    """
    return NOTHING if math.isnan(low) else f"[{number(low)}, {number(high)}]"


def p_value(p: float) -> str:
    """Three decimals where they matter.

    >>> p_value(0.00002), p_value(0.0412), p_value(0.412)
    ('< 0.001', '0.041', '0.41')
    """
    if math.isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(value: float | None) -> str:
    """How many on average: whole numbers from ten on, one decimal below; nothing where nobody
    counted.

    >>> count(1234.5), count(3.25), count(4.0), count(0.01), count(float("nan"))
    ('1,234', '3.2', '4', '< 0.1', '–')
    """
    if value is None or math.isnan(value):
        return NOTHING
    if 0 < value < 0.05:
        return "< 0.1"
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def two_decimals(value: float) -> str:
    """Two decimals, no negative zero: coefficients of correlation.

    >>> two_decimals(-0.001), two_decimals(-0.25)
    ('0.00', '−0.25')
    """
    return f"{round(float(value), 2) + 0.0:.2f}".replace("-", "−")


def shortened(text: str, longest: int) -> str:
    """At most ``longest`` characters; an ellipsis stands for the rest.

    >>> shortened("integrated", 6)
    'integ…'
    """
    return text if len(text) <= longest else text[: longest - 1] + "…"


def printable(text: str) -> str:
    r"""A text that can be written in UTF-8: what a file's name holds beside that becomes a sign each.

    >>> printable("caf\udce9.png")
    'caf�.png'
    """
    return _SURROGATES.sub("�", text)


_SURROGATES = re.compile("[\ud800-\udfff]")


def duration(seconds: float) -> str:
    """A time in words, in its two largest units.

    >>> duration(12.4), duration(125), duration(3700), duration(200_000)
    ('12 s', '2 min', '1 h 2 min', '2 d 8 h')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def plain_cell(text: str) -> str:
    """A text as a cell of a CSV file: what a spreadsheet would take for a formula is marked as
    text.

    Names of files are read back from there, so nothing else is changed; texts of strangers that are
    only shown go through ``cells.cell``, which also takes control characters out.

    >>> plain_cell("=1+1"), plain_cell("cat.jpg")
    ("'=1+1", 'cat.jpg')
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "|")) else text


def json_ready(value: object) -> Any:
    """Numbers, texts, lists and dicts, as JSON has them; what is no finite number is None.

    >>> json_ready({"mean": float("nan"), 3: (1, 2.5)})
    {'mean': None, '3': [1, 2.5]}
    """
    if isinstance(value, Mapping):
        return {str(name): json_ready(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray):
        return json_ready(value.tolist())
    if isinstance(value, list | tuple):
        return [json_ready(entry) for entry in value]
    if isinstance(value, np.generic):
        return json_ready(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
