"""What would be asked of each voter, at what price; then the requests, and the record of what leaves."""

from dataclasses import asdict
from pathlib import Path

from undertone import stage, tables
from undertone.codebook import read_codebook
from undertone.corpus.ledger import Ledger
from undertone.files import whole, write_json
from undertone.params import Params
from undertone.voters import request

NOT_ASKED = "not asked"


def main(
    params: Params, *, source: str, codebook: Path, comments: Path, out: Path, plan: Path, ledger: Path
) -> str:
    given = tables.read(comments, ("id", "text"))
    table = request.chosen(given, params.request[source], seed=params.split.seed)
    asked = request.ballots(params.request[source], read_codebook(codebook).asked(params.data.scheme))
    plans = request.plan(table, asked, params.providers, params.prices, params.answer[source])
    sent = request.rendered(asked)
    if plans:
        print(request.told(plans, sent))
    with whole(out) as folder:
        request.write(table, asked, params.providers, plans, folder)
    write_json(plan, {"voters": [asdict(one) for one in plans], "rendered": sent})
    Ledger("request", len(given), len(table), {NOT_ASKED: len(given) - len(table)}).save(ledger)
    return f"{len(table):,} of {len(given):,} rows × {len(plans)} voters"


if __name__ == "__main__":
    stage.run(main)
