"""A model on this machine answers each row alike, whatever stands beside it and however often it is
killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests import tiny
from undertone.errors import Problem
from undertone.params import Local, Voter
from undertone.voters import doors, local

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SECRET = "canary in a comment"


def base(
    folder: Path, *, template: str | None = CHATML, llama: bool = False, positions: int = 512
) -> Path:
    """A two-layer model with random weights and a tokenizer of bytes."""
    letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(tokenizer_models.BPE(vocab=letters, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        bos_token="<s>",
        additional_special_tokens=["<|im_start|>"],
        extra_special_tokens={},
    )
    tokenizer.add_tokens(["<think>"])  # a marker that isn't special
    tokenizer.chat_template = template
    if template is None:  # then it is the tokenizer that writes the first token
        begin = [("<s>", tokenizer.bos_token_id)]
        inner = tokenizer.backend_tokenizer
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=begin)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": positions,
        "initializer_range": 0.5,  # logits well apart
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes)) if llama else Qwen2ForCausalLM(Qwen2Config(**sizes))
    # what a model ships with mustn't change a greedy answer
    model.generation_config.update(do_sample=True, temperature=9.0, repetition_penalty=2.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base(tmp_path_factory.mktemp("llama"), template=None, llama=True)


def shard(folder: Path, texts: dict[str, str], name: str = "s-000.jsonl", **body: Any) -> Path:
    lines = []
    for custom, text in texts.items():
        messages = [{"role": "system", "content": "Say 1."}, {"role": "user", "content": text}]
        own = {"model": "m", "messages": messages, "temperature": 0.0, "max_tokens": 12, **body}
        lines.append({"custom_id": custom, "method": "POST", "url": "/v1/chat/completions", "body": own})
    path = folder / name
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    return path


def answered(
    path: Path, model: Path, folder: Path, *, batch: int = 4, seed: int = 13, state: str = "state"
) -> dict[str, Any]:
    """custom_id → output line."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    local.answers([path], "v", model, batch=batch, seed=seed, state=folder / state, out=out)
    lines = (out / f"{path.stem}.output.jsonl").read_text("utf-8").splitlines()
    return {one["custom_id"]: one for one in map(json.loads, lines)}


def said(line: dict[str, Any]) -> str:
    text: str = line["response"]["body"]["choices"][0]["message"]["content"]
    return text


