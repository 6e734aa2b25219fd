"""The stand-in's voters are as right as they are told to be, and fail in every way that there is."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.test_request import ballot as a_ballot
from tests.test_request import codebook, voter, written
from undertone.errors import Problem
from undertone.voters import collect, simulated
from undertone.voters.collect import OUTCOMES

ROWS = 3000


def corpus() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    truth = np.where(rng.random(ROWS) < 0.7, "kind", "cold")
    return pd.DataFrame(
        {"id": [f"{row}" for row in range(ROWS)], "text": [f"text {row}" for row in range(ROWS)]}
    ).assign(truth=truth)


def answered(folder: Path, model: str, seed: int = 0) -> collect.Collected:
    table = corpus()
    requests = written(folder / "requests", table, a_ballot(model=model))
    asked = pd.read_parquet(requests / "asked.parquet")
    out = folder / "answers"
    out.mkdir()
    truth = dict(zip(table["id"], table["truth"], strict=True))
    voters = {"v": voter(model=model)}
    simulated.answers(asked, truth, voters, codebook(), seed=seed, out=out)
    return collect.collect(asked, out, codebook(), voters)


def test_a_voter_is_as_right_as_its_model_says_and_fails_in_every_way(tmp_path: Path) -> None:
    found = answered(tmp_path, "simulated:0.85")
    assert all(found.counts["v"][one] for one in [*OUTCOMES, "repeated"])
    assert found.unknown == simulated.UNKNOWN
    assert found.counts["v"]["ok"] > 0.95 * ROWS
    valid = found.votes[found.votes["outcome"] == "ok"].merge(corpus(), on="id")
    right = np.where(valid["truth"] == "kind", valid["kind"], valid["cold"]).mean()
    assert right == pytest.approx(0.85, abs=0.02)


def test_equal_seeds_give_equal_answers_in_many_forms(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        answered(tmp_path / name, "simulated:0.9", seed)
    one, same, other = (
        (tmp_path / name / "answers" / "v.output.jsonl").read_bytes()
        for name in ("one", "same", "other")
    )
    assert one == same != other
    records = [json.loads(line) for line in one.splitlines()]
    forms = {record["response"]["body"]["choices"][0]["message"]["content"] for record in records}
    assert {"[1]", "(1)", "1", "cold", "**[0]**", "[92]"} <= forms


@pytest.mark.parametrize("model", ["gpt", "simulated:", "simulated:2", "simulated:nan"])
def test_another_model_is_no_simulated_one(tmp_path: Path, model: str) -> None:
    with pytest.raises(Problem, match="is no simulated model"):
        answered(tmp_path, model)
