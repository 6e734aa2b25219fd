"""Which generated texts become rows: filters in one order, each of those that the ones before let by.

What a model writes after examples may be a copy of one, of what it knows by heart (a row of the test,
too), or of itself (Josifoski et al. 2023); and it may have another label than was asked for.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from undertone import params
from undertone.augmentation.writing import UNREAD, Written
from undertone.corpus import repeats
from undertone.corpus.split import JOINED, orphans
from undertone.labels import Flags, LabelSpace
from undertone.measures import metrics

Rows = NDArray[np.bool_]  # [n]
Judge = Callable[[Sequence[str]], Flags]

PARENT = "parent outside the training part"
REPEATS = "repeats a real row"
NEAR = "nearly repeats a real row"
QUOTES = "quotes a parent"
ADDRESS = "holds an address or number"
FORBIDDEN = "holds a forbidden string"
LENGTH = "too short or too long"
LANGUAGE = "another language"
LABEL = "another label"
AGAIN = "repeats a generated row"
REASONS = (PARENT, REPEATS, NEAR, QUOTES, ADDRESS, FORBIDDEN, LENGTH, LANGUAGE, LABEL, AGAIN)
ORIGIN = "generated"
# e-mail, link, name at a site, telephone number: copied they are somebody's, invented they may be
_ADDRESS = re.compile(
    r"[\w.+-]+@[\w-]+\.\w|(?:https?://|www\.)\S|(?<!\w)@\w{2}"
    r"|(?<![\w.])\+?\(?\d(?:[ ()./-]{0,3}\d){6,}(?!\w)"
)
_LETTERS = re.compile(r"[^\W\d_]+")
_UNSEEN = 0.5  # what a pair of letters counts that never occurs


def reasons(
    texts: pd.DataFrame,
    split: pd.DataFrame,
    pool: pd.DataFrame,
    space: LabelSpace,
    settings: params.Accept,
    alike: params.Clean,
    judge: Judge,
    *,
    seed: int,
) -> list[str]:
    """Why each text (see `Written.texts`) is no row, one of REASONS; empty where it is accepted.

    `split` holds the rows that are learnt from and judged by, `pool` all rows that there are.
    """
    train = split[split["part"] == "train"].drop_duplicates("repeat").sort_values("id")
    filters: Mapping[str, Callable[[pd.DataFrame], Rows]] = {
        PARENT: lambda left: _outside(left, split),
        REPEATS: lambda left: left["text"].map(repeats.key).isin(_keys(split, pool)).to_numpy(),
        NEAR: lambda left: _near(left, _texts(split, pool), alike),
        QUOTES: lambda left: _quoting(left, split, settings.copied),
        ADDRESS: lambda left: left["text"].str.contains(_ADDRESS).to_numpy(dtype=bool),
        FORBIDDEN: lambda left: _holding(left["text"], settings.forbidden),
        LENGTH: lambda left: _outsize(left["text"], train["text"], settings.length),
        LANGUAGE: lambda left: _strange(left["text"], train["text"].tolist(), settings.strange),
        LABEL: lambda left: ~_as_asked(left, judge, space),
        AGAIN: lambda left: _again(left["text"].tolist(), alike, seed),
    }
    assert tuple(filters) == REASONS
    found = pd.Series("", index=texts.index, dtype="object")
    for reason, refuses in filters.items():
        left = texts[found == ""]
        if len(left):
            found[left.index[refuses(left)]] = reason
    return [str(one) for one in found]


def rows(texts: pd.DataFrame, space: LabelSpace, model: str) -> pd.DataFrame:
    """Accepted texts as rows: `id`, `text`, `label.<label>` (0 or 1), `parent` (ids joined by `;`),
    `origin`, `model`, `custom_id` of the request, `answered` (a date, or empty)."""
    told = texts["custom_id"] + "\n" + texts["text"]
    ids = [f"{ORIGIN}-{hashlib.sha256(one.encode()).hexdigest()[:20]}" for one in told]
    found = pd.DataFrame({"id": ids, "text": texts["text"].to_list()}).astype("str")
    for label in space.labels:
        found[f"label.{label}"] = (texts["label"] == label).to_numpy(dtype=np.float64)
    return found.assign(
        parent=texts["parent"].to_list(),
        origin=ORIGIN,
        model=model,
        custom_id=texts["custom_id"].to_list(),
        answered=texts["answered"].to_list(),
    ).astype({"parent": "str", "origin": "str", "model": "str", "custom_id": "str", "answered": "str"})


def refused(written: Written, why: Sequence[str]) -> pd.DataFrame:
    """What was written and became no row, for people to look at: custom_id, label, reason, text; of what
    couldn't be read the whole answer."""
    texts = written.texts[["custom_id", "label", "text"]].assign(reason=list(why))
    unread = written.unread[written.unread["text"] != ""]
    both = pd.concat([texts[texts["reason"] != ""], unread])
    return both[["custom_id", "label", "reason", "text"]].astype("str").reset_index(drop=True)


