"""What the stages leave of a small table, made by the functions that they call."""

from typing import Any

import numpy as np
import pandas as pd

from undertone.corpus import certificate
from undertone.corpus.ledger import Ledger
from undertone.labels import LabelSpace
from undertone.measures import evaluation, prevalence
from undertone.measures.evaluation import Judges
from undertone.params import Clean, Hourly, Split
from undertone.reporting import report

SECRET = "unrepeatable"  # in every text; no page may hold it
SPLIT = {
    "seed": 1, "validation": 0.3, "test": 0.3, "order": "random", "min_support": 3,
    "rare": "refuse", "merge_into": "other", "train_rows": None, "folds": None,
}  # fmt: skip
ONNX = {  # milliseconds, bytes
    "onnx-int8": (2.0, 2_000_000), "onnx-fp32": (5.0, 8_900_000), "onnx-bad": (1.0, 2_000_000),
}  # fmt: skip
LEARNT = [
    {"step": 10, "loss": 0.9, "learning_rate": 1e-4},
    {"step": 20, "loss": 0.5},
    {"step": 20, "train_loss": 0.5, "train_macro_f1": 0.8, "validation_loss": 0.6},
    {"step": 20, "validation_macro_f1": 0.7},
    {"step": 40, "train_loss": 0.2, "train_macro_f1": 0.99, "validation_loss": None},
    {"step": 40, "validation_macro_f1": 0.65},
]


def space(*, many: bool = False, abstain: float | None = None) -> LabelSpace:
    made = LabelSpace.of("moods", ["calm", "angry", "wry"], many=many)
    return made if abstain is None else LabelSpace(**{**vars(made), "abstain": abstain})


MIXES = {
    name: {
        "name": "own",
        "weights": {"table": 1.0, "noise": "none"},
        "rows": {"table": {"rows": 120, "weight": 120.0}},
    }
    for name in ("good", "fair", "mute")
}


def table(*, many: bool = False, rows: int = 360) -> pd.DataFrame:
    """Authors with two rows each; every third row also judged by hand, much as it is labelled."""
    rng = np.random.default_rng(0)
    truth = np.eye(3)[rng.choice(3, rows, p=[0.5, 0.3, 0.2])]
    if many:
        truth = np.maximum(truth, rng.random((rows, 3)) < 0.2)
    gold = np.where((np.arange(rows) % 9 < 3)[:, None], truth, np.nan)
    labels = ("calm", "angry", "wry")
    return pd.DataFrame(
        {
            "id": [f"{at:03d}" for at in range(rows)],
            "text": [f"{SECRET} {at} " + "word " * (at % 7) for at in range(rows)],
            "group": [f"author {at // 2}" for at in range(rows)],
            "part": np.resize(np.repeat(["train", "validation", "test"], 2), rows),
            "repeat": range(rows),
            "meta.site": np.resize(["left", "left", "right"], rows),
            **{f"label.{label}": truth[:, at] for at, label in enumerate(labels)},
            **{f"gold.{label}": gold[:, at] for at, label in enumerate(labels)},
        }
    )


def scored(rows: pd.DataFrame, noise: float, *, many: bool, silent: int | None = None) -> pd.DataFrame:
    """Scores that are right but for noise; every `silent`-th row has no valid answer."""
    rng = np.random.default_rng(1)
    truth = rows[["label.calm", "label.angry", "label.wry"]].to_numpy(np.float64)
    logits = 4 * truth - 2 + noise * rng.normal(size=truth.shape)
    odds = np.exp(logits)
    scores = odds / (1 + odds) if many else odds / odds.sum(axis=1, keepdims=True)
    if silent:
        scores[::silent] = np.nan
    return pd.DataFrame(scores, columns=["calm", "angry", "wry"]).assign(id=rows["id"])


def judges(rows: pd.DataFrame, *, many: bool = False) -> Judges:
    own = space(many=many)
    return {
        "good": (own, scored(rows, 0.5, many=many)),
        "fair": (space(many=many, abstain=0.6), scored(rows, 3.0, many=many)),
        "mute": (own, scored(rows, 3.0, many=many, silent=5)),
    }


REVIEWED = {
    "reviews": 1, "asked": 60, "unfilled": 1, "gone": 2, "reviewed": 57, "differing": 4, "settled": 3,
    "undecided": 1, "gold": 56, "of_other_labels": 0,
    "arms": {"low confidence": {"asked": 20, "reviewed": 20, "gold": 19},
             "random": {"asked": 40, "reviewed": 37, "gold": 37}},
    "agreement": {
        "n": {"reviewer 1": 57, "reviewer 2": 56}, "alpha": {"value": 0.8, "low": 0.7, "high": 0.9},
        "pairs": [{"between": ["reviewer 1", "reviewer 2"], "n": 56}
                  | {figure: {"value": 0.9, "low": 0.8, "high": 0.95}
                     for figure in ("raw", "kappa", "alpha")}],
    },
}  # fmt: skip


