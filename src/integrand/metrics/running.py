"""Metrics over a data set, batch by batch: shards are measured independently and merged."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .base import Metric, as_metric
from .maps import Maps
from .task import Subject


@dataclass(frozen=True, eq=False)
class BatchScores:
    """The scores of B examples by one metric.

    Args:
        summary: (M,) per method.
        values: (M, B) per example, NaN where there is none.
        measured: (M, B, \\*t), from which both are computed.
        names: (M,) what the methods are called.
    """

    summary: Tensor
    values: Tensor
    measured: Tensor
    names: tuple[str, ...]


class Running:
    """A metric fed batch by batch: ``update``, ``compute``, ``reset``, and a ``merge`` that changes
    nothing.

        running = Running("deletion")
        for batch in batches: running.update(subject, maps)
        running.compute().summary

    Merging is laying examples side by side, so it is associative, and shards may be measured in any
    order or place.
    """

    def __init__(self, metric: str | Metric) -> None:
        self.metric = as_metric(metric)
        self.reset()

    def reset(self) -> None:
        """Forget every example."""
        self._measured: list[Tensor] = []
        self._names: tuple[str, ...] = ()

    def update(self, subject: Subject, maps: Maps) -> Tensor:
        """Measure a batch; its own values (M, B).

        Args:
            subject: a batch of examples.
            maps: their maps, by the same methods as before.
        """
        measured = self.metric.measure(subject, maps)
        self._add(measured.cpu(), maps.names)
        return self.metric.values(measured)

    def merge(self, *others: Running) -> Running:
        """A new one over the examples of this one and the others. Changes none of them."""
        merged = Running(self.metric)
        for shard in (self, *others):
            if shard.metric != self.metric:
                raise InputError(
                    f"Shards of two metrics do not merge: {self.metric!r} and {shard.metric!r}."
                )
            for measured in shard._measured:
                merged._add(measured, shard._names)
        return merged

    def compute(self) -> BatchScores:
        """The scores of all examples so far. Raises ``InputError`` where there are none."""
        if not self._measured:
            raise InputError(f"{self.metric.name} has seen no example yet: call update first.")
        measured = torch.cat(self._measured, 1)
        return BatchScores(
            self.metric.summary(measured), self.metric.values(measured), measured, self._names
        )

    def _add(self, measured: Tensor, names: tuple[str, ...]) -> None:
        if self._measured and names != self._names:
            raise InputError(
                f"The methods changed from {self._names} to {names}: one running metric judges the same ones."
            )
        if self._measured and measured.shape[2:] != self._measured[0].shape[2:]:
            raise InputError(
                f"Curves of {measured.shape[2:].numel()} and {self._measured[0].shape[2:].numel()} points do not merge: "
                "examples need the same number of features, or steps= below it."
            )
        self._measured.append(measured)
        self._names = names
