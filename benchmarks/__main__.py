"""``make bench``: measure every line of the table side by side with its peers, and write it to docs/benchmarks.md.

    python -m benchmarks [NAME …] [--threads 1] [--repeats N] [--dry]

A benchmark is a file here with a function ``rows(repeats)``; without names all of them are run, which takes about a quarter of an hour. Others
(work_precision, weighted_vs_expected, ig2_rules, ig2_design, weighing) study something and are run by their own names. Lines that were not measured this time
keep their place in the table.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
from pathlib import Path

from .side_by_side import HEADER, begin, tell, versions

ROOT = Path(__file__).parent.parent
PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"


def measurable() -> list[str]:
    """The benchmarks that have lines in the table."""
    names = [
        module.name
        for module in pkgutil.iter_modules([str(Path(__file__).parent)])
        if module.name != "__main__"
    ]
    return [
        name for name in names if hasattr(importlib.import_module(f"benchmarks.{name}"), "rows")
    ]


def written(page: str, name: str, lines: list[str], measured: str) -> str:
    """The page with the table of one benchmark exchanged, or added at the end."""
    doc = (importlib.import_module(f"benchmarks.{name}").__doc__ or "").splitlines()[0]
    block = "\n".join(
        [
            f"<!-- {name} -->",
            f"**`{name}`** {doc}",
            "",
            HEADER,
            *lines,
            "",
            f"*{measured}*",
            f"<!-- /{name} -->",
        ]
    )
    found = re.compile(rf"<!-- {name} -->.*?<!-- /{name} -->", re.S)
    if found.search(page):
        return found.sub(lambda _: block, page)
    return f"{page.rstrip()}\n\n{block}\n"


def summary(page: str) -> str:
    """Every line of the page that has a goal, one row each."""
    rows = ["| | measured | goal |", "|---|---|---|"]
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) >= 5 and cells[3] not in ("", "goal"):
            missed = " **(missed)**" if "missed" in cells[4] else ""
            rows.append(f"| {cells[0]} | {cells[1]}{missed} | {cells[3]} |")
    return "\n".join(rows)


def summarised(readme: str, page: str) -> str:
    """The README with its table of goals exchanged."""
    block = f"<!-- benchmarks -->\n{summary(page)}\n<!-- /benchmarks -->"
    return re.sub(r"<!-- benchmarks -->.*<!-- /benchmarks -->", lambda _: block, readme, flags=re.S)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="one of: " + ", ".join(measurable())
    )
    parser.add_argument("--threads", type=int, default=1, help="torch.set_num_threads")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print only")
    asked = parser.parse_args()
    begin(asked.threads)
    for name in asked.names or measurable():
        print(f"\n{name}", flush=True)
        try:
            rows = importlib.import_module(f"benchmarks.{name}").rows(asked.repeats)
        except ImportError as error:
            print(f"  left out: {error}")
            continue
        tell(rows)
        measured = f"{asked.repeats} repeats, torch.set_num_threads({asked.threads}); {versions()}"
        if not asked.dry:
            PAGE.write_text(
                written(PAGE.read_text("utf-8"), name, list(map(str, rows)), measured), "utf-8"
            )
            README.write_text(
                summarised(README.read_text("utf-8"), PAGE.read_text("utf-8")), "utf-8"
            )


if __name__ == "__main__":
    main()
