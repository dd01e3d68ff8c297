"""The page of all pictures: what is on it, and what its script does in a browser."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("jinja2")

from integrand.report.overview import MapEntry, PictureEntry, overview

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)


def entry(name: str, gap: float, label: str, *flags: str) -> PictureEntry:
    maps = (MapEntry("integrated", "Integrated Gradients", "", f"{gap}", "–", "12", "incomplete" in flags),)  # fmt: skip
    keys = {"gap": gap, "probability": 0.5, "error": math.nan}
    return PictureEntry(name, name, f"{name}.html", "", label, "50 %", maps=maps, flags=flags, keys=keys)  # fmt: skip


ENTRIES = [
    entry("b10", 0.2, "cat", "incomplete"),
    entry("b9", 0.01, "dog"),
    PictureEntry("a", "a", problems=("it is <b>torn</b>",), flags=("failed",), keys={"gap": math.nan}),
    entry("c", math.inf, "Ant", "incomplete", "not converged"),
]  # fmt: skip


def test_flags_are_counted_and_reasons_told() -> None:
    text = overview(ENTRIES, title="All", facts=["4 pictures"], files=["summary.csv"], settings={"tol": "0.05"})  # fmt: skip
    assert re.findall(r"</span> ([a-z ]+ \d)</button>", text) == ["failed 1", "incomplete 2", "not converged 1"]  # fmt: skip
    assert "it is &lt;b&gt;torn&lt;/b&gt;" in text
    assert 'data-gap="Infinity"' in text
    assert 'data-error=""' in text
    assert text.count('href="a.html"') == 0
    assert '<a href="b9.html">b9</a>' in text
    assert "▲ 0.2" in text
    assert "<td>tol</td>" in text
    assert "failed" not in overview([ENTRIES[1]], title="All").partition("<div class=\"cardgrid\">")[0].partition("<body>")[2]  # fmt: skip


def test_nothing_is_fetched() -> None:
    text = overview(ENTRIES, title="All")
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)
    assert text.count("<script") == text.count('<script type="module">') == 1


ACT = """
frame.onload = () => {
  const page = frame.contentDocument, told = {};
  const order = () => [...page.querySelectorAll('.picture')].filter(card => !card.hidden).map(card => card.id).join(' ');
  const choose = value => { sort.value = value; sort.dispatchEvent(new Event('change')); return order(); };
  const sort = page.querySelector('#sort'), turn = page.querySelector('#turn'), search = page.querySelector('input');
  setTimeout(() => {
    told.first = order();
    for (const key of ['gap', 'name', 'label']) told[key] = choose(key);
    turn.click();
    told.down = choose('gap');
    page.querySelector('[data-flag="incomplete"]').click();
    told.incomplete = order();
    page.querySelector('[data-flag=""]').click();
    search.value = 'DOG'; search.dispatchEvent(new Event('input'));
    told.dog = order();
    told.shown = page.querySelector('.shown').textContent;
    told.wide = page.scrollingElement.scrollWidth;
    told.tools = !page.querySelector('.tools').hidden;
    answer.textContent = JSON.stringify(told);
  }, 500);
};
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_it_sorts_and_filters_in_a_browser(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(overview(ENTRIES, title="All"), "utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(f'<!doctype html><iframe id=frame src="index.html" style="width:390px;height:900px;border:0"></iframe><pre id=answer></pre><script>{ACT}</script>')  # fmt: skip
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--allow-file-access-from-files", "--virtual-time-budget=6000"]  # fmt: skip
    done = subprocess.run([str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=300, check=True)  # fmt: skip
    told = json.loads(re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.S)[1])
    assert told == {
        "first": "b10 b9 a c",
        "gap": "b9 b10 c a",  # what has none comes last
        "name": "a b9 b10 c",  # numbers in names are numbers
        "label": "c b10 b9 a",
        "down": "c b10 b9 a",
        "incomplete": "c b10",
        "dog": "b9",
        "shown": "1 of 4",
        "wide": 390,
        "tools": True,
    }
