"""Texts that are nearly the same, across a whole corpus: groups by MinHash and locality-sensitive hashing (rensa).

Duty: which texts belong together. Texts are compared by the set of their character 5-grams, without case and
punctuation, so that any script works; what is the same in that form is one text. About 2 KB a distinct text.
Knows no tables and no audio. Its library (extra `datasets`) is loaded with the first text.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError, install

SHINGLE = 5  # characters
PERMUTATIONS = 64
BANDS = 16  # of 4 values: pairs of 80 % are found in 999 of 1,000 cases, those of 50 % in 640, and then looked at
SEED = 1


class TextGroups:
    """Takes texts one by one; `groups` says which of them are nearly the same."""

    def __init__(self, similarity: float) -> None:
        """`similarity` is the estimated share of common 5-grams (Jaccard) from which two texts belong together.

        UserError where rensa is not installed.
        """
        self._rensa = _library()
        self._similarity = similarity
        self._index = self._rensa.RMinHashLSH(threshold=similarity, num_perm=PERMUTATIONS, num_bands=BANDS)
        self._ids: dict[str, int] = {}
        self._signatures = np.empty((1024, PERMUTATIONS), np.uint32)
        self._parent: list[int] = []  # a union of groups is a tree; its root is the first text

    def add(self, text: str) -> int:
        """Return the number of the text: the same for the same text, the next for a new one."""
        plain = normalised(text)
        known = self._ids.get(plain)
        if known is not None:
            return known
        number = len(self._ids)
        self._ids[plain] = number
        self._parent.append(number)
        sketch = self._rensa.RMinHash(num_perm=PERMUTATIONS, seed=SEED)
        sketch.update(shingles(plain))
        if number == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.empty_like(self._signatures)])
        self._signatures[number] = sketch.digest()
        self._unite(number, self._index.query(sketch))
        self._index.insert(number, sketch)
        return number

    def groups(self) -> NDArray[np.int64]:
        """Return the group of each text, by its number: the number of the first text in it."""
        return np.array([self._root(number) for number in range(len(self._parent))], np.int64)

    def _unite(self, number: int, candidates: list[int]) -> None:
        if not candidates:
            return
        near = (self._signatures[candidates] == self._signatures[number]).mean(axis=1) >= self._similarity
        for other in np.asarray(candidates)[near].tolist():
            a, b = sorted((self._root(other), self._root(number)))
            self._parent[b] = a

    def _root(self, number: int) -> int:
        root = number
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[number] != root:  # the next way is short
            self._parent[number], number = root, self._parent[number]
        return root


def normalised(text: str) -> str:
    """Return the text without case, punctuation and doubled spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = (character if unicodedata.category(character)[0] in "LNM" else " " for character in folded)
    return " ".join("".join(kept).split())


def shingles(plain: str) -> list[str]:
    """Return the 5-grams of a text; a shorter one is its own."""
    return sorted({plain[at : at + SHINGLE] for at in range(max(1, len(plain) - SHINGLE + 1))})


def _library() -> Any:
    try:
        import rensa
    except ModuleNotFoundError as error:
        raise UserError("finding equal texts needs rensa, which is not installed", install("datasets")) from error
    return rensa
