"""The voters' answers, through the source's door: dropped files, a batch service, a local model; and
what was sent for them, to whom."""

from pathlib import Path

from undertone import stage, tables
from undertone.codebook import read_codebook
from undertone.files import whole
from undertone.params import Params
from undertone.voters import doors


def main(
    params: Params,
    *,
    source: str,
    codebook: Path,
    comments: Path,
    requests: Path,
    files: Path,
    out: Path,
    sent: Path,
) -> str:
    voters = params.request[source].voters
    doors.summarise(source, sent)
    with whole(out) as folder:
        folder.mkdir()
        match params.answer[source]:
            case "none":
                return doors.nobody(folder)
            case "files":
                return doors.from_files(source, files / "voters", folder)
            case "endpoint":
                return doors.from_endpoint(
                    source,
                    requests,
                    voters,
                    params.providers,
                    params.endpoint,
                    params.privacy.allowed_hosts,
                    out,
                    sent,
                    folder,
                )
            case "local":
                return doors.from_local_model(source, requests, voters, params.local, folder)
            case "simulated":
                table = tables.read(comments, ("id",))
                book = read_codebook(codebook).asked(params.data.scheme)
                return doors.from_simulation(
                    source, requests, voters, table, book, params.local.seed, folder
                )


if __name__ == "__main__":
    stage.run(main)
