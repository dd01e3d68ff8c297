"""Texts of strangers, shown and never obeyed: control characters become signs that do nothing."""

from __future__ import annotations

_SIGNS: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(32) if chr(code) != "\n"},  # ␛ for ESC, ␇ for BEL
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), "�"),
    **dict.fromkeys(
        (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x61C), "�"
    ),  # turns of direction
    **dict.fromkeys((0x2028, 0x2029), " "),
}


def visible(text: str) -> str:
    """A text whose control characters are signs that show and do nothing; line ends stay.

    >>> visible("\\x1b[31mred\\x07")
    '␛[31mred␇'
    """
    return text.translate(_SIGNS)
