"""Nothing private stands where others may see it, or the pipeline stops here and says where."""

from pathlib import Path

from undertone import stage
from undertone.errors import Problem
from undertone.files import root, write_json
from undertone.params import Params
from undertone.privacy import audit
from undertone.privacy.needles import Needles, public_texts, read


def main(
    params: Params,
    *,
    source: str,
    raw: Path,
    comments: Path,
    release: Path,
    registered: Path,
    report: Path,
    page: Path,
    pictures: Path,
    out: Path,
) -> str:
    rows = read(raw, [comments], source, params.ingest[source])
    needles = Needles.made(rows, public_texts(Path(), params.audit.public))
    # an experiment's copy of the repository has files of its own
    made = audit.Place(
        "this run", lambda: audit.files(Path(), [registered, report, page, pictures, release])
    )
    done = list(audit.reports(root(), needles, also=[made]))
    found = [finding for one in done for finding in one.findings]
    if found:
        raise Problem(audit.told(done, needles))
    places = [one.place.name for one in done]
    write_json(out, {"rows": needles.counts, "places": places, "findings": len(found)})
    size = sum(one.size for one in done)
    clean = f"{needles.counts['rows']:,} rows searched for in {size / 1e6:,.0f} MB: none found"
    return "; not looked at: ".join([clean, *audit.unlooked(done)])


if __name__ == "__main__":
    stage.run(main)
