"""What a candidate's language model is asked, apart from the comment; nothing for other families."""

from pathlib import Path

from undertone import models, stage
from undertone.annotation.prompts import Instruction
from undertone.codebook import read_codebook
from undertone.files import write_json
from undertone.labels import LabelSpace
from undertone.params import Asked, Params


def main(params: Params, *, codebook: Path, labels: Path, recipe: Path, out: Path) -> str:
    own = models.Recipe.load(recipe).settings
    if not isinstance(own, Asked):
        write_json(out, {})
        return f"{own.family} is asked nothing"
    whole = read_codebook(codebook).learnt(params.data.scheme)
    book = whole.within(LabelSpace.load(labels))
    prompt = own.prompt if book is whole else None  # the codebook's name labels that the split dropped
    instruction = Instruction.of(book, prompt, definitions=own.definitions, shots=own.shots)
    write_json(out, instruction.to_json())
    return f"{len(book.labels)} labels, {len(instruction.shots)} examples"


if __name__ == "__main__":
    stage.run(main)
