"""What a call of a torch function consists of, as a mode that sees every call is given it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]
"""A function or method of torch, or the getter of a property such as ``Tensor.T``."""

Arguments = tuple[Any, ...]
"""What it was called with, in order."""

Keywords = dict[str, Any]
"""What it was called with, by name."""
