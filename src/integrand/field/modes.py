"""Gradients on or off, whatever the caller was doing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def gradients(on: bool) -> Iterator[None]:
    """Record operations for autograd, or do not; also inside the caller's no_grad and inference_mode."""
    with torch.inference_mode(False), torch.set_grad_enabled(on):
        yield
