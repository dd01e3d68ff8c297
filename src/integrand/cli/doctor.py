"""``integrand doctor``: versions, extras, devices, and one attribution with a known answer.

F(z) = z_1² z_2 z_3³  from 0:   feature i gets F(x) · m_i / Σ m      (2, 1 and 3 sixths of F)
"""

from __future__ import annotations

import platform
import re
import time
from dataclasses import dataclass
from importlib import metadata

import torch
from rich.table import Table
from rich.text import Text

from ..fields.analytic import Monomial
from ..methods import integrated
from ..rules import GaussLegendre
from . import console

_TOLERANCE = 1e-12
_CONTRIBUTORS = frozenset({"dev", "test"})
_BY_CHOICE = {"llm-demo"}
"""Extras under a licence of their own, which nobody is told to install in passing."""


@dataclass(frozen=True)
class Check:
    """The self-check on one device: how far from the known answer, relative to it, and how long it
    took."""

    device: str
    error: float
    seconds: float

    @property
    def passed(self) -> bool:
        return self.error <= _TOLERANCE


def run() -> int:
    """Print what was found. Returns the exit status: 1 if a self-check failed."""
    terminal = console.out()
    terminal.print(_versions())
    installed = extras()
    terminal.print(_extras(installed))
    absent = [
        extra
        for extra, packages in installed.items()
        if None in packages.values() and extra not in _BY_CHOICE
    ]
    if absent:
        terminal.print(
            f"What is missing comes with: pip install 'integrand[{','.join(absent)}]'",
            soft_wrap=True,
        )
    checks = [self_check(device) for device in _devices()]
    for check in checks:
        words = ("passed", "green") if check.passed else ("FAILED", "bold red")
        how = f" (IG of a monomial is within {check.error:.0e} of its closed form; {check.seconds:.2f} s)"
        terminal.print(Text.assemble(f"Self-check on {check.device}: ", words, how))
    return 0 if all(check.passed for check in checks) else 1


def self_check(device: str) -> Check:
    """Integrated Gradients of a monomial against its closed form, in float64."""
    began = time.perf_counter()
    powers = torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64, device=device)
    x = torch.tensor([[0.5, -1.5, 2.0]], dtype=torch.float64, device=device)
    attribution = integrated(rule=GaussLegendre(4))(Monomial(powers), x)
    known = x.pow(powers).prod(1, keepdim=True) * powers / powers.sum()
    error = float((attribution.values - known).abs().max() / known.abs().max())
    return Check(device, error, time.perf_counter() - began)


def _devices() -> list[str]:
    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def _versions() -> Table:
    table = console.table("package", "version")
    table.add_row("integrand", metadata.version("integrand"))
    table.add_row(
        "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    table.add_row("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    table.add_row("numpy", metadata.version("numpy"))
    graphics = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    table.add_row("cuda", ", ".join(graphics) or "no device")
    return table


def _extras(extras: dict[str, dict[str, str | None]]) -> Table:
    table = console.table("extra", "state", "packages")
    for extra, packages in extras.items():
        missing = [name for name, version in packages.items() if version is None]
        state = (
            Text(f"missing {', '.join(missing)}", "yellow")
            if missing
            else Text("installed", "green")
        )
        table.add_row(
            extra,
            state,
            ", ".join(f"{name} {version}" for name, version in packages.items() if version),
        )
    return table


def extras() -> dict[str, dict[str, str | None]]:
    """What users may install beside the core: extra → package → its version, None where it is
    missing."""
    installed: dict[str, dict[str, str | None]] = {}
    for requirement in metadata.requires("integrand") or ():
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"""extra\s*==\s*['"]([\w.-]+)['"]""", requirement)
        if name and extra and extra[1] not in _CONTRIBUTORS:
            installed.setdefault(extra[1], {})[name[0]] = _version(name[0])
    return installed


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
