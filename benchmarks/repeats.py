"""Exact and near repeats among 100,000 comments: seconds, memory, and how many planted ones are found.

The physics: n texts of c characters have n·c shingles. All pairs would cost n²/2·2c set look-ups,
10^12 for 100,000 texts of 100 characters: hours at 10^8 a second. MinHash costs n·c·h multiplications
for h hashes, 10^9 for h = 96: about a second of vector instructions, or some minutes of Python's.

Beside it: the same MinHash in plain Python with sets, on fewer rows (both times grow with the rows);
and every pair compared, on fewer rows, which is the truth that recall and precision refer to.

    python -m benchmarks.repeats [--rows 100000]
"""

import argparse
import json
import platform
import resource
import time
from collections import defaultdict
from itertools import combinations

import numpy as np

from undertone.corpus import repeats

SEED = 13
SIMILARITY, SHINGLE = 0.8, 5
PLANTED = 0.1  # of the rows are an earlier row with a few characters changed
PLAIN_ROWS, EXACT_ROWS = 2_000, 3_000


def texts(rows: int, rng: np.random.Generator) -> list[str]:
    """Made-up comments of about 100 characters; each planted one follows its original somewhere."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, size=size)) for size in rng.integers(2, 10, size=20_000)]
    likely = 1 / np.arange(1, len(words) + 1)  # Zipf
    drawn = rng.choice(len(words), size=(rows, 24), p=likely / likely.sum())
    lengths = rng.integers(8, 25, size=rows)
    made = [
        " ".join(words[word] for word in row[:length])
        for row, length in zip(drawn, lengths, strict=True)
    ]
    planted = np.flatnonzero(rng.random(rows) < PLANTED)
    for row in planted[planted > 0]:
        characters = list(made[rng.integers(row)])
        for _ in range(rng.integers(1, 4)):
            characters[rng.integers(len(characters))] = str(rng.choice(letters))
        made[row] = "".join(characters)
    return made


def sets(made: list[str]) -> list[frozenset[str]]:
    keys = [repeats.key(text).ljust(SHINGLE, "\0") for text in made]
    return [frozenset(key[at : at + SHINGLE] for at in range(len(key) - SHINGLE + 1)) for key in keys]


def every_pair(made: list[str]) -> set[tuple[int, int]]:
    """All pairs of rows at the similarity asked for."""
    of = sets(made)
    found = set()
    for one, other in combinations(range(len(of)), 2):
        shared = len(of[one] & of[other])
        if shared >= SIMILARITY * (len(of[one]) + len(of[other]) - shared):
            found.add((one, other))
    return found


def plain_minhash(made: list[str]) -> int:
    """The same bands, rows and exact check with Python's sets and dicts; how many pairs it found."""
    bands, rows = repeats.banding(SIMILARITY)
    rng = np.random.default_rng(SEED)
    hashes = [(int(a) | 1, int(b)) for a, b in rng.integers(2**32, size=(bands * rows, 2))]
    of = sets(made)
    candidates = set()
    buckets: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row, shingles in enumerate(of):
        values = [hash(shingle) & 0xFFFFFFFF for shingle in shingles]
        signature = [min((value * a + b) & 0xFFFFFFFF for value in values) for a, b in hashes]
        for band in range(bands):
            buckets[(band, *signature[band * rows : (band + 1) * rows])].append(row)
    for members in buckets.values():
        candidates.update(combinations(members, 2))
    return sum(
        len(of[one] & of[other]) >= SIMILARITY * len(of[one] | of[other]) for one, other in candidates
    )


def joined(pairs: set[tuple[int, int]], rows: int) -> np.ndarray:
    """The group of each row when repeats of repeats are repeats."""
    root = list(range(rows))

    def top(row: int) -> int:
        while root[row] != row:
            row = root[row]
        return row

    for one, other in pairs:
        root[max(top(one), top(other))] = min(top(one), top(other))
    return np.array([top(row) for row in range(rows)])


def main(rows: int) -> None:
    made = texts(rows, np.random.default_rng(SEED))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    found = repeats.groups(made, similarity=SIMILARITY, shingle=SHINGLE, seed=SEED)
    seconds = time.perf_counter() - started
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    started = time.perf_counter()
    plain_minhash(made[:PLAIN_ROWS])
    plain = (time.perf_counter() - started) / min(PLAIN_ROWS, rows) * rows

    # With more planted rows than by chance among the first 3,000 of 100,000.
    few = texts(EXACT_ROWS, np.random.default_rng(SEED + 1))
    started = time.perf_counter()
    true = every_pair(few)
    exact = (time.perf_counter() - started) * (rows / EXACT_ROWS) ** 2
    group = repeats.groups(few, similarity=SIMILARITY, shingle=SHINGLE, seed=SEED)
    recall = np.mean([group[one] == group[other] for one, other in true])
    same = np.array_equal(repeats.numbered(joined(true, EXACT_ROWS)), group)

    bands, per_band = repeats.banding(SIMILARITY)
    result = {
        "benchmark": "repeats",
        "rows": rows,
        "characters": round(float(np.mean([len(text) for text in made])), 1),
        "bands": bands,
        "rows_a_band": per_band,
        "seconds": round(seconds, 2),
        "peak_memory_mib": round(memory, 1),
        "groups_of_several": int((np.bincount(found) > 1).sum()),
        "plain_minhash_seconds_extrapolated": round(plain, 1),
        "every_pair_seconds_extrapolated": round(exact, 1),
        "times_faster_than_plain_minhash": round(plain / seconds, 1),
        "true_pairs": len(true),
        "recall": round(float(recall), 4),
        "same_groups_as_every_pair": bool(same),
        "machine": platform.machine(),
        "numpy": np.__version__,
    }
    width = max(len(name) for name in result)
    for name, value in result.items():
        print(f"{name:<{width}}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    main(parser.parse_args().rows)
