"""Train, validation and test. No author and no near-repeat on two sides."""

from pathlib import Path

from undertone import files, split, stage, tables
from undertone.labels import LabelSpace
from undertone.params import Params


def main(
    params: Params, *, labels: Path, comments: Path, out: Path, certificate: Path, ledger: Path
) -> str:
    space = LabelSpace.load(labels)
    table = tables.read(comments, split.NEEDS)
    parts, counts = split.split(table, space, params.split)
    proof = split.certificate(parts, space, params.split)
    tables.write(parts, out, split.NEEDS)
    files.write_json(certificate, proof)
    counts.save(ledger)
    return f"{len(table):,} rows → {split.told(parts, space)}"


if __name__ == "__main__":
    stage.run(main)
