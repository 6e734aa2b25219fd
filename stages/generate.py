"""What the writer answers, through the same doors as the voters; and what was sent for it, to whom."""

from pathlib import Path

from undertone import stage, tables
from undertone.augmentation import ghostwriter, writing
from undertone.codebook import read_codebook
from undertone.corpus import split
from undertone.files import whole
from undertone.labels import LabelSpace
from undertone.params import Params
from undertone.voters import doors

NAME = "generate"


def main(
    params: Params,
    *,
    source: str,
    codebook: Path,
    labels: Path,
    comments: Path,
    requests: Path,
    files: Path,
    out: Path,
    sent: Path,
) -> str:
    settings = params.generate[source]
    doors.summarise(source, sent, stage=NAME)
    with whole(out) as folder:
        folder.mkdir()
        if settings is None:
            doors.nobody(folder)
            return "nothing is to be generated"
        writers = {writing.WRITER: settings.writer}
        match settings.door:
            case "files":
                return doors.from_files(source, files / "writer", folder, requests=requests.name)
            case "endpoint":
                return doors.from_endpoint(
                    source,
                    requests,
                    writers,
                    params.providers,
                    params.endpoint,
                    params.privacy.allowed_hosts,
                    out,
                    sent,
                    folder,
                    stage=NAME,
                    joined=split.JOINED,
                )
            case "local":
                return doors.from_local_model(source, requests, writers, params.local, folder)
            case "simulated":
                table = tables.read(comments, split.NEEDS)
                asked = tables.read(requests / "asked.parquet", writing.ASKED, key="custom_id")
                book = read_codebook(codebook).learnt(params.data.scheme)
                return ghostwriter.answers(
                    asked,
                    dict(zip(table["id"], table["text"], strict=True)),
                    book.within(LabelSpace.load(labels)),
                    settings.writer,
                    seed=params.local.seed,
                    out=folder,
                )


if __name__ == "__main__":
    stage.run(main)
