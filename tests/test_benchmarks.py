"""The benchmarks are run by hand; what of them can go wrong without a long run is tested here."""

from __future__ import annotations

from benchmarks import memory


def test_memory_is_told_after_a_single_repeat(monkeypatch) -> None:
    """One number has no quartiles but itself."""
    monkeypatch.setattr(memory, "measured", lambda task, size, repeats: [size << 20] * repeats)
    first = memory.rows(1)[0]
    assert first.value == 100
    assert first.spread == (100, 100)
    assert "1000 MB and 10 MB" in str(first)