def account(
    asked: pd.DataFrame, written: Written, why: Sequence[str], *, draws: int, seed: int
) -> dict[str, Any]:
    """What became of every text that was asked for, in all and by label; JSON as it is.

    asked = accepted + rejected (by reason, in the order of the filters) + unread (by reason). `rate`:
    accepted of asked, its interval by a bootstrap that draws the texts of a request together.
    """
    texts = written.texts.assign(reason=list(why))
    labels = {
        label: _counted(
            own, *(one[one["label"] == label] for one in (texts, written.unread)), draws=draws, seed=seed
        )
        for label, own in asked.groupby("label", sort=False)
    }
    parents = {one for ids in asked["id"] for one in ids.split(JOINED)}
    return {
        **_counted(asked, texts, written.unread, draws=draws, seed=seed),
        "requests": len(asked),
        "parents": len(parents),
        "surplus": written.surplus,
        "repeated": written.repeated,
        "unknown_ids": written.unknown,
        "labels": labels,
    }


def told(found: Mapping[str, Any]) -> str:
    """The account on one line, for the log."""
    if not found["asked"]:
        return "nothing was asked for"
    gone = {**found["unread"], **found["rejected"]}
    why = ", ".join(f"{reason} {count:,}" for reason, count in gone.items() if count)
    rate = metrics.told(found["rate"])
    return (
        f"{found['asked']:,} texts asked → {found['accepted']:,} accepted, {rate}; {why or 'none lost'}"
    )


def _counted(
    asked: pd.DataFrame, texts: pd.DataFrame, unread: pd.DataFrame, *, draws: int, seed: int
) -> dict[str, Any]:
    why = Counter(texts["reason"])
    lost = unread.groupby("reason")["count"].sum().to_dict()
    total, accepted = int(asked["texts"].sum()), why[""]
    counts = {
        "rejected": {reason: why[reason] for reason in REASONS},
        "unread": {reason: int(lost.get(reason, 0)) for reason in UNREAD},
    }
    assert total == accepted + sum(sum(one.values()) for one in counts.values())
    return {
        "asked": total,
        "answered": len(texts),
        "accepted": accepted,
        "rate": _rate(asked, texts, draws, seed),
        **counts,
    }


def _rate(asked: pd.DataFrame, texts: pd.DataFrame, draws: int, seed: int) -> dict[str, float | None]:
    if not len(asked):
        return metrics.figure(math.nan, math.nan, math.nan)
    accepted = texts.loc[texts["reason"] == "", "custom_id"].value_counts()
    sums = np.column_stack([asked["custom_id"].map(accepted).fillna(0), asked["texts"]]).astype(float)
    drawn = metrics.resampled(sums, draws, np.random.default_rng(seed))
    low, high = metrics.interval(drawn[:, 0] / drawn[:, 1], len(sums)).clip(0, 1)
    return metrics.figure(sums[:, 0].sum() / sums[:, 1].sum(), low, high)


def _outside(left: pd.DataFrame, split: pd.DataFrame) -> Rows:
    """Which weren't made from training rows alone."""
    made = left.assign(id=[f"\0{at}" for at in range(len(left))], part="train")
    columns = ["id", "part", "parent"]
    both = pd.concat([split.reindex(columns=columns), made[columns]], ignore_index=True)
    bad = orphans(both, (both["part"] == "train").to_numpy(dtype=bool))
    named = (left["parent"].str.strip() != "").to_numpy(dtype=bool)
    return np.asarray(bad[len(split) :] | ~named)


