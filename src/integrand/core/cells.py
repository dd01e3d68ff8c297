"""Texts in cells of tables that spreadsheets open."""

from __future__ import annotations

import unicodedata

_FORMULA = "=+-@"


def cell(text: str) -> str:
    """A text that a spreadsheet shows and does not compute.

    What would be a formula begins with an apostrophe, and control characters, which could end the
    cell or steer a terminal, are spaces. What has to be read back as it was, such as the name of a
    file, goes through ``formatting.plain_cell``, which only marks formulas.

    Example:
        >>> cell("=HYPERLINK(A1)"), cell("two\\nlines"), cell("plain = plain")
        ("'=HYPERLINK(A1)", 'two lines', 'plain = plain')
    """
    plain = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)
    return f"'{plain}" if plain.lstrip().startswith(tuple(_FORMULA)) else plain
