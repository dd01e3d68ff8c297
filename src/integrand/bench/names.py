"""Names that suite files may use: those of expressions, the peers, and attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..expressions import names as expressions
from ..expressions.names import metric as metric
from . import attention, peers

_PEERS = expressions.parts_in(peers)
_CONTROLS = {part.__name__: part for part in (attention.AttentionRollout, attention.LastAttention)}


def parts() -> dict[str, Any]:
    """Every part, every peer and every control of suites by its name."""
    return {**_PEERS, **_CONTROLS, **expressions.parts()}


def method(text: str, words: Mapping[str, Any]) -> Any:
    """Read a method expression, as ``expressions.names.method``; peers and attention too."""
    return expressions.method(text, {**_PEERS, **_CONTROLS, **words})
