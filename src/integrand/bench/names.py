"""Names that suite files may use: those of expressions, and the peers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..expressions import names as expressions
from ..expressions.names import metric as metric
from . import peers

_PEERS = expressions.parts_in(peers)


def parts() -> dict[str, Any]:
    """Every part and every peer by its name."""
    return {**_PEERS, **expressions.parts()}


def method(text: str, words: Mapping[str, Any]) -> Any:
    """Read a method expression, as ``expressions.names.method``; peers too."""
    return expressions.method(text, {**_PEERS, **words})
