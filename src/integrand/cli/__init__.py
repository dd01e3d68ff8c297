"""The command line: ``integrand explain | compare | methods | cite | doctor``.

    __init__   the entry: whether the packages are there that the rest needs
    app        commands and options; turns errors into one line and an exit status
    explain    the work behind ``explain``: pictures in, maps and a page out
    compare    the work behind ``compare``: pictures and methods in, verdicts out
    doctor     the work behind ``doctor``
    pages      the folder that is written into, and the pages in it
    signals    Ctrl-C and SIGTERM
    console    results to stdout, progress and warnings to stderr

Exit status: 0 done, 1 done but something was skipped or found wrong, 2 not done because of what was
asked or met, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import sys

_NEEDS = frozenset({"click", "rich", "shellingham", "typer"})


def app_main() -> None:
    """What the ``integrand`` command runs."""
    try:
        from .app import app
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in _NEEDS:
            raise
        print(
            f"The command line needs the package {error.name!r}: install it with pip install 'integrand[cli]'.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    for stream in (sys.stdout, sys.stderr):
        # Formulas hold signs that not every terminal can show; a question mark is better than a
        # crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app()
