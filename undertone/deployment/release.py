"""Which variant of an encoder is released: the fastest that still decides as PyTorch does."""

import shutil
from collections.abc import Mapping, Sequence
from math import exp, log
from pathlib import Path
from typing import Any, get_args

from undertone.deployment.predictor import Family, read_manifest, seal, verify
from undertone.errors import Problem
from undertone.params import Choose

NEAR = 1.05  # a variant within 5 % of the fastest is as fast, on a machine that others use too
ALONE = 0.01  # how far a text's score may move with its neighbours


def choose(
    manifest: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    rule: Choose,
    family: Family,
) -> dict[str, Any]:
    """What is released, and why, as JSON has it.

    `manifest`: of the exported bundle, with each variant's parity; `rows`: what `latency.measure` found
    on a machine of `family`. For it, the fastest variant that passes `rule`; as fast as that counts who
    is within `NEAR` of it, and of these the smallest wins, then who agrees most. For the other
    families this machine's times decide among the variants that they can run. Where the winner needs
    another backend than onnxruntime, the best for that stands behind it, for machines without the other.
    `variants`: each one's geometric mean of the p50 at batch 1 over the lengths, and what became of it.
    `Problem` with the numbers where none passes.
    """
    variants = manifest["variants"]
    ms = {name: _ms(rows, f"onnx-{name}") for name, one in variants.items() if "parity" in one}
    refused = {name: _refusal(one.get("parity"), rule) for name, one in variants.items()}
    passed = [name for name in variants if not refused[name]]
    runs = {}
    for one in get_args(Family):
        able = [name for name in passed if one in variants[name]["families"]]
        if not any(variants[name]["backend"] == "onnxruntime" for name in able):
            told = "; ".join(f"{name}: {why}" for name, why in refused.items() if why)
            raise Problem(
                f"no variant for {one} passes export.choose: {told}",
                where=f"the ONNX graphs of {manifest['candidate']}",
                remedy="Export another candidate, or loosen the rule.",
            )
        anywhere = [name for name in able if variants[name]["backend"] == "onnxruntime"]
        best = [_best(names, ms, variants) for names in (able, anywhere)]
        runs[one] = list(dict.fromkeys(best))
    return {
        "family": family,
        "variant": runs[family][0],
        "runs": runs,
        "rule": {**rule.model_dump(mode="json"), "near": NEAR, "alone": ALONE},
        "variants": {
            name: {
                "ms": round(ms[name], 3) if name in ms else None,
                "bytes": own["bytes"],
                "parity": own.get("parity"),
                "refused": refused[name],
                "released_for": [one for one, chosen in runs.items() if name in chosen],
            }
            for name, own in variants.items()
        },
    }


def write(exported: Path, folder: Path, runs: Mapping[str, Sequence[str]]) -> None:
    """Fill the new folder `folder` with what `runs` (CPU family → variants) names of `exported`."""
    folder.mkdir(parents=True)
    manifest = read_manifest(exported)
    named = {name for names in runs.values() for name in names}
    kept = {name: one for name, one in manifest["variants"].items() if name in named}
    for name in ("tokenizer.json", "labels.json", *(one["file"] for one in kept.values())):
        verify(exported / name, manifest["sha256"].get(name))
        shutil.copyfile(exported / name, folder / name)
    seal(folder, {**manifest, "runs": dict(runs), "variants": kept})


def told(chosen: Mapping[str, Any]) -> str:
    """`int8 for avx512_vnni and arm64, int8_7bit for avx2; refused: int8_static (…)`."""
    released = [
        f"{name} for {' and '.join(one['released_for'])} (drop {one['parity']['drop']:+.4f}, agreement"
        f" {one['parity']['agreement']:.1%})"
        for name, one in chosen["variants"].items()
        if one["released_for"]
    ]
    refused = [
        f"{name} ({one['refused']})" for name, one in chosen["variants"].items() if one["refused"]
    ]
    return ", ".join(released) + (f"; refused: {', '.join(refused)}" if refused else "")


def _best(names: Sequence[str], ms: Mapping[str, float], variants: Mapping[str, Any]) -> str:
    fastest = min(ms[name] for name in names)
    near = [name for name in names if ms[name] <= fastest * NEAR]
    return min(near, key=lambda name: (variants[name]["bytes"], -variants[name]["parity"]["agreement"]))


def _ms(rows: Sequence[Mapping[str, Any]], model: str) -> float:
    times = [log(row["p50_ms"]) for row in rows if row["model"] == model and row["batch"] == 1]
    if not times:
        raise Problem(
            f"{model} was not measured at batch 1", where="bench", remedy="Run `dvc repro bench`."
        )
    return exp(sum(times) / len(times))


def _refusal(parity: Mapping[str, Any] | None, rule: Choose) -> str | None:
    """Why a variant is not released; None where it may be."""
    if parity is None:
        return "not measured: not for the CPU that exported it"
    faults = []
    if not parity["drop"] <= rule.max_drop:
        faults.append(f"macro-F1 {parity['macro_f1']:.4f} is {parity['drop']:.4f} below PyTorch's")
    if not parity["agreement"] >= rule.min_agreement:
        faults.append(f"{parity['agreement']:.1%} decided alike")
    if parity["verdict"] == "worse":
        faults.append(f"shown to be worse, p {parity['p']:.4f}")
    if not parity["alone"] <= ALONE:
        faults.append(f"a score moves by {parity['alone']:.3f} with a text's neighbours")
    return ", ".join(faults) or None
