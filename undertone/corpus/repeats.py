"""Exact and near repeats: MinHash and banding find candidates, exact Jaccard similarity decides.

Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman & Ullman,
"Mining of Massive Datasets", chapter 3. What is similar across the sides of a split is found without
chance: prefix filtering (Chaudhuri, Ganti & Kaushik 2006; Bayardo, Ma & Srikant 2007).
"""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

Numbers = NDArray[np.int64]

RECALL = 0.99  # of pairs that are just as similar as asked for; more for closer ones
HASHES = 128  # more would spare a few wrong candidates, which the exact check sorts out anyway
WINDOW = 32  # neighbours compared within a bucket, so that a full one costs its length, not its square
CHARACTERS = 2**18  # at a time: what is computed from them stays in a processor's cache
MEETINGS = 2**23  # of candidates at a time, so that they fit into memory


def groups(texts: Sequence[str], *, similarity: float, shingle: int, seed: int) -> Numbers:
    """A number for each text [n]: the same for texts that repeat each other, 0, 1, … as they appear.

    Texts with one `key` are exact repeats. Near repeats share at least `similarity` (Jaccard) of
    their keys' character shingles; a key shorter than `shingle` is a single one. Repeats of repeats
    are repeats. Which texts belong together doesn't depend on their order.
    """
    keys = [key(text) for text in texts]
    if not keys:
        return np.zeros(0, dtype=np.int64)
    distinct = sorted(set(keys))
    place = {text: index for index, text in enumerate(distinct)}
    component = _near(distinct, similarity, shingle, np.random.default_rng(seed))
    return numbered(component[[place[text] for text in keys]])


def across(
    texts: Sequence[str], side: Numbers, sides: int, *, floor: float, shingle: int
) -> NDArray[np.float64]:
    """How similar each text is to the most similar one of each side [n, sides].

    `side` [n] is a number below `sides`, -1 for a text that is on none. Jaccard as in `groups`, exact; 0
    below `floor`, for a text's own side and for a text on none. No pair at `floor` or above is missed.
    """
    found = np.zeros((len(texts), sides))
    rows = np.flatnonzero(side >= 0).tolist()
    if not rows:
        return found
    # A text that stands on a side many times is looked at once.
    written = [(key(texts[row]), int(side[row])) for row in rows]
    items = sorted(set(written), key=lambda item: item[1])
    place = {item: at for at, item in enumerate(items)}
    on = np.array([of for _, of in items])
    sets = _rarest_first([text for text, _ in items], shingle)
    sizes = np.diff(sets.indptr)
    prefixes = _prefixes(sets, sizes - np.ceil(floor * sizes - 1e-9).astype(np.int64) + 1)
    best = np.zeros((len(items), sides))
    for one in range(sides):
        later = np.flatnonzero(on > one)
        for left, right in _meetings(prefixes, np.flatnonzero(on == one), later):
            small, large = np.sort([sizes[left], sizes[right]], axis=0)
            close = small >= floor * large - 1e-9
            left, right = left[close], right[close]
            alike = _overlap(sets, left, right)
            alike[alike < floor - 1e-12] = 0
            np.maximum.at(best, (left, on[right]), alike)
            np.maximum.at(best, (right, on[left]), alike)
    found[rows] = best[[place[item] for item in written]]
    return found


def key(text: str) -> str:
    """What exact repeats have in common: letters, digits and emoji without case, one space between.

    A text with none of them stands for itself, so that '?!' and '...' don't repeat each other.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.translate(_KEPT).split()) or "".join(folded.split())


def banding(similarity: float) -> tuple[int, int]:
    """Bands and rows a band, such that a pair at `similarity` s meets in some band: 1-(1-s^r)^b ≥ 0.99.

    Of these the most rows a band that `HASHES` allow: the more rows, the fewer wrong candidates.
    """
    bands, rows = _bands(similarity, 1), 1
    while (more := _bands(similarity, rows + 1)) * (rows + 1) <= HASHES:
        bands, rows = more, rows + 1
    return bands, rows


def numbered(values: Numbers) -> Numbers:
    """The same partition of the rows, numbered 0, 1, … as each number first appears."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


