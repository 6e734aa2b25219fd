"""How often a paired test on gold weighed by 1 / inclusion calls one of two equal candidates better.

Of `ROWS` validation rows two candidates get equally many right, and differ on a share of them. A
review takes `CHOSEN` rows by the doubts of the first, which are larger where the first alone is wrong,
and each of the others with a probability. A row taken counts 1 / its probability (Horvitz & Thompson
1952), so the difference is right on average; the signs of the rows are swapped as
`comparison.compare` swaps groups.

A fair test calls the second better in 2.5 % of cases at most. The rows by chance are few and heavy:
where p of them are taken and k rows outside of the chosen speak for the first, none of these is seen
in (1 - p)^k of all reviews, and then the chosen decide.

    python -m benchmarks.weighed [--cases 1000]

Prints a table and one JSON line.
"""

import argparse
import json

import numpy as np

ROWS, CHOSEN, SWAPS, LEVEL = 750, 200, 300, 0.05
TAKEN = (0.02, 0.05, 0.13, 0.3)  # of the rows that weren't chosen
DIFFER = (0.06, 0.15)
DOUBT = {
    "blind": 0.0,
    "of the first": 2.0,
}  # by how many deviations it is larger where the first is wrong


def better(taken: float, differ: float, doubt: float, cases: int, rng: np.random.Generator) -> float:
    """The share of cases in which the second is called better."""
    half = int(differ * ROWS) // 2
    ahead = np.repeat([1, -1, 0], [half, half, ROWS - 2 * half])  # 1: the second alone is right
    found = 0
    for _ in range(cases):
        likely = np.full(ROWS, taken)
        likely[np.argsort(-rng.normal(size=ROWS) - doubt * (ahead == 1))[:CHOSEN]] = 1
        seen = rng.random(ROWS) < likely
        each = ahead[seen] / likely[seen]
        each = each[each != 0]
        swapped = np.abs(rng.choice([-1, 1], size=(SWAPS, len(each))) @ each)
        p = (1 + (swapped >= abs(each.sum()) - 1e-9).sum()) / (1 + SWAPS)
        found += p <= LEVEL and each.sum() > 0
    return found / cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    cases = parser.parse_args().cases
    rng = np.random.default_rng(0)
    rows = [
        {"taken": taken, "differ": differ, "doubts": name, "better": better(*setting, cases, rng)}
        for name, doubt in DOUBT.items()
        for differ in DIFFER
        for taken in TAKEN
        for setting in [(taken, differ, doubt)]
    ]
    print(f"{ROWS} rows, {CHOSEN} chosen, both equally good, {cases:,} cases")
    print(
        "| doubts | differ on | others taken | the second is called better |\n| --- | --- | --- | --- |"
    )
    for one in rows:
        print(f"| {one['doubts']} | {one['differ']:.0%} | {one['taken']:.0%} | {one['better']:.1%} |")
    print(json.dumps({"benchmark": "weighed", "cases": cases, "rows": rows}))


if __name__ == "__main__":
    main()
