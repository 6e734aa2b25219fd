"""A base reads on in the comments, and nothing of validation and test is among them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    Qwen2Model,
    T5Config,
    logging,
)

from stages import adapt as stage
from tests import tiny
from undertone import tables
from undertone.errors import Problem
from undertone.files import md5, read_json, sha256
from undertone.networks.bases import materialise
from undertone.params import Adapt, Clean, read_params
from undertone.tuning import adapt

ALIKE = Clean(similarity=0.8, shingle=5)

SETTINGS = Adapt(epochs=2, batch=4, lr=1e-2, max_length=32)


def comments(*rows: tuple[str, str, str | None, str | None, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["id", "text", "group", "part", "repeat"])


def parts(**of: str) -> pd.DataFrame:
    return pd.DataFrame({"id": list(of), "part": list(of.values())})


def test_a_base_reads_no_validation_or_test_row_and_none_that_is_tied_to_one() -> None:
    table = comments(
        ("a", "learnt", "ann", None, 0),
        ("b", "validated", "ben", None, 1),
        ("c", "tested", None, None, 2),
        ("d", "no label", "dan", None, 3),
        ("e", "tested!", "eve", None, 2),  # repeats c
        ("f", "the tester's other row", "Ben ", None, 4),  # b's author, otherwise written
        ("g", "no label, officially test", "gus", "test", 5),
        ("h", "its author's other row", "gus", None, 6),
        ("i", "learnt", "ida", None, 0),  # an equal text
        ("j", "nobody's", None, None, 7),  # as c's author, who isn't the same nobody
    )
    split = parts(a="train", b="validation", c="test", i="train", j="train")
    assert adapt.readable(table, split, ALIKE) == ["learnt", "no label", "nobody's"]


def test_what_is_like_a_test_row_is_not_read_though_it_was_never_marked_as_a_repeat() -> None:
    tested = "they raised the pay of everybody in the second office last week"
    table = comments(
        ("a", tested, "ann", None, 1),
        ("b", f"{tested}!!", "bob", None, 2),
        ("c", "nothing of the kind", "cyn", None, 3),
    )
    split = pd.DataFrame({"id": ["a"], "part": ["test"]})
    assert adapt.readable(table, split, ALIKE) == ["nothing of the kind"]
    other = Clean(similarity=0.999, shingle=5)
    assert len(adapt.readable(table.assign(text=["x y z", *table["text"][1:]]), split, other)) == 2


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder") / "base"
    materialise("scratch:1x32", folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with a mask token."""
    folder = tiny.base(tmp_path_factory.mktemp("encoder") / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    tokenizer.save_pretrained(folder)
    model = AutoModel.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    return folder


def texts(count: int) -> list[str]:
    """Words that follow each other in one order, and a number of each text's own."""
    return [f"{' '.join(tiny.WORDS[at % 8 : at % 8 + 6])} {at}" for at in range(count)]


def adapted(
    base: Path, out: Path, of: Sequence[str], settings: Adapt = SETTINGS, seed: int = 1
) -> dict[str, Any]:
    out.mkdir()
    return adapt.adapt(base, of, settings, seed=seed, out=out)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def others(folder: Path) -> dict[str, str]:
    """The digests of the files that aren't weights or an account of them."""
    told = {"base.json", "adapted.json", "model.safetensors"}
    return {path.name: sha256(path) for path in folder.iterdir() if path.name not in told}


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_base_gets_better_at_the_comments_and_changes_in_nothing_but_its_weights(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base = request.getfixturevalue(kind)
    told = adapted(base, tmp_path / "out", texts(200))
    assert told["loss_after"] < 0.8 * told["loss_before"]
    assert others(tmp_path / "out") == others(base)
    before, after = weights(base), weights(tmp_path / "out")
    assert {name: (one.shape, one.dtype) for name, one in before.items()} == {
        name: (one.shape, one.dtype) for name, one in after.items()
    }
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == ({"pooler.dense.bias", "pooler.dense.weight"} if kind == "encoder" else set())


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_the_same_texts_in_any_order_make_the_same_bytes(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base, some = request.getfixturevalue(kind), texts(40)
    adapted(base, tmp_path / "one", some)
    adapted(base, tmp_path / "two", some[::-1])
    adapted(base, tmp_path / "three", some, seed=2)
    assert md5(tmp_path / "one") == md5(tmp_path / "two")
    assert md5(tmp_path / "one") != md5(tmp_path / "three")


def test_what_is_told_is_counts_losses_and_digests(decoder: Path, tmp_path: Path) -> None:
    told = adapted(decoder, tmp_path / "out", texts(151))
    assert read_json(tmp_path / "out" / "adapted.json") == told
    assert (told["texts"], told["held_out"]) == (147, 4)
    uniform = np.log(len(AutoTokenizer.from_pretrained(decoder)))  # random weights know nothing
    assert told["loss_before"] == pytest.approx(uniform, rel=0.05)
    assert told["sha256"] == {"model.safetensors": sha256(tmp_path / "out" / "model.safetensors")}
    assert not (tmp_path / "out" / "base.json").exists()  # it would tell of other weights


def test_a_decoder_s_texts_fill_its_rows(decoder: Path, tmp_path: Path) -> None:
    some = ["a " * 6 + f"{at:04d}" for at in range(100)]
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    length = len(tokenizer(some[0])["input_ids"]) + 1  # and the end token
    settings = SETTINGS.model_copy(update={"epochs": 1.5})
    told = adapted(decoder, tmp_path / "out", some, settings)
    rows = int(1.5 * 98 * length) // settings.max_length
    assert told["steps"] == -(-rows // settings.batch)


def test_what_looks_like_a_special_token_is_read_as_letters(decoder: Path, tmp_path: Path) -> None:
    some = [f"{at} {'<|endoftext|>' * 20}" for at in range(100, 150)]
    told = adapted(decoder, tmp_path / "out", some)
    as_tokens = 49 * (4 + 20 + 1) * SETTINGS.epochs
    assert told["steps"] > 3 * as_tokens / SETTINGS.max_length / SETTINGS.batch


def test_an_adapted_decoder_ends_its_texts(decoder: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 20, "batch": 1})
    adapted(decoder, tmp_path / "out", ["Fair pay", "Never fair", "Equal work"] * 20, settings)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    begun = tokenizer("Never", return_tensors="pt")
    written = model.generate(**begun, max_new_tokens=8, do_sample=False)
    assert tokenizer.decode(written[0]) == "Never fair<|endoftext|>"


def test_a_base_in_bf16_stays_in_bf16(decoder: Path, tmp_path: Path) -> None:
    shutil.copytree(decoder, tmp_path / "half")
    half = AutoModelForCausalLM.from_pretrained(decoder, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    adapted(tmp_path / "half", tmp_path / "out", texts(40))
    assert {one.dtype for one in weights(tmp_path / "out").values()} == {torch.bfloat16}


def test_an_adapted_encoder_loads_as_its_families_load_it(encoder: Path, tmp_path: Path) -> None:
    adapted(encoder, tmp_path / "out", texts(40))
    _, told = AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_a_batch_in_which_no_token_is_hidden_breaks_nothing(encoder: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"batch": 1})
    told = adapted(encoder, tmp_path / "out", tiny.WORDS, settings)  # mostly no token is, of one
    assert all(torch.isfinite(one).all() for one in weights(tmp_path / "out").values())
    assert told["steps"] == 2 * (len(tiny.WORDS) - 1)


def test_nothing_is_printed_but_a_terminal_s_progress(
    decoder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.set_verbosity_error()
    adapted(decoder, tmp_path / "out", texts(40))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_texts_are_told(count: int, decoder: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem, match=f"{count} comments are free .* adapt to null"):
        adapted(decoder, tmp_path / "out", texts(count))


def test_an_encoder_without_a_mask_token_is_told(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no mask token"):
        adapted(tiny.base(tmp_path / "base"), tmp_path / "out", texts(40))


def test_a_model_that_reads_and_writes_is_told(decoder: Path, tmp_path: Path) -> None:
    shutil.copytree(decoder, tmp_path / "base")
    T5Config().save_pretrained(tmp_path / "base")
    with pytest.raises(Problem, match="type t5 is neither"):
        adapted(tmp_path / "base", tmp_path / "out", texts(40))


def test_a_decoder_without_its_head_is_told(decoder: Path, tmp_path: Path) -> None:
    shutil.copytree(decoder, tmp_path / "base")
    bare = Qwen2Model.from_pretrained(decoder, tie_word_embeddings=False)
    bare.save_pretrained(tmp_path / "base")
    with pytest.raises(Problem, match="lack 1 of the model's tensors"):
        adapted(tmp_path / "base", tmp_path / "out", texts(40))


def test_an_encoder_that_reads_less_than_max_length_is_told(encoder: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"max_length": 128})
    with pytest.raises(Problem, match="reads at most 64 tokens"):
        adapted(encoder, tmp_path / "out", texts(40), settings)


def run(base: Path, folder: Path, content: object) -> tuple[str, Path]:
    """The stage on tables of 60 rows, of which every third is test."""
    rows = [(f"{at}", text, None, None, at) for at, text in enumerate(texts(60))]
    tables.write(comments(*rows), folder / "clean.parquet")
    named = {row[0]: "test" if row[4] % 3 == 0 else "train" for row in rows}
    tables.write(parts(**named), folder / "split.parquet")
    (folder / "adapt.json").write_text(json.dumps({"adapt": content}))
    told = stage.main(
        read_params().model_copy(update={"clean": Clean(similarity=0.99, shingle=5)}),
        wanted=folder / "adapt.json",
        base=base,
        comments=folder / "clean.parquet",
        split=folder / "split.parquet",
        out=folder / "out",
    )
    return told, folder / "out"


def test_the_stage_adapts_where_that_is_wanted(decoder: Path, tmp_path: Path) -> None:
    told, out = run(decoder, tmp_path, SETTINGS.model_dump())
    assert told.startswith("40 texts of 60 rows, ")
    assert "→" in told
    assert read_json(out / "adapted.json")["texts"] == 39
    AutoModelForCausalLM.from_pretrained(out)


def test_the_stage_says_so_where_it_is_not(decoder: Path, tmp_path: Path) -> None:
    _, out = run(decoder, tmp_path, None)
    assert [path.name for path in out.iterdir()] == ["adapted.json"]
    assert read_json(out / "adapted.json") == {"adapted": False}
