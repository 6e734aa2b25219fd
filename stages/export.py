"""The best encoder as a self-contained ONNX bundle, kept only if it decides as PyTorch does."""

from pathlib import Path

from undertone import bundle, models, onnx, stage, tables, tracking
from undertone.files import md5, whole
from undertone.params import Params
from undertone.predictor import Predictor


def main(params: Params, *, source: str, encoder: Path, comments: Path, out: Path) -> str:
    model = models.load(encoder)
    candidate = models.Recipe.load(encoder / models.RECIPE).candidate
    table = tables.read(comments, ("id", "text", "part"))
    validation = models.examples(table, "validation", model.space)
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
            bundle.write(model, folder, candidate=candidate, opset=params.export.opset, digests=digests)
            parities = {
                variant: onnx.parity(
                    reference,
                    Predictor.load(folder, variant=variant).scores(validation.texts),
                    validation.truth,
                    model.space,
                )
                for variant in onnx.VARIANTS
            }
            run.metrics(
                {
                    f"{variant}_{name}": value
                    for variant, one in parities.items()
                    for name, value in one.items()
                }
            )
            onnx.check_drop(parities, max_drop=params.export.max_drop)
            bundle.add_parity(folder, parities)
        run.tag({"model.md5": md5(out), "model.path": out.as_posix()})
    int8 = parities["int8"]
    return f"{candidate}: int8 agrees on {int8['agreement']:.1%}, macro-F1 {-int8['drop']:+.4f}"


if __name__ == "__main__":
    stage.run(main)
