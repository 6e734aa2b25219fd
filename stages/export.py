"""The best encoder as ONNX graphs, each held against PyTorch on validation."""

from pathlib import Path

import numpy as np

from undertone import models, stage, tables
from undertone.deployment import bundle, onnx
from undertone.deployment.predictor import Predictor, family
from undertone.files import md5, whole
from undertone.params import Params
from undertone.records import tracking


def main(params: Params, *, source: str, encoder: Path, comments: Path, out: Path) -> str:
    model = models.load(encoder)
    candidate = models.Recipe.load(encoder / models.RECIPE).candidate
    table = tables.read(comments, ("id", "text", "part", "group"))
    validation = models.examples(table, "validation", model.space)
    groups = tables.groups(table[table["part"] == "validation"])
    training = models.examples(table, "train", model.space).texts
    digests = {"comments": md5(comments), "encoder": md5(encoder)}
    with tracking.run(
        experiment=model.space.codebook,
        name=f"export-{candidate}",
        stage="export",
        settings=params.export,
        data=digests,
        tags={"source": source, "candidate": candidate, "family": model.settings.family},
    ) as run:
        with whole(out) as folder:
            # first: the export moves the model to the CPU
            reference = models.scored(model, validation.texts)
            drawn = np.random.default_rng(params.seed).permutation(len(training))
            bundle.write(
                model,
                folder,
                candidate=candidate,
                opset=params.export.opset,
                calibration=[training[row] for row in drawn[: params.export.calibration]],
                digests=digests,
            )
            parities = {}
            for variant in [name for name, one in onnx.VARIANTS.items() if family() in one.families]:
                predictor = Predictor.load(folder, variant=variant)
                scores = predictor.scores(validation.texts)
                parities[variant] = onnx.parity(
                    reference,
                    scores,
                    validation.truth,
                    model.space,
                    groups=groups,
                    draws=params.evaluate.draws,
                    seed=params.seed,
                ) | onnx.neighbours(predictor, validation.texts, scores)
            run.metrics(
                {
                    f"{variant}_{name}": value
                    for variant, one in parities.items()
                    for name, value in one.items()
                    if isinstance(value, float)
                }
            )
            bundle.add_parity(folder, parities)
        run.tag({"model.md5": md5(out), "model.path": out.as_posix()})
    shown = ", ".join(
        f"{variant} agrees on {one['agreement']:.1%}, macro-F1 {-one['drop']:+.4f}"
        for variant, one in parities.items()
    )
    return f"{candidate}: {shown}"


if __name__ == "__main__":
    stage.run(main)