def _texts(*of: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(text for table in of for text in table["text"]))


def _keys(*of: pd.DataFrame) -> set[str]:
    return {repeats.key(text) for text in _texts(*of)}


def _near(left: pd.DataFrame, real: Sequence[str], alike: params.Clean) -> Rows:
    texts = [*real, *left["text"]]
    side = np.repeat([0, 1], [len(real), len(left)]).astype(np.int64)
    near = repeats.across(texts, side, 2, floor=alike.similarity, shingle=alike.shingle)
    return np.asarray(near[len(real) :, 0] > 0)


def _quoting(left: pd.DataFrame, split: pd.DataFrame, length: int) -> Rows:
    """Which share a run of `length` letters and digits with a parent, whatever stands between them."""
    of = dict(zip(split["id"], split["text"], strict=True))
    found = []
    for text, parent in zip(left["text"], left["parent"], strict=True):
        shown = {run for id_ in parent.split(JOINED) for run in _runs(of[id_], length)}
        found.append(not shown.isdisjoint(_runs(text, length)))
    return np.array(found, dtype=bool)


def _runs(text: str, length: int) -> set[str]:
    letters = repeats.key(text).replace(" ", "")
    return {letters[at : at + length] for at in range(len(letters) - length + 1)}


def _holding(texts: "pd.Series[str]", forbidden: Sequence[str]) -> Rows:
    patterns = [re.compile(one, re.IGNORECASE) for one in forbidden]
    return np.array([any(one.search(text) for one in patterns) for text in texts], dtype=bool)


def _outsize(texts: "pd.Series[str]", real: "pd.Series[str]", within: tuple[float, float]) -> Rows:
    low, high = np.quantile(real.str.len(), within)
    return ~texts.str.len().between(low, high).to_numpy(dtype=bool)


def _strange(texts: "pd.Series[str]", real: Sequence[str], share: float) -> Rows:
    """Which texts' letters follow each other less usually than in all but this `share` of real texts: a
    Markov chain of letters (Dunning 1994, "Statistical Identification of Language"), which needs no
    list of languages. Every other real text teaches it, the rest say what is usual."""
    chain = _Chain(real[::2])
    usual = np.quantile([chain.score(text) for text in real[1::2] or real], share)
    return np.array([chain.score(text) < usual for text in texts], dtype=bool)


class _Chain:
    def __init__(self, texts: Sequence[str]) -> None:
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._first: Counter[str] = Counter()
        for text in map(_spelled, texts):
            self._first.update(text[:-1])
            self._pairs.update(pairwise(text))
        self._spread = _UNSEEN * (len(self._first) + 1)

    def score(self, text: str) -> float:
        """The mean natural logarithm of how probable each letter is after the one before it; 0 for a
        text without letters."""
        told = _spelled(text)
        if len(told) < 3:
            return 0.0
        logs = [
            math.log((self._pairs[pair] + _UNSEEN) / (self._first[pair[0]] + self._spread))
            for pair in pairwise(told)
        ]
        return sum(logs) / len(logs)


def _spelled(text: str) -> str:
    """Words in small letters with a space before, between and behind them."""
    return f" {' '.join(_LETTERS.findall(text.casefold()))} "


def _as_asked(left: pd.DataFrame, judge: Judge, space: LabelSpace) -> Rows:
    """Which have, for the judge, the label that was asked for and no other."""
    wanted = left["label"].to_numpy()[:, None] == np.array(space.labels)
    return np.asarray((judge(left["text"].tolist()) == wanted).all(axis=1))


def _again(texts: Sequence[str], alike: params.Clean, seed: int) -> Rows:
    """Which repeat an earlier one, exactly or nearly."""
    group = repeats.groups(texts, similarity=alike.similarity, shingle=alike.shingle, seed=seed)
    return np.asarray(pd.Series(group).duplicated())
