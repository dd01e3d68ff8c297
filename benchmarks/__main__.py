"""``make bench``: what can be measured here, and how."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path


def main() -> None:
    print("Benchmarks (python -m benchmarks.NAME --help says how to run each):\n")
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        doc = importlib.import_module(f"benchmarks.{module.name}").__doc__ if module.name != "__main__" else None
        if doc and hasattr(importlib.import_module(f"benchmarks.{module.name}"), "main"):
            print(f"  {module.name:24s} {doc.splitlines()[0]}")


if __name__ == "__main__":
    main()