def texts(count: int) -> dict[str, str]:
    """Of 5 to 200 tokens."""
    return {
        f"c-{at}": ("abcde" * 40)[at % 7 : at % 7 + 5 + at * 195 // (count - 1)] for at in range(count)
    }


@pytest.mark.parametrize("which", ["qwen", "llama"])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_an_answer_depends_on_no_other_row(
    which: str, temperature: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    rows = texts(9)
    path = shard(tmp_path, rows, temperature=temperature)
    assert len(next(iter(rows.values()))) == 5
    alone = answered(path, model, tmp_path, batch=1, state="one")
    together = answered(path, model, tmp_path, batch=8, state="eight")
    assert together == alone
    backwards = shard(tmp_path, dict(list(rows.items())[::-1]), temperature=temperature)
    assert answered(backwards, model, tmp_path, batch=3, state="back") == alone
    assert len({said(line) for line in alone.values()}) > 5
    sizes = [line["response"]["body"]["usage"]["completion_tokens"] for line in alone.values()]
    assert max(sizes) == 12


def test_a_greedy_answer_is_what_the_model_finds_likeliest(llama: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    line = answered(shard(tmp_path, {"a": "abc"}), llama, tmp_path)["a"]
    tokenizer = AutoTokenizer.from_pretrained(llama)
    model = AutoModelForCausalLM.from_pretrained(llama)
    ids = tokenizer("Say 1.\n\nabc")["input_ids"]
    prompt = len(ids)
    with torch.inference_mode():
        for _ in range(12):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id:
                break
    assert said(line) == tokenizer.decode(ids[prompt:], skip_special_tokens=True)


def test_draws_follow_the_temperature(qwen: Path, tmp_path: Path) -> None:
    rows = {f"c-{at}": "the same text" for at in range(40)}
    cold = answered(shard(tmp_path, rows, temperature=0.0), qwen, tmp_path, batch=40)
    warm = answered(shard(tmp_path, rows, temperature=1.5), qwen, tmp_path, batch=40)
    assert len({said(line) for line in cold.values()}) == 1
    assert len({said(line) for line in warm.values()}) > 20
    assert warm != answered(shard(tmp_path, rows, temperature=1.5), qwen, tmp_path, batch=40, seed=14)


def test_noise_draws_from_the_softmax() -> None:
    row = local._Row("k", "c", "m", [], 0.5, 1)
    drawn = local._Drawn([row], seed=1)
    logits = torch.tensor([[0.2, 1.0, -0.5, 0.6]])
    none = torch.zeros((1, 0), dtype=torch.long)
    counts = torch.bincount(
        torch.tensor([int(drawn(none, logits).argmax()) for _ in range(4000)]), minlength=4
    )
    expected = torch.softmax(logits[0] / 0.5, dim=0)
    assert torch.allclose(counts / 4000, expected, atol=0.03)  # some four standard errors


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_second_run_writes_the_same_bytes(qwen: Path, tmp_path: Path, temperature: float) -> None:
    path = shard(tmp_path, texts(5), temperature=temperature)
    made = []
    for state in ("one", "other", "other"):  # computed anew, and taken from what is kept
        answered(path, qwen, tmp_path, state=state)
        made.append((tmp_path / "out" / "s-000.output.jsonl").read_bytes())
    assert made[0] == made[1] == made[2]
    created = json.loads(made[0].splitlines()[0])["response"]["body"]["created"]
    assert created % 86_400 == 0  # the day alone
    assert 0 <= time.time() - created < 2 * 86_400


def test_an_end_token_ends_the_answer_and_is_no_part_of_it(qwen: Path, tmp_path: Path) -> None:
    rows = {f"c-{at}": "text" for at in range(60)}
    lines = answered(
        shard(tmp_path, rows, temperature=2.0, max_tokens=60), qwen, tmp_path, batch=60
    ).values()
    ended = [line["response"]["body"] for line in lines]
    by_reason = {
        reason: [one for one in ended if one["choices"][0]["finish_reason"] == reason]
        for reason in ("stop", "length")
    }
    assert min(map(len, by_reason.values())) > 0
    assert all(one["usage"]["completion_tokens"] == 60 for one in by_reason["length"])
    assert any(one["usage"]["completion_tokens"] < 50 for one in by_reason["stop"])
    assert not any(marker in said(line) for line in lines for marker in SPECIAL)


def test_a_request_too_long_is_an_error_line_and_the_rest_is_answered(tmp_path: Path) -> None:
    model = base(tmp_path / "small", positions=96)
    told = [{"role": "system", "content": "Say 1."}, {"role": "user", "content": ""}]
    room = 96 - 12 - len(local._Model(model, 1)._chat.prompt(told))
    assert room > 2
    rows = {"fits": "x" * room, "long": "x" * (room + 1)}
    lines = answered(shard(tmp_path, rows), model, tmp_path)
    assert list(lines) == ["fits", "long"]
    assert lines["fits"]["error"] is None
    assert lines["long"]["response"] is None
    assert lines["long"]["error"]["code"] == "context_length_exceeded"
    assert "the model reads 96" in lines["long"]["error"]["message"]
    assert "xx" not in json.dumps(lines["long"])


def test_a_row_is_computed_once_even_after_a_torn_line(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shard(tmp_path, texts(6))
    expected = answered(path, qwen, tmp_path)
    (progress,) = (tmp_path / "state").iterdir()
    lines = progress.read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    progress.write_bytes(b"".join(lines[:3]) + lines[3][:-20])
    computed: list[str] = []
    generated = local._Model._generated

    def counted(self: local._Model, rows: Any, prompts: Any) -> Any:
        computed.extend(row.custom_id for row in rows)
        return generated(self, rows, prompts)

    monkeypatch.setattr(local._Model, "_generated", counted)
    assert answered(path, qwen, tmp_path) == expected
    kept = {json.loads(line)["line"]["custom_id"] for line in lines[:3]}
    assert sorted(computed) == sorted(set(expected) - kept)
    monkeypatch.setattr(local._Model, "__init__", None)  # nothing is left for a model to do
    assert answered(path, qwen, tmp_path) == expected


def test_another_model_seed_or_request_is_computed_anew(qwen: Path, llama: Path, tmp_path: Path) -> None:
    path = shard(tmp_path, texts(2))
    first = answered(path, qwen, tmp_path)
    assert answered(path, llama, tmp_path) != first
    names = {answered(path, qwen, tmp_path, seed=seed)["c-0"]["id"] for seed in (13, 14)}
    other = answered(shard(tmp_path, texts(2), max_tokens=3), qwen, tmp_path)
    assert len({*names, other["c-0"]["id"]}) == 3
    assert answered(shard(tmp_path, texts(2)), qwen, tmp_path) == first


KILLED = """
import os, signal, sys
from pathlib import Path
from undertone.voters import local
generated, calls = local._Model._generated, []
def dying(self, rows, prompts):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return generated(self, rows, prompts)
local._Model._generated = dying
path, base, state, out = map(Path, sys.argv[1:])
local.answers([path], "v", base, batch=2, seed=13, state=state, out=out)
"""


def test_a_killed_run_goes_on_where_it_was(qwen: Path, tmp_path: Path) -> None:
    path = shard(tmp_path, texts(8), temperature=0.9)
    expected = answered(path, qwen, tmp_path, batch=2, state="unbroken")
    out = tmp_path / "killed"
    out.mkdir()
    command = [sys.executable, "-c", KILLED, str(path), str(qwen), str(tmp_path / "state"), str(out)]
    done = subprocess.run(
        command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not list(out.iterdir())
    assert len((tmp_path / "state" / "v.jsonl").read_bytes().splitlines()) == 4
    assert answered(path, qwen, tmp_path, batch=2) == expected


def test_nothing_of_a_text_is_printed_or_logged(
    qwen: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    caplog.set_level(0)
    lines = answered(shard(tmp_path, {"a": SECRET, "b": "x" * 2000}), qwen, tmp_path)
    assert lines["b"]["error"]
    out, err = capfd.readouterr()
    assert out == err == ""
    assert SECRET not in caplog.text + "".join(str(one.message) for one in recwarn)
    assert SECRET not in (tmp_path / "state" / "v.jsonl").read_text("utf-8")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("missing", "no such folder"),
        ("pickled", "no safetensors weights"),
        ("pointer", "can't be loaded"),
        ("cut", "can't be loaded"),
        ("no config", "can't be loaded"),
        ("no tokenizer", "can't be loaded"),
        ("tensors", "lack 1 of the model's tensors"),
        ("code", "can't be loaded"),
    ],
)
def test_a_folder_without_a_usable_model_is_one_line(fault: str, told: str, tmp_path: Path) -> None:
    model = base(tmp_path / "base")
    tiny.spoil(model, fault)
    with pytest.raises(Problem, match=told) as problem:
        answered(shard(tmp_path, {"a": SECRET}), model, tmp_path)
    assert "\n" not in str(problem.value)
    assert str(model) in str(problem.value)
    assert not list((tmp_path / "out").iterdir())


def test_a_line_that_is_no_request_is_named_and_not_shown(qwen: Path, tmp_path: Path) -> None:
    path = shard(tmp_path, {"a": "abc"})
    path.write_text(path.read_text() + json.dumps({"custom_id": "b", "body": {"messages": SECRET}}))
    with pytest.raises(Problem, match=r"s-000.jsonl, line 2: no request") as told:
        answered(path, qwen, tmp_path)
    assert SECRET not in str(told.value)


def test_the_door_lays_a_base_down_once_with_its_template(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requests").mkdir()
    shard(tmp_path / "requests", texts(3), name="v-0001.jsonl")
    out = tmp_path / "out"
    out.mkdir()
    how = {"provider": "here", "prompt": "p", "definitions": True, "temperature": 0.0, "max_tokens": 4}
    voters = {"v": Voter.model_validate({**how, "model": f"path:{qwen}"})}
    for _ in range(2):
        doors.from_local_model("private", Path("requests"), voters, Local(batch=2, seed=0), out)
    assert len((out / "v-0001.output.jsonl").read_text("utf-8").splitlines()) == 3
    (laid,) = (doors.STATE / "private" / "bases").iterdir()
    assert AutoTokenizer.from_pretrained(laid).chat_template == CHATML
    voters = {"v": Voter.model_validate({**how, "model": "gpt-4"})}
    with pytest.raises(Problem, match="'gpt-4' is no base"):
        doors.from_local_model("private", Path("requests"), voters, Local(batch=2, seed=0), out)
