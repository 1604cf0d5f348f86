"""The cache for functions of a text."""

from __future__ import annotations

from sandbox.host.remembering import LONGEST, remembers_short_texts


def test_short_texts_are_asked_for_once_and_long_ones_every_time() -> None:
    asked: list[str] = []

    @remembers_short_texts
    def length(text: str) -> int:
        asked.append(text)
        return len(text)

    long = "x" * (LONGEST + 1)
    assert [length("a"), length("a"), length(long), length(long)] == [1, 1, LONGEST + 1, LONGEST + 1]
    assert asked == ["a", long, long]
