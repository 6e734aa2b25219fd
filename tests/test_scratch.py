"""A base from scratch: the same bytes everywhere, a tokenizer that loses nothing, no private word."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from undertone.files import md5, read_json, sha256
from undertone.networks import scratch
from undertone.networks.bases import materialise

NAME = "scratch:2x64"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scratch") / "base"
    materialise(NAME, folder)
    return folder


@pytest.mark.parametrize(("hashing", "threads"), [("1", "1"), ("2", "2")])
def test_every_process_makes_the_same_bytes_without_any_data(
    hashing: str, threads: str, base: Path, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path.cwd()),
        "PYTHONHASHSEED": hashing,
        "RAYON_NUM_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
    }
    script = "import sys; from pathlib import Path; from undertone.networks.bases import materialise; "
    script += "materialise(sys.argv[1], Path('base'))"
    command = [sys.executable, "-c", script, NAME]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    assert md5(tmp_path / "base") == md5(base)


def test_the_folder_holds_what_its_digests_say(base: Path) -> None:
    digests = read_json(base / "base.json")["sha256"]
    assert set(digests) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert all(sha256(base / name) == digest for name, digest in digests.items())


@pytest.mark.parametrize(
    ("name", "layers", "width", "heads"), [(NAME, 2, 64, 2), ("scratch:1x512", 1, 512, 8)]
)
def test_all_weights_of_the_model_are_there_in_the_shape_of_its_name(
    name: str, layers: int, width: int, heads: int, tmp_path: Path
) -> None:
    materialise(name, tmp_path / "base")
    model, told = AutoModelForCausalLM.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert len(model.model.layers) == layers
    assert model.config.hidden_size == width
    assert model.config.num_attention_heads == heads
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert len(AutoTokenizer.from_pretrained(tmp_path / "base")) == model.config.vocab_size


@pytest.mark.parametrize(
    "text",
    [
        "Equal pay for equal work, and don't you forget it!",
        "  two  spaces,\ta tab,\r\n\n a line's end \n",
        "这是一条评论。ジェンダー平等 한국어 ελληνικά العربية हिन्दी",
        "👏🏽🙄 é é ﬁ \x00\x7f\ufeff\u202e",
        "<|im_start|>system\nyou<|im_end|><|endoftext|> <|no such|>",
        "",
    ],
)
def test_any_text_comes_back_as_it_was(text: str, base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert tokenizer.is_fast
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_every_digit_is_a_token(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert tokenizer.tokenize("[10] 2024") == ["[", "1", "0", "]", "Ġ", "2", "0", "2", "4"]


def test_a_common_word_is_a_token(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert tokenizer.tokenize("The quota is a label") == ["The", "Ġquota", "Ġis", "Ġa", "Ġlabel"]


def test_every_piece_of_the_vocabulary_stands_in_a_public_word(base: Path) -> None:
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    public = "\n".join(scratch.public())
    vocabulary = tokenizer.get_vocab()
    assert 2000 < len(vocabulary) <= scratch.VOCABULARY
    learnt = [token for token in vocabulary if len(token) > 1 and token not in scratch.SPECIAL]
    assert len(learnt) > 2000
    assert all(tokenizer.decode([vocabulary[token]]) in public for token in learnt)


def test_a_conversation_is_written_with_or_without_a_system(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    asked = [{"role": "user", "content": "Text: a{b}"}]
    told = [{"role": "system", "content": "Choose."}, *asked, {"role": "assistant", "content": "[1]"}]
    assert (
        tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        == "<|im_start|>user\nText: a{b}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (
        tokenizer.apply_chat_template(told, tokenize=False)
        == "<|im_start|>system\nChoose.<|im_end|>\n<|im_start|>user\nText: a{b}<|im_end|>\n"
        "<|im_start|>assistant\n[1]<|im_end|>\n"
    )
    # to write on is to begin alike
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True)
    answered = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": "[1]"}])
    assert answered[: len(ids)] == ids


def test_a_text_ends_with_one_token_and_a_turn_with_another(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    generation = GenerationConfig.from_pretrained(base)
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.eos_token == "<|endoftext|>"
    assert len({turn, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert set(generation.eos_token_id) == {turn, tokenizer.eos_token_id}
    assert generation.pad_token_id == tokenizer.pad_token_id
    assert tokenizer("a")["input_ids"] == [tokenizer.convert_tokens_to_ids("a")]  # nothing is added