class _Kept(dict[int, int | None]):
    """For `str.translate`: what becomes of a character, looked up once."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        category = unicodedata.category(character)
        kept: int | None = ord(" ")
        if category == "Cf" or "VARIATION SELECTOR" in unicodedata.name(character, ""):
            kept = None  # invisible: no space in its place
        elif category[0] in "LMN" or category == "So":  # marks are vowels in Indic scripts; So is emoji
            kept = code
        self[code] = kept
        return kept


_KEPT = _Kept()


def _bands(similarity: float, rows: int) -> int:
    return math.ceil(math.log(1 - RECALL) / math.log1p(-(similarity**rows)))


def _near(texts: list[str], similarity: float, shingle: int, rng: np.random.Generator) -> Numbers:
    """A component for each of the distinct `texts`."""
    bands, rows = banding(similarity)
    signatures = _signatures(texts, shingle, bands * rows, rng)
    weights = rng.integers(2**64, size=rows, dtype=np.uint64) | np.uint64(1)
    keys = [
        (signatures[:, band * rows : (band + 1) * rows] * weights).sum(axis=1, dtype=np.uint64)
        for band in range(bands)
    ]
    # Four standard errors below what is asked for, a true pair is missed once in 30,000.
    hopeless = similarity - 4 * math.sqrt(similarity * (1 - similarity) / (bands * rows))
    component = np.arange(len(texts), dtype=np.int64)
    for band, bucket in enumerate(keys):
        # By the next band's key within a bucket, so that what is alike stands within the window.
        order = np.lexsort((keys[(band + 1) % bands], bucket))
        bucket = bucket[order]
        for offset in range(1, min(WINDOW, len(texts) - 1) + 1):
            meets = np.flatnonzero(bucket[offset:] == bucket[:-offset])
            if not len(meets):
                break
            left, right = order[meets], order[meets + offset]
            apart = component[left] != component[right]
            left, right = left[apart], right[apart]
            likely = _agreement(signatures, left, right) >= hopeless
            left, right = left[likely], right[likely]
            alike = _jaccard(texts, left, right, shingle) >= similarity - 1e-12
            if alike.any():
                edges = (component[left[alike]], component[right[alike]])
                size = int(component.max()) + 1
                graph = csr_matrix((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(size, size))
                component = connected_components(graph, directed=False)[1].astype(np.int64)[component]
    return component


def _signatures(
    texts: list[str], shingle: int, hashes: int, rng: np.random.Generator
) -> NDArray[np.uint32]:
    """MinHash signatures [n, hashes], by multiplication and addition modulo 2^32."""
    factors = rng.integers(2**32, size=hashes, dtype=np.uint32) | np.uint32(1)
    shifts = rng.integers(2**32, size=hashes, dtype=np.uint32)
    signatures = np.empty((len(texts), hashes), dtype=np.uint32)
    lengths = np.array([max(len(text), shingle) for text in texts])
    for start, stop in _chunks(lengths, CHARACTERS):
        values, counts = _shingles(texts[start:stop], shingle)
        short = (values >> np.uint64(32)).astype(np.uint32)
        starts = np.cumsum(counts) - counts
        for column, (factor, shift) in enumerate(zip(factors, shifts, strict=True)):
            signatures[start:stop, column] = np.minimum.reduceat(short * factor + shift, starts)
    return signatures


def _agreement(signatures: NDArray[np.uint32], left: Numbers, right: Numbers) -> NDArray[np.float64]:
    """The share of hashes that each pair has in common: an estimate of its Jaccard similarity."""
    step = 2**14
    return np.concatenate(
        [np.zeros(0)]
        + [
            (signatures[left[at : at + step]] == signatures[right[at : at + step]]).mean(axis=1)
            for at in range(0, len(left), step)
        ]
    )


def _jaccard(texts: list[str], left: Numbers, right: Numbers, shingle: int) -> NDArray[np.float64]:
    """The Jaccard similarity of each pair of texts, exact but for collisions of 64-bit hashes."""
    similarity = np.empty(len(left))
    lengths = np.array(
        [len(texts[a]) + len(texts[b]) + 2 * shingle for a, b in zip(left, right, strict=True)]
    )
    for start, stop in _chunks(lengths, 8 * CHARACTERS):
        chosen, pairs = np.unique(np.stack([left[start:stop], right[start:stop]]), return_inverse=True)
        first, second = pairs.reshape(2, -1)
        sets = _sets([texts[index] for index in chosen], shingle)
        similarity[start:stop] = _shared(sets, first, second)
    return similarity


def _shared(sets: csr_matrix, left: Numbers, right: Numbers) -> NDArray[np.float64]:
    """The Jaccard similarity of each pair of rows."""
    sizes = np.diff(sets.indptr)
    both = np.asarray(sets[left].multiply(sets[right]).sum(axis=1)).ravel()
    return np.asarray(both / (sizes[left] + sizes[right] - both))


def _overlap(sets: csr_matrix, left: Numbers, right: Numbers) -> NDArray[np.float64]:
    """`_shared`, some of the pairs at a time."""
    similarity = np.empty(len(left))
    for start, stop in _chunks(np.diff(sets.indptr)[left] + np.diff(sets.indptr)[right], MEETINGS):
        similarity[start:stop] = _shared(sets, left[start:stop], right[start:stop])
    return similarity


def _sets(texts: list[str], shingle: int) -> csr_matrix:
    """Which shingles each text holds, 0 or 1 [n, shingles]."""
    values, counts = _shingles(texts, shingle)
    vocabulary, columns = np.unique(values, return_inverse=True)
    ends = np.concatenate([[0], np.cumsum(counts)])
    sets = csr_matrix(
        (np.ones(len(values), dtype=np.int32), columns, ends), shape=(len(texts), len(vocabulary))
    )
    sets.sum_duplicates()
    sets.data[:] = 1
    return sets


def _rarest_first(texts: list[str], shingle: int) -> csr_matrix:
    """`_sets`, its columns from the shingle that fewest texts hold to the one that most do."""
    sets = _sets(texts, shingle)
    order = np.argsort(np.bincount(sets.indices, minlength=sets.shape[1]), kind="stable")
    rank = np.empty(len(order), dtype=sets.indices.dtype)
    rank[order] = np.arange(len(order))
    ranked = csr_matrix((sets.data, rank[sets.indices], sets.indptr), shape=sets.shape)
    ranked.sort_indices()
    return ranked


def _prefixes(sets: csr_matrix, lengths: Numbers) -> csr_matrix:
    """The first `lengths` columns that each row holds: two similar sets share one of these."""
    starts = sets.indptr[:-1]
    kept = np.arange(len(sets.indices)) - np.repeat(starts, np.diff(sets.indptr)) < np.repeat(
        lengths, np.diff(sets.indptr)
    )
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return csr_matrix((sets.data[kept], sets.indices[kept], ends), shape=sets.shape)


def _meetings(prefixes: csr_matrix, left: Numbers, right: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """The pairs of rows of `left` and `right` that hold a column in common, some at a time."""
    if not len(left) or not len(right):
        return
    held = prefixes[right]
    often = np.bincount(held.indices, minlength=held.shape[1])
    asking = prefixes[left]
    costs = np.add.reduceat(often[asking.indices], asking.indptr[:-1]) + 1
    turned = held.T.tocsr()
    for start, stop in _chunks(costs, MEETINGS):
        met = (asking[start:stop] @ turned).tocoo()
        yield left[start:stop][met.row], right[met.col]


def _shingles(texts: list[str], shingle: int) -> tuple[NDArray[np.uint64], Numbers]:
    """The hashed shingles of all texts, one text after the other, and how many each has (≥ 1)."""
    padded = [text.ljust(shingle, "\0") for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    counts = np.array([len(text) - shingle + 1 for text in padded], dtype=np.int64)
    values = np.zeros(len(codes) - shingle + 1, dtype=np.uint64)
    for offset in range(shingle):
        values *= np.uint64(0x9E3779B97F4A7C15)
        values += codes[offset : offset + len(values)]
    inside = np.ones(len(values), dtype=bool)  # a shingle doesn't reach into the next text
    ends = np.cumsum(counts + shingle - 1)[:-1]
    for offset in range(1, shingle):
        inside[ends - offset] = False
    return _mixed(values[inside]), counts


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _chunks(lengths: Numbers, most: int) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) with about `most` characters each, at least one text in each."""
    if not len(lengths):
        return
    number = (np.cumsum(lengths) - 1) // most
    edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(lengths)]
    yield from pairwise(edges)
