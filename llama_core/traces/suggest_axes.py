"""Every way in which a tensor of some shape can hold an activation: axes in another order, or lying side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations

#: Axes whose size a map knows: of those that lie side by side only one may be another.
_KNOWN = frozenset("HKD")


def arrangements(axes: str, shape: Sequence[int], sizes: Mapping[str, int]) -> list[str]:
    """Patterns for einops, the plainest first: ``B S H D`` of shape [7, 64] may be ``S (H D)`` or ``S (D H)``.

    Args:
        axes: ours. shape: theirs. sizes: letter -> size, of all letters.
    """
    return sorted(dict.fromkeys(_patterns(axes.split(), tuple(shape), sizes)), key=lambda p: (unlike(p, axes), p))


def unlike(pattern: str, axes: str) -> tuple[int, int, int]:
    """How far a pattern is from our own axes: axes that changed places, axes side by side, axes left out."""
    letters = [letter for letter in pattern if letter.isalpha()]
    ours = axes.split()
    order = [ours.index(letter) for letter in letters if letter != "B" or letters[0] == "B"]
    swaps = sum(a > b for a, b in combinations(order, 2))
    return swaps, pattern.count("("), len(ours) - len(letters)


def _patterns(letters: list[str], shape: tuple[int, ...], sizes: Mapping[str, int]) -> Iterator[str]:
    alone = sizes["B"] == 1 and "B" in letters
    for order in permutations([letter for letter in letters if not alone or letter != "B"]):
        for groups in _side_by_side(order):
            places = [None, *range(len(groups) + 1)] if alone else [None]
            for place in places:
                dims = groups if place is None else [*groups[:place], ("B",), *groups[place:]]
                if _fits(dims, shape, sizes):
                    yield " ".join(group[0] if len(group) == 1 else f"({' '.join(group)})" for group in dims)


def _side_by_side(order: tuple[str, ...]) -> Iterator[list[tuple[str, ...]]]:
    """Every way to cut a sequence of axes into groups of neighbours, one dimension each."""
    for cuts in range(len(order)):
        for at in combinations(range(1, len(order)), cuts):
            edges = [0, *at, len(order)]
            groups = [order[a:b] for a, b in zip(edges, edges[1:], strict=False)]
            if all(len(g) == 1 or (len(set(g) - _KNOWN) <= 1 and "B" not in g) for g in groups):
                yield groups


def _fits(dims: list[tuple[str, ...]], shape: tuple[int, ...], sizes: Mapping[str, int]) -> bool:
    return len(dims) == len(shape) and all(
        math.prod(sizes[letter] for letter in group) == size for group, size in zip(dims, shape, strict=True)
    )
