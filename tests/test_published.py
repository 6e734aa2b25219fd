"""Published figures, digit for digit, from their own counts (`published.json` copies figures alone).

- `news`: five confusion matrices are published, with a report each and a table of all.
- `comments` (gender equality in Chinese): only reports and shares of valid answers are published. The
  matrices here are ours: any that has all published digits shows that these are consistent, so none of
  their cells is the study's.
- `toxicity`: only four figures a category are published, at full precision; three counts and the number
  of rows give all of them. How categories go together isn't known.
- `gun_control`: only accuracies on 90 and 23 rows.
- The study of comments on the war in Ukraine (`ukraine`) publishes 76 and 80 % without counts, so there
  is nothing to rebuild.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from undertone.labels import LabelSpace
from undertone.measures import metrics

PUBLISHED = json.loads((Path(__file__).parent / "published.json").read_text("utf-8"))
NEWS, COMMENTS = (PUBLISHED[study]["experiments"] for study in ("news", "comments"))


def evaluated(labels: Sequence[str], confusion: list[list[int]], unanswered: Sequence[int] = ()) -> dict:
    """What the rows of a confusion matrix come to, with so many rows of each label without an answer."""
    matrix = np.column_stack([confusion, unanswered or np.zeros(len(labels), dtype=int)])
    truth, decided = (axis.ravel().repeat(matrix.ravel()) for axis in np.indices(matrix.shape))
    one = np.eye(len(labels) + 1, dtype=bool)
    return metrics.evaluate(
        one[truth][:, :-1],
        one[decided][:, :-1],
        LabelSpace.of("published", labels),
        answered=decided < len(labels),
        groups=np.arange(len(truth)),
        draws=100,
        rng=np.random.default_rng(0),
    )


def lines(report: str) -> list[str]:
    """A report without its layout, as one of the studies prints it."""
    return [" ".join(line.split()) for line in report.splitlines() if line.strip()]


def test_all_experiments_are_here() -> None:
    assert len(NEWS) == 5
    assert len(COMMENTS) == 6
    assert len(PUBLISHED["toxicity"]["labels"]) == 3


@pytest.mark.parametrize("name", NEWS)
def test_news_matrices_give_the_published_reports_and_table(name: str) -> None:
    one = NEWS[name]
    found = evaluated(PUBLISHED["news"]["labels"], one["confusion"])
    assert found["n"] == 908
    assert found["confusion"] == one["confusion"]
    assert lines(metrics.classification_report(found)) == one["report"]
    overall = [found["overall"][metric]["value"] for metric in ("accuracy", "macro_f1", "weighted_f1")]
    own = [found["labels"][label]["f1"]["value"] for label in ("negative", "neutral", "positive")]
    assert [f"{value:.2f}" for value in (*overall, *own)] == one["table"]


@pytest.mark.parametrize("name", COMMENTS)
def test_reports_on_comments_follow_from_a_matrix_and_count_valid_answers_alone(name: str) -> None:
    one, study = COMMENTS[name], PUBLISHED["comments"]
    alone = evaluated(study["labels"], one["confusion"])
    assert lines(metrics.classification_report(alone)) == one["report"]
    assert f"{alone['overall']['accuracy']['value']:.4f}" == one["accuracy"]
    silent = np.subtract(study["support"], np.sum(one["confusion"], axis=1)).tolist()
    everything = evaluated(study["labels"], one["confusion"], silent)
    valid = everything["valid"]
    assert f"{valid['n']} ({valid['share']['value']:.2%})" == one["valid"]
    assert f"{everything['valid_accuracy']['value']:.4f}" == one["accuracy"]
    assert everything["n"] == 14_849
    assert (everything["overall"]["accuracy"] == alone["overall"]["accuracy"]) == (not sum(silent))


def test_an_accuracy_of_valid_answers_alone_hides_that_most_comments_got_none() -> None:
    """The study reports .3753, and says itself that this is about 16 % of all, worse than guessing."""
    study = PUBLISHED["comments"]
    rows = {}
    for name in ("Qwen2.5-3B", "Qwen2.5-0.5B"):
        confusion = COMMENTS[name]["confusion"]
        silent = np.subtract(study["support"], np.sum(confusion, axis=1)).tolist()
        rows[name] = evaluated(study["labels"], confusion, silent)
    base = rows["Qwen2.5-3B"]
    assert (sum(one["hits"] for one in base["labels"].values()), base["valid"]["n"]) == (2_359, 6_285)
    assert f"{base['valid_accuracy']['value']:.4f}" == "0.3753"
    assert f"{base['overall']['accuracy']['value']:.4f}" == "0.1589"
    assert base["overall"]["accuracy"]["high"] < 1 / 4
    # of the smaller base .1490 is published, of its valid answers; of all comments it is less
    assert f"{rows['Qwen2.5-0.5B']['overall']['accuracy']['value']:.4f}" == "0.1187"
    commonest = np.eye(4, dtype=bool).repeat(study["support"], axis=0)
    always = metrics.majority(commonest, len(commonest), LabelSpace.of("published", study["labels"]))
    assert f"{(always & commonest).sum() / len(commonest):.4f}" == "0.4295"


def test_toxicity_figures_follow_from_three_counts_a_category() -> None:
    study = PUBLISHED["toxicity"]
    truth, decided = (np.zeros((study["rows"], len(study["labels"])), dtype=bool) for _ in range(2))
    for column, one in enumerate(study["labels"].values()):
        tp, fp, fn = one["tp_fp_fn"]
        decided[: tp + fp, column] = True
        truth[:tp, column] = truth[tp + fp : tp + fp + fn, column] = True
    found = metrics.evaluate(
        truth,
        decided,
        LabelSpace.of("published", list(study["labels"]), many=True),
        groups=np.arange(len(truth)),
        draws=100,
        rng=np.random.default_rng(0),
    )
    for label, one in study["labels"].items():
        own = found["labels"][label]
        for name in ("accuracy", "precision", "recall", "f1"):
            assert own[name]["value"] == round(one[name], 6)
        # all published digits, from the counts that `evaluate` keeps
        assert own["hits"] / own["decided"] == one["precision"]
        assert own["hits"] / own["support"] == one["recall"]
    # 1 - the mean of the published accuracies
    wrong = 1 - np.mean([one["accuracy"] for one in study["labels"].values()])
    assert found["overall"]["hamming_loss"]["value"] == pytest.approx(wrong, abs=1e-6)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_gun_control_accuracies_are_whole_rows_and_their_intervals_wide(part: str) -> None:
    study = PUBLISHED["gun_control"]
    rows = study["rows"][part]
    widths = {}
    for published in study["accuracy"][part]:
        right = round(published * rows)
        found = evaluated(["agrees", "doesn't"], [[right, rows - right], [0, 0]])
        one = found["overall"]["accuracy"]
        assert f"{one['value']:.2f}" == f"{published:.2f}"
        widths[right] = one["high"] - one["low"]
    if part == "validation":  # 23 rows can't tell .43 from .52, nor most of the table's lines apart
        assert min(widths.values()) > 0.25
