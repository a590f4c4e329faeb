"""Near-duplicate documents, found by their text alone.

Headings are no evidence: pages of one manual share them (grouping by heading text ties 409 of the 959 pages of the
LibreOffice help into one lump).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from datasketch import MinHash, MinHashLSH

from nearer.corpus.sameness import SHINGLE_CHARACTERS, Shingles, jaccard, shingles

PERMUTATIONS: Final = 128
_MARGIN: Final = 0.15
"""The LSH looks for pairs this far below the threshold, so that few are missed: with 128 permutations the estimate's
standard error is below 0.045. What it proposes is verified exactly."""


def group(
    documents: Iterable[tuple[str, str]], *, threshold: float, seed: int, size: int = SHINGLE_CHARACTERS
) -> dict[str, str]:
    """Put documents whose texts nearly repeat each other, directly or through others, into one group.

    Args:
        documents: (id, text) pairs with distinct ids.
        threshold: Jaccard similarity of the character shingles from which on two texts are near-duplicates, in (0, 1].
        seed: of the MinHash permutations (Broder 1997) that propose the pairs.
        size: characters of a shingle; fewer for texts as short as queries.

    Returns:
        document id → group id, in the order of the documents; a group is named by its smallest document id.
    """
    sets = {id_: shingles(text, size=size) for id_, text in documents}
    parents = {id_: id_ for id_ in sets}

    def root(id_: str) -> str:
        while parents[id_] != id_:
            parents[id_] = parents[parents[id_]]
            id_ = parents[id_]
        return id_

    lsh = MinHashLSH(threshold=max(0.05, threshold - _MARGIN), num_perm=PERMUTATIONS, weights=(0.2, 0.8))
    for id_, found in sets.items():
        if not found.size:
            continue
        signature = _signature(found, seed=seed)
        for other in sorted(lsh.query(signature)):
            low, high = sorted((root(id_), root(other)))
            if low != high and jaccard(found, sets[other]) >= threshold:
                parents[high] = low
        lsh.insert(id_, signature)
    return {id_: root(id_) for id_ in sets}


def _signature(found: Shingles, *, seed: int) -> MinHash:
    signature = MinHash(num_perm=PERMUTATIONS, seed=seed, hashfunc=int, scheme="affine32")
    signature.update_batch((found & np.uint64(0xFFFFFFFF)).tolist())
    return signature
