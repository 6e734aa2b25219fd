"""Votes → one score a comment and label, and how good each voter is, without gold labels.

Few voters with few labels give few distinct patterns of votes, at most (labels + 1) ^ voters. All
estimates are made of patterns and their counts, so a bootstrap that fits anew in every draw costs
little; and as patterns and voters are sorted, their order in the table decides nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from undertone import params
from undertone.errors import Problem
from undertone.labels import Flags, LabelSpace, Scores

Votes = NDArray[np.float64]  # [voters, n, labels]: 0 or 1, NaN all along a row without a valid answer
Answers = NDArray[np.int64]  # [voters, n]: the number of the answer, NONE without a valid one
Numbers = NDArray[np.int64]
Table = NDArray[np.float64]

NONE = -1
TOO_FEW = "too few votes"
TIE = "tie"
JUDGES = 3  # votes on one row, below which nothing tells who of those who differ is right
NUDGE = 1e-6  # what the winner of a tie is ahead by, so that the highest score is the winner's
SAME = 1e-9  # scores closer than this are equal: sums and products differ in their last digits
EPS = 1e-10  # the least count, as in crowd-kit: no answer is impossible
STEPS = 5000  # of the EM at most; where the votes can't tell, it may creep for ever
CELLS = 2**20  # counts that a bootstrap holds at a time, which bounds its memory


@dataclass(frozen=True)
class Fused:
    """`scores` [n, labels] in 0..1, NaN all along a row without a label; `dropped`: how many rows have
    none, by reason ("too few votes", "tie"), only those that occur; `teachers`: voter → see `fuse`."""

    scores: Scores
    dropped: dict[str, int]
    teachers: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Patterns:
    """The distinct columns of `Answers`: `answers` [voters, patterns], and each row's pattern, `of` [n].

    `values`: answers are the numbers below it, or NONE.
    """

    answers: Answers
    of: Numbers
    values: int

    @classmethod
    def among(cls, answers: Answers, values: int) -> "Patterns":
        distinct, of = np.unique(answers.T, axis=0, return_inverse=True)
        return cls(np.ascontiguousarray(distinct.T), of.reshape(-1), values)

    @property
    def counts(self) -> Table:
        """How many rows each pattern has, [patterns, 1]: as one draw of `resampled`."""
        return np.bincount(self.of, minlength=self.answers.shape[1]).astype(np.float64)[:, None]


# counts of patterns [patterns, draws] → the voters' accuracy [voters, draws], NaN where undefined
Accuracy = Callable[[Table], Table]


def fuse(
    votes: Votes,
    voters: Sequence[str],
    settings: params.Fuse,
    space: LabelSpace,
    *,
    groups: Numbers,
    draws: int,
    rng: np.random.Generator,
) -> Fused:
    """One score a row and label, by `settings.method`, and the accuracy of each voter.

    `majority`, `weighted`: the share of the votes, see `majority`. `dawid_skene`: the posterior of
    each label, see `dawid_skene`; many labels each by itself. Of a single voter that is the vote.

    `teachers`: `n`, the votes that counted; `accuracy` with its 95 % percentile interval over draws
    of `groups` [n], each fitted anew; `confusion`, rows: the fused label, columns: the voter's,
    expected counts. For many labels `accuracy` is the mean over labels, and `labels` holds each
    label's accuracy and confusion (no, yes).

    The accuracy needs no gold labels, but voters who err independently of each other given the true
    label: an error that they share counts as right. It is null for a voter who has no row with two
    others, since of two who differ nobody knows who is right. For Dawid-Skene it is the
    posterior-weighted agreement. Agreement with a majority would flatter those who make it, the more
    the fewer they are; so for the other methods it comes from `pairwise_accuracy`, which holds where
    errors fall evenly on all other labels. `confusion` is as it is, and flatters.

    `Problem` where there are no votes, too few of them in every row, none of a voter, or one outside
    0/1, and for a weight of no voter.
    """
    check(votes, voters, space)
    answered = ~np.isnan(votes[:, :, 0])
    enough = answered.sum(axis=0) >= settings.min_votes
    _refuse_silence(answered, enough, voters, settings)
    order = np.argsort(np.asarray(voters, dtype=str), kind="stable")
    questions = asked(votes[order][:, enough], space)
    estimators: list[Accuracy]
    if settings.method == "dawid_skene":
        fits = [dawid_skene(question) for question in questions]
        posteriors = [fit.posterior[question.of] for fit, question in zip(fits, questions, strict=True)]
        scores = np.full(votes.shape[1:], np.nan)
        scores[enough] = np.stack([p[:, 1] for p in posteriors], axis=1) if space.many else posteriors[0]
        scores, _ = settled(scores, _totals(votes), many=space.many, tie=settings.tie)
        estimators = [fit.accuracy for fit in fits]
        judged = scores
    else:
        weights = _weights(settings, voters) if settings.method == "weighted" else None
        scores, _ = majority(votes, many=space.many, weights=weights, tie=settings.tie)
        scores[~enough] = np.nan
        estimators = [pairwise_accuracy(question) for question in questions]
        judged = decided(scores, space)

    values, drawn = _estimates(questions, estimators, groups[enough], draws, rng)
    counted = answered & enough
    judgeable = (counted & (counted.sum(axis=0) >= JUDGES)).any(axis=1)
    values[:, ~judgeable[order]] = np.nan
    place = np.argsort(order)  # of each voter among the sorted
    teachers = {
        voter: {"n": int(counted[at].sum())}
        | _teacher(votes[at], judged, values[:, place[at]], drawn[:, place[at]], space)
        for at, voter in enumerate(voters)
    }
    unlabelled = {TOO_FEW: ~enough, TIE: enough & np.isnan(scores).any(axis=1)}
    dropped = {why: int(rows.sum()) for why, rows in unlabelled.items() if rows.any()}
    return Fused(scores, dropped, teachers)


def majority(
    votes: Votes,
    *,
    many: bool,
    weights: Table | None = None,
    tie: Literal["none", "commonest"] = "none",
) -> tuple[Scores, NDArray[np.bool_]]:
    """Shares of the votes [n, labels], NaN along a row without votes, and which rows tie [n].

    `weights` [voters]: what a vote counts, 1 without. One label a text: labels tie that have most
    votes; many: a label ties with its absence at exactly half the votes. `tie`: see `settled`.
    """
    answered = ~np.isnan(votes[:, :, 0])
    weight = np.ones(len(votes)) if weights is None else weights
    said = np.tensordot(weight, np.nan_to_num(votes), axes=1)
    given = (weight @ answered)[:, None]
    shares = np.divide(said, given, out=np.full(said.shape, np.nan), where=given > 0)
    total = said.sum(axis=0) / max(given.sum(), SAME)
    return settled(shares, total, many=many, tie=tie)


def settled(
    scores: Scores, total: Table, *, many: bool, tie: Literal["none", "commonest"]
) -> tuple[Scores, NDArray[np.bool_]]:
    """Scores [n, labels] after the rule for ties, and which rows tie [n].

    `none` leaves a row that ties without a label (NaN). `commonest` gives it to what has most votes
    in all rows (`total` [labels], shares), then to the first in the codebook's order (for many: to the
    label). Its winner is then a millionth ahead (for many: the loser below one half), so that
    `LabelSpace.decide` finds it.
    """
    scores = scores.copy()
    if many:
        ties = np.abs(scores - 0.5) < SAME
        tied = ties.any(axis=1)
        won = np.broadcast_to(total >= 0.5 - SAME, scores.shape)
        scores[ties] = np.where(won, 0.5, 0.5 - NUDGE)[ties]
    else:
        ties = scores >= scores.max(axis=1, keepdims=True) - SAME
        tied = ties.sum(axis=1) > 1
        winner = np.where(ties, total.round(9), -1).argmax(axis=1)
        scores[tied, winner[tied]] = np.minimum(scores[tied, winner[tied]] + NUDGE, 1)
    if tie == "none":
        scores[tied] = np.nan
    return scores, np.asarray(tied)


def _totals(votes: Votes) -> Table:
    """The share of each label among all votes [labels]."""
    answered = ~np.isnan(votes[:, :, 0])
    return np.asarray(np.nansum(votes, axis=(0, 1)) / max(answered.sum(), 1))


def decided(scores: Scores, space: LabelSpace) -> Scores:
    """`LabelSpace.decide` as 0 and 1; NaN rows stay so."""
    labels = np.full(scores.shape, np.nan)
    labelled = ~np.isnan(scores).any(axis=1)
    labels[labelled] = space.decide(scores[labelled])
    return labels


@dataclass(frozen=True)
class Fit:
    """A fitted Dawid-Skene model: `posterior` [patterns, values], and `accuracy`, which fits anew."""

    posterior: Table
    accuracy: Accuracy


def dawid_skene(question: Patterns) -> Fit:
    """The most likely true answers where each voter has a confusion matrix of its own.

    Dawid & Skene (1979), fitted by EM from the shares of the votes, as crowd-kit's `DawidSkene` does,
    which it equals where that is run to convergence. It starts at the majority, so labels can't trade
    places; the refits start at the fit. A voter who is always wrong in the same way is thus read
    the other way round where the others outvote it, and its accuracy and confusion say so. An answer
    that nobody gave has posterior 0. Two voters don't determine the model: what EM reaches from
    the majority is then one of many answers that fit as well. An answer of a handful of rows may
    overrule a majority, as its one witness is then always right.
    """
    voters, patterns = question.answers.shape
    used = np.unique(question.answers[question.answers != NONE])
    design = (question.answers.T[:, :, None] == used).reshape(patterns, -1).astype(np.float64)
    shares = design.reshape(patterns, voters, len(used)).sum(axis=1)
    shares /= shares.sum(axis=1, keepdims=True)
    fitted, _ = _em(design, question.counts, shares, tolerance=1e-12)
    posterior = np.zeros((patterns, question.values))
    posterior[:, used] = fitted

    def accuracy(counts: Table) -> Table:
        return _em(design, counts, fitted, tolerance=1e-3)[1]

    return Fit(posterior, accuracy)


def _em(design: Table, counts: Table, start: Table, *, tolerance: float) -> tuple[Table, Table]:
    """The first draw's posterior [patterns, values] and all draws' accuracies [voters, draws].

    `design` [patterns, voters × values]: 1 where the voter gave the answer. `counts` [patterns,
    draws]. A draw has converged when no expected count moves by more than `tolerance` times the root of
    its rows, which is what a count varies by from draw to draw.
    """
    (patterns, values), draws = start.shape, counts.shape[1]
    posterior = np.repeat(start[:, :, None], draws, axis=2)
    total = counts.sum(axis=0)
    voters = design.shape[1] // values
    accuracy = np.empty((voters, draws))
    moving = np.arange(draws)
    old = np.zeros(())
    first = start
    for _ in range(STEPS):
        expected = posterior * counts[:, None, moving]
        prior = np.maximum(expected.sum(axis=0) / total[moving], EPS)
        # [voter, said, true, draw]
        said = (design.T @ expected.reshape(patterns, -1)).reshape(voters, values, values, -1)
        right = np.einsum("vkkd->vd", said)
        spoken = said.sum(axis=(1, 2))
        accuracy[:, moving] = np.divide(
            right, spoken, out=np.full(right.shape, np.nan), where=spoken > 0
        )
        clipped = np.maximum(said, EPS)
        log = np.log(clipped / clipped.sum(axis=1, keepdims=True))
        posterior = (design @ log.reshape(voters * values, -1)).reshape(expected.shape)
        posterior += np.log(prior)
        posterior -= posterior.max(axis=1, keepdims=True)  # else many voters' product underflows
        np.exp(posterior, out=posterior)
        posterior /= posterior.sum(axis=1, keepdims=True)
        if moving[0] == 0:
            first = posterior[:, :, 0]
        going = np.abs(said - old).max(axis=(0, 1, 2)) > tolerance * np.sqrt(total[moving])
        if not going.any():
            break
        moving, old, posterior = moving[going], said[..., going], posterior[:, :, going]
    return first, accuracy


def pairwise_accuracy(question: Patterns) -> Accuracy:
    """Accuracies that explain how often each two voters agree, without a look at any fused label.

    Where voters err independently and errors fall evenly on the K - 1 other answers, two voters agree
    beyond chance by s s', with s = (K accuracy - 1) / (K - 1): a matrix of rank one (Ma, Olshevsky,
    Saligrama & Szepesvári 2018, "Gradient descent for sparse rank-one matrix completion for
    crowd-sourced aggregation of sparsely interacting workers"). So three voters determine
    s² = (s s')(s s'') / (s' s''), as in Bonald & Combes (2017); with more, products and divisors are
    summed over all threes. NaN for a voter without a three, or where the others agree just as often
    as by chance. Who agrees with the others less than by chance is below chance.
    """
    voters, values = len(question.answers), question.values
    pairs = list(combinations(range(voters), 2))
    both, same = agreeing(question.answers, pairs)

    def accuracy(counts: Table) -> Table:
        common, agreed = both @ counts, same @ counts
        share = np.divide(agreed, common, out=np.full(common.shape, np.nan), where=common > 0)
        beyond = np.empty((voters, voters, counts.shape[1]))
        for (one, other), value in zip(pairs, (values * share - 1) / (values - 1), strict=True):
            beyond[one, other] = beyond[other, one] = value
        skill = np.full((voters, counts.shape[1]), np.nan)
        for voter in range(voters):
            others = [other for other in range(voters) if other != voter]
            product, divisor = np.zeros((2, counts.shape[1]))
            for one, other in combinations(others, 2):
                known = ~np.isnan(beyond[voter, one] + beyond[voter, other] + beyond[one, other])
                sign = np.sign(beyond[one, other])
                product[known] += (sign * beyond[voter, one] * beyond[voter, other])[known]
                divisor[known] += np.abs(beyond[one, other])[known]
            square = np.divide(product, divisor, out=np.full_like(product, np.nan), where=divisor > SAME)
            side = np.where(np.nansum(beyond[voter, others], axis=0) < 0, -1, 1)
            skill[voter] = np.clip(side * np.sqrt(square.clip(0)), -1 / (values - 1), 1)
        return np.asarray((1 + (values - 1) * skill) / values)

    return accuracy


def agreeing(answers: Answers, pairs: Sequence[tuple[int, int]]) -> tuple[Table, Table]:
    """[pairs, n]: 1 where both of a pair answered, and where they answered the same."""
    one, other = (answers[[pair[at] for pair in pairs]] for at in (0, 1))
    both = (one != NONE) & (other != NONE)
    return both.astype(np.float64), (both & (one == other)).astype(np.float64)


def check(votes: Votes, voters: Sequence[str], space: LabelSpace) -> None:
    """`Problem` unless `votes` is [voters, n, labels] and holds valid answers and NaN rows only."""
    if votes.ndim != 3 or (len(votes), votes.shape[2]) != (len(voters), len(space.labels)):
        raise Problem(
            f"votes have the shape {votes.shape}, expected ({len(voters)}, n, {len(space.labels)})",
            where=f"codebook {space.codebook}",
        )
    blank = np.isnan(votes)
    good = ((votes == 0) | (votes == 1)).all(axis=2)
    if not space.many:
        good &= votes.sum(axis=2) == 1
    bad = ~good & ~blank.all(axis=2)
    if bad.any():
        voter, row = np.argwhere(bad)[0]
        wanted = "0 or 1 for each label" if space.many else "1 for one label and 0 for the others"
        raise Problem(
            f"votes outside 0/1: row {row} of voter '{voters[voter]}' isn't {wanted},"
            f" {int(bad.sum()):,} such votes in all",
            where=f"codebook {space.codebook}",
        )


def asked(votes: Votes, space: LabelSpace) -> list[Patterns]:
    """The votes as one question with an answer a label, or for many as a question no, yes a label."""
    silent = np.isnan(votes[:, :, 0])
    if not space.many:
        return [
            Patterns.among(np.where(silent, NONE, np.nan_to_num(votes).argmax(axis=2)), votes.shape[2])
        ]
    answers = np.where(silent[:, :, None], NONE, np.nan_to_num(votes)).astype(np.int64)
    return [Patterns.among(answers[:, :, label], 2) for label in range(votes.shape[2])]


def resampled(
    questions: Sequence[Patterns], groups: Numbers, draws: int, rng: np.random.Generator
) -> Iterator[list[Table]]:
    """Bootstrap counts of each question's patterns, [patterns, some draws] at a time, `draws` in all.

    A draw takes as many groups as there are, with replacement, and all rows of each.
    """
    names, group = np.unique(groups, return_inverse=True)
    units = len(names)
    held = [
        csr_matrix((np.ones(len(group)), (question.of, group)), shape=(question.answers.shape[1], units))
        for question in questions
    ]
    widest = max(units, *(question.answers.shape[1] for question in questions))
    step = max(1, CELLS // widest)
    for done in range(0, draws, step):
        times = np.empty((units, min(step, draws - done)))
        for draw in range(times.shape[1]):
            times[:, draw] = np.bincount(rng.integers(units, size=units), minlength=units)
        yield [matrix @ times for matrix in held]


def interval(value: float, drawn: Table) -> dict[str, float | None]:
    """`value` with its 95 % percentile interval, of the draws that define it; null where NaN."""
    known = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(known):
        return {"value": None if np.isnan(value) else round(float(value), 6), "low": None, "high": None}
    low, high = np.percentile(known, (2.5, 97.5))
    shown = (("value", value), ("low", low), ("high", high))
    return {name: round(float(number), 6) for name, number in shown}


def _estimates(
    questions: Sequence[Patterns],
    estimators: Sequence[Accuracy],
    groups: Numbers,
    draws: int,
    rng: np.random.Generator,
) -> tuple[Table, Table]:
    """Accuracies [questions, voters], and in each draw [questions, voters, draws]."""
    values = [fit(question.counts)[:, 0] for fit, question in zip(estimators, questions, strict=True)]
    drawn = [
        np.stack([fit(one) for fit, one in zip(estimators, counts, strict=True)])
        for counts in resampled(questions, groups, draws, rng)
    ]
    return np.stack(values), np.concatenate(drawn, axis=2)


def _teacher(
    votes: Table, judged: Scores, values: Table, drawn: Table, space: LabelSpace
) -> dict[str, Any]:
    """What `fuse` says of one voter: `votes`, `judged` [n, labels], `values` [questions], `drawn`
    [questions, draws]."""
    counted = ~np.isnan(votes + judged).any(axis=1)
    said, true = votes[counted], judged[counted]
    if not space.many:
        return {"accuracy": interval(values[0], drawn[0]), "confusion": _confusion(true, said)}
    labels = {}
    for at, label in enumerate(space.labels):
        no_yes = [np.stack([1 - flags[:, at], flags[:, at]], axis=1) for flags in (true, said)]
        labels[label] = {"accuracy": interval(values[at], drawn[at]), "confusion": _confusion(*no_yes)}
    return {"accuracy": interval(values.mean(), drawn.mean(axis=0)), "labels": labels}


def _confusion(true: Table, said: Table) -> list[list[float]]:
    counts: list[list[float]] = (true.T @ said).round(3).tolist()
    return counts


def _weights(settings: params.Fuse, voters: Sequence[str]) -> Table:
    if unknown := sorted(set(settings.weights) - set(voters)):
        raise Problem(
            f"weights of no voter: {', '.join(unknown)}; the voters are {', '.join(voters)}",
            where="params.yaml: fuse.weights",
        )
    return np.array([settings.weights.get(voter, 1.0) for voter in voters])


def _refuse_silence(
    answered: Flags, enough: NDArray[np.bool_], voters: Sequence[str], settings: params.Fuse
) -> None:
    """`Problem` where there are no votes, none of a voter, or nowhere as many as needed."""
    if not answered.any():
        raise Problem("no votes at all", where="fuse", remedy="Collect the voters' answers first.")
    if silent := [voter for voter, row in zip(voters, answered, strict=True) if not row.any()]:
        raise Problem(
            f"no valid answer of {', '.join(silent)}",
            where="fuse",
            remedy="Collect its answers, or take it out of the voters.",
        )
    if not enough.any():
        raise Problem(
            f"no row has {settings.min_votes} valid votes",
            where="params.yaml: fuse.min_votes",
            remedy=f"Set it to {int(answered.sum(axis=0).max())} or less.",
        )
