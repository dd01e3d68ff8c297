"""Move the fragments of changelog.d/ into CHANGELOG.md: python scripts/collect_changelog.py VERSION

A fragment is changelog.d/<issue>.<added|changed|fixed>.md (see changelog.d/README.md). Everything
is checked before anything is written; the fragments are removed once the changelog holds them.
"""

import argparse
import datetime
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("added", "changed", "fixed")
NAME = re.compile(rf"([\w-]+)\.({'|'.join(KINDS)})\.md")


def entry(path: Path) -> tuple[str, str]:
    """The kind of a fragment and its line in the changelog."""
    name = NAME.fullmatch(path.name)
    text = path.read_text(encoding="utf-8").strip()
    if not name or not text:
        sys.exit(f"{path}: must be called <issue>.<{'|'.join(KINDS)}>.md and say something")
    issue, kind = name.groups()
    return kind, "- " + text.replace("\n", "\n  ") + (f" (#{issue})" if issue.isdecimal() else "")


def main() -> None:
    parser = argparse.ArgumentParser(description="Collect changelog.d/ into CHANGELOG.md.")
    parser.add_argument("version")
    parser.add_argument("--date", default=datetime.datetime.now(datetime.UTC).date().isoformat())
    args = parser.parse_args()
    changelog = ROOT / "CHANGELOG.md"
    fragments = sorted(p for p in (ROOT / "changelog.d").iterdir() if p.name != "README.md")
    entries = [entry(path) for path in fragments]
    head, mark, releases = changelog.read_text(encoding="utf-8").partition("\n## ")
    if not entries or f"\n## {args.version} (" in mark + releases:
        sys.exit(f"changelog.d/ is empty, or {changelog} already has {args.version}")
    parts = [head.rstrip(), f"## {args.version} ({args.date})"]
    for kind in KINDS:
        if lines := [line for k, line in entries if k == kind]:
            parts += [f"### {kind.capitalize()}", "\n".join(lines)]
    changelog.write_text("\n\n".join(parts) + "\n" + mark + releases, encoding="utf-8")
    for path in fragments:
        path.unlink()
    print(f"{len(fragments)} fragments collected under {args.version}")


if __name__ == "__main__":
    main()
