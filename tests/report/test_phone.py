"""Pages on a phone: nothing is wider than its 390 pixels but what scrolls by itself, and labels of scales stay apart."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import integrand as ig
from integrand.report import Case, page

pytest.importorskip("jinja2")
pytest.importorskip("PIL")
CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
    pytest.mark.usefixtures("quiet"),
]

LOOK = """
frame.onload = () => {
  const seen = frame.contentDocument, scales = [];
  for (const scale of seen.querySelectorAll('.scale')) {
    const [low, , high] = [...scale.children].map(child => child.getBoundingClientRect());
    scales.push(low.right <= high.left && high.right <= scale.parentElement.getBoundingClientRect().right + 1);
  }
  const numbers = [...seen.querySelectorAll('.cards td')].map(cell => cell.getBoundingClientRect());
  answer.textContent = JSON.stringify({
    wide: seen.scrollingElement.scrollWidth, scales: scales, inside: numbers.every(box => box.right <= WIDTH && box.left >= 0), cells: numbers.length});
};
"""


def looked_at(file: Path, width: int) -> dict[str, object]:
    """What a browser of that width makes of a page; a frame stands for the phone, because windows have a least width."""
    frame = file.with_name("frame.html")
    frame.write_text(
        f'<!doctype html><iframe id=frame src="{file.name}" style="width:{width}px;height:900px;border:0"></iframe>'
        f"<pre id=answer></pre><script>{LOOK.replace('WIDTH', str(width))}</script>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--allow-file-access-from-files", "--hide-scrollbars", "--virtual-time-budget=4000"]  # fmt: skip
    told = subprocess.run([str(CHROMIUM), *flags, f"--user-data-dir={file.parent / 'profile'}", "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=120, check=True)  # fmt: skip
    found: dict[str, object] = json.loads(
        re.search(r'<pre id="answer">(.*?)</pre>', told.stdout, re.S)[1]
    )
    return found


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(64, 3))  # fmt: skip


def test_an_explanation_fits(model: torch.nn.Module, tmp_path: Path) -> None:
    x = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    of = {"target": 0, "normalisation": ig.Normalisation.unit()}
    results = {
        "integrated": ig.explain(model, x, **of),
        "guided": ig.explain(model, x, method="guided", baseline="black", steps=5, **of),
        "weighted": ig.explain(
            model, x, method="weighted", baseline=["black", "white", "grey"], **of
        ),
    }
    case = Case(
        "a-picture-with-a-name-that-goes-on-and-on-and-on-without-an-end",
        [("a class with quite a long name", 0.9)],
        "logit of it",
        results,
    )
    (tmp_path / "page.html").write_text(page([case], title="model explained"))
    told = looked_at(tmp_path / "page.html", 390)
    assert told["wide"] == 390
    assert all(told["scales"])
    assert len(told["scales"]) >= 9
    assert told["inside"]
    assert told["cells"] == 27
    assert looked_at(tmp_path / "page.html", 1300)["wide"] == 1300


def test_a_comparison_fits(model: torch.nn.Module, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    x = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    made = ig.compare(
        model, x, target=0, methods=["integrated", "idgi"], normalisation=ig.Normalisation.unit()
    )
    made.save(tmp_path)
    told = looked_at(tmp_path / "index.html", 390)
    assert told["wide"] == 390
    assert told["inside"]
