"""From a codebook to silver labels and back to the truth, for every scheme of every codebook."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.test_request import HERE
from undertone import params, tables
from undertone.codebook import label_of, read_codebook
from undertone.corpus import sample
from undertone.labels import Flags
from undertone.voters import collect, request, silver, simulated
from undertone.voters.request import Ballot

CODEBOOKS = sorted(Path("codebooks").glob("*.yaml"))
SCHEMES = [
    (path.stem, scheme)
    for path in CODEBOOKS
    for book in [read_codebook(path)]
    for scheme in (None, *book.merges, *book.questions)
]
FUSE = params.Fuse(method="dawid_skene", tie="none", min_votes=1, weights={})


def comments(name: str, scheme: str | None) -> pd.DataFrame:
    asked = read_codebook(Path(f"codebooks/{name}.yaml")).asked(scheme)
    frame = sample.rows(asked, 700, 60, np.random.default_rng(3))
    frame = frame[[isinstance(cell, str) for cell in frame["comment"]]]
    return pd.DataFrame(
        {
            "id": frame["comment_id"],
            "text": frame["comment"],
            "group": frame["author"],
            "truth": frame["truth"].fillna(""),
        }
    ).reset_index(drop=True)


def true_flags(table: pd.DataFrame, name: str, scheme: str | None) -> Flags:
    book = read_codebook(Path(f"codebooks/{name}.yaml"))
    asked = book.asked(scheme)
    flags = np.zeros((len(table), len(asked.labels)))
    for row, names in enumerate(table["truth"]):
        for one in names.split(simulated.SEPARATOR):
            label = label_of(one, asked.spellings)
            assert label is not None
            flags[row, asked.space.labels.index(label)] = 1
    return book.merged(flags, scheme) > 0.5


def test_the_five_studies_ship_with_their_schemes() -> None:
    assert {name for name, _ in SCHEMES} >= {"gender_zh", "gun_control", "toxicity", "news", "ukraine"}
    assert {("gun_control", "polarization"), ("gun_control", "stance"), ("toxicity", "verdict")} <= set(
        SCHEMES
    )


@pytest.mark.parametrize(("name", "scheme"), SCHEMES)
def test_votes_come_back_as_the_labels_that_were_meant(
    name: str, scheme: str | None, tmp_path: Path
) -> None:
    book = read_codebook(Path(f"codebooks/{name}.yaml"))
    asked, table = book.asked(scheme), comments(name, scheme)
    own = [prompt for prompt, one in asked.prompts.items() if one.scheme is None]
    voters = {
        f"v{at}": params.Voter(
            provider="here",
            model=f"simulated:{accuracy}",
            prompt=own[at % len(own)],
            definitions=bool(at % 2),
            temperature=0.0,
            max_tokens=64,
        )
        for at, accuracy in enumerate((0.95, 0.9, 0.85))
    }
    ballots = [Ballot.of(voter, settings, asked) for voter, settings in voters.items()]
    plans = request.plan(table, ballots, {"here": HERE}, {}, "simulated")
    provider = {"here": HERE.model_copy(update={"lines": 300, "bytes": 10**7})}
    request.write(table, ballots, provider, plans, tmp_path / "requests")
    sheet = pd.read_parquet(tmp_path / "requests" / "asked.parquet")
    truth = dict(zip(table["id"], table["truth"], strict=True))
    (tmp_path / "answers").mkdir()
    simulated.answers(sheet, truth, voters, asked, seed=1, out=tmp_path / "answers")
    found = collect.collect(sheet, tmp_path / "answers", asked, voters)
    for counts in found.counts.values():
        assert counts["ok"] > 0.9 * len(table)  # nothing of what was said is unreadable
    prompts = {ballot.voter: ballot.prompt_sha256 for ballot in ballots}
    fused = silver.fused(found.votes, table, prompts, book, scheme, FUSE, draws=100, seed=0)
    labelled, _ = silver.labelled(table, fused.table, book, scheme)
    space = book.learnt(scheme).space
    given = tables.judged(labelled, "label", space) > 0.5
    meant = true_flags(labelled, name, scheme)
    assert given.shape == meant.shape
    assert (given == meant).mean() > 0.95
    assert (given == meant).all(axis=1).mean() > 0.88