MACHINE = {
    "versions": {"numpy": "2"}, "processor": "p", "gpu": None, "threads": 2, "system": "s",
    "python": "3",
}  # fmt: skip
SEARCHED = {
    "pool": 1,
    "labels": {
        "wry": {
            "examples_of_the_codebook": 3, "examples_of_the_training_part": 12, "other_examples": 40,
            "looked_through": 1, "found": 1,
            "score": {"lowest": 0.1, "median": 0.1, "highest": 0.1},
            "score_of_examples": {"lowest": -0.1, "median": 0.2, "highest": 0.3},
        },
    },
    "random": {"rows": 0, "inclusion": None},
}  # fmt: skip


def results(*, many: bool = False) -> report.Results:
    rows, own = table(many=many), space(many=many)
    asked = judges(rows, many=many)
    drawn: dict[str, Any] = {"draws": 60, "seed": 0}
    evaluated = evaluation.evaluate_all(rows, asked, own, **drawn)
    compared = evaluation.compare_all(rows, asked, own, metric="macro_f1", **drawn)
    sizes = {"good": (8.0, 9_000_000), "fair": (0.5, 300_000), "mute": (20.0, 0)}
    costs = {name: {"ms": ms, "bytes": size} for name, (ms, size) in sizes.items()}
    gold = rows[["gold.calm", "gold.angry", "gold.wry"]].to_numpy(np.float64)
    shares = prevalence.prevalence(asked["good"][1][list(own.labels)].to_numpy(), gold, own)
    parity = {
        "max_difference": 0.01,
        "agreement": 1.0,
        "macro_f1": 0.9,
        "drop": 0.0,
        "low": -0.01,
        "high": 0.02,
        "p": 0.5,
        "verdict": "no difference shown",
        "alone": 0.0,
    }
    return report.Results(
        source="somewhere",
        ledgers=[Ledger("ingest", 362, 360, {"blank": 2}), Ledger("clean", 360, 360)],
        asked={"voters": []},
        collected={},
        fused={},
        split=certificate.certificate(
            rows,
            own,
            Split.model_validate(SPLIT),
            Clean(similarity=0.8, shingle=5),
            rare={"odd": 2},
            into=None,
        ),
        generated={"asked": 0},
        evaluated=evaluated,
        compared=compared,
        curves=evaluation.curves(rows, asked, own, **drawn),
        slices=evaluation.by_slice(rows, asked, own, ["meta.site"], min_rows=5, **drawn),
        selection=evaluation.select(evaluated, compared, costs, ["good"], "macro_f1"),
        cost={"machine": MACHINE, "words": 12, "candidates": costs},
        prevalence={"judge": "good", **shares},
        reviewed=REVIEWED,
        manifest={"codebook": "moods", "candidate": "good", "variant": "int8",
                  "data": {"comments": "0123456789abcdef"}},
        latency={
            "machine": MACHINE,
            "encoder": "good",
            "models": {
                name: {"bytes": size, "starts": 1, "cold_start_ms": 1234.0, "loaded_bytes": size,
                       "peak_bytes": 2 * size}
                for name, (_, size) in (sizes | ONNX).items()
            },
            "rows": [
                {"model": name, "tokens": tokens, "batch": batch, "calls": 10 * tokens // batch,
                 "p50_ms": ms * tokens / 12 * batch / 2 ** (batch > 1),
                 "p95_ms": ms * tokens, "p99_ms": ms * tokens,
                 "comments_per_second": 12_000 / ms / tokens * 2 ** (batch > 1)}
                for tokens in (12, 128)
                for batch in (1, 8)
                for name, (ms, _) in (sizes | ONNX).items()
            ],
        },
        released={
            "variant": "int8",
            "target": None,
            "family": "avx2",
            "runs": {"avx2": "int8", "arm64": "int8"},
            "rule": {"max_drop": 0.01, "min_agreement": 0.97, "near": 1.05, "alone": 0.01},
            "variants": {
                "int8": {"ms": 2.0, "bytes": 2_000_000, "parity": parity, "refused": None,
                         "released_for": ["avx2", "arm64"]},
                "fp32": {"ms": 5.0, "bytes": 8_900_000, "parity": parity, "refused": None,
                         "released_for": []},
                "bad": {"ms": 1.0, "bytes": 2_000_000, "refused": "macro-F1 0.3000 is 0.6000 below",
                        "parity": parity | {"macro_f1": 0.3, "drop": 0.6, "low": 0.5, "high": 0.7},
                        "released_for": []},
            },
        },
        price=Hourly(hour=0.36, currency="EUR"),
        mixes=MIXES,
        pseudo={},
        doubt={"candidate": "good", "part": "validation", "draws": 2, "planted": []},
        searched=SEARCHED,
        newest={"name": "good", "commit": "abcdef01", "date": "2026-01-02", "dirty": "true"},
    )  # fmt: skip
