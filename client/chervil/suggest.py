"""Did you mean ...?"""

from collections.abc import Iterable

#: How many typing slips away a name may be and still be what was meant.
DISTANCE = 2


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name within edit distance 2 that is nearest (the first in order of names), or None."""
    best: tuple[int, str] | None = None
    for candidate in sorted(known):
        if abs(len(candidate) - len(name)) <= DISTANCE:
            distance = edit_distance(name, candidate)
            # A name of two letters is two slips away from any other.
            if distance <= DISTANCE and distance < len(name) and (best is None or distance < best[0]):
                best = (distance, candidate)
    return None if best is None else best[1]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing: the end of a message."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def edit_distance(a: str, b: str) -> int:
    """Letters to insert, delete or replace to make one of the other (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != other))
    return row[-1]
