"""What is asked of the writer of new rows, and at what price: the codebook, and training rows as
examples; and the record of what leaves."""

from dataclasses import asdict
from pathlib import Path

from undertone import stage, tables
from undertone.augmentation import writing
from undertone.codebook import read_codebook
from undertone.corpus import split
from undertone.files import whole, write_json
from undertone.labels import LabelSpace
from undertone.params import Params
from undertone.voters import request


def main(
    params: Params,
    *,
    source: str,
    codebook: Path,
    labels: Path,
    comments: Path,
    out: Path,
    plan: Path,
) -> str:
    settings = params.generate[source]
    if settings is None:
        with whole(out) as folder:
            writing.nothing(folder)
        write_json(plan, {"voters": [], "rendered": []})
        return "nothing is to be generated"
    space = LabelSpace.load(labels)
    asked = writing.ballot(read_codebook(codebook).learnt(params.data.scheme).within(space), settings)
    made = writing.tasks(tables.read(comments, split.NEEDS), space, settings)
    plans = request.plan(made, [asked], params.providers, params.prices, settings.door)
    rendered = asked.messages(writing.example(asked.codebook, settings))
    print(request.told(plans, rendered))
    with whole(out) as folder:
        writing.write(made, asked, params.providers, plans, folder)
    write_json(plan, {"voters": [asdict(one) for one in plans], "rendered": rendered})
    return f"{made['texts'].sum():,} texts of {made['label'].nunique()} labels in {len(made):,} requests"


if __name__ == "__main__":
    stage.run(main)
