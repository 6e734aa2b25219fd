"""`scratch:<layers>x<width>`: a small language model of this repository's own, for want of a hub.

The weights are random, the tokenizer is learnt from public words alone: those of the stand-in and the
list below. Never from comments, since a vocabulary would hold their words. The same name makes the same
bytes, whatever the machine.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from undertone.corpus.sample_words import ASIDES, WORDS
from undertone.errors import Problem

LAYERS, WIDTH = 16, 1024  # the largest: beyond them random weights learn too slowly to be of use
POSITIONS = 2048
VOCABULARY = 3072  # at most
SEED = 13

END, PAD, START, STOP = SPECIAL = ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Qwen2 cuts texts, every digit by itself.
_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NAME = re.compile(r"scratch:([1-9]\d{0,2})x([1-9]\d{1,4})")
_SLOT = re.compile(r"\{\w+\}")


def shape(base: str) -> tuple[int, int]:
    """Layers and width of a base's name; `Problem` where it names none, or one that can't be made."""
    match = _NAME.fullmatch(base)
    layers, width = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= layers <= LAYERS or not 32 <= width <= WIDTH or width % 32:
        raise Problem(
            f"'{base}' is no base",
            where="params.yaml",
            remedy=f"Write scratch:<layers>x<width>, such as scratch:4x192: up to {LAYERS} layers, "
            f"a width of 32 to {WIDTH} in steps of 32.",
        )
    return layers, width


def make(base: str, out: Path) -> None:
    """Write a Qwen2 decoder (Yang et al. 2024) and its tokenizer into the existing folder `out`."""
    layers, width = shape(base)
    tokenizer = _tokenizer()
    ids = {name: tokenizer.token_to_id(name) for name in SPECIAL}
    ends = {"bos_token_id": None, "eos_token_id": ids[END], "pad_token_id": ids[PAD]}
    head = 64 if width >= 512 and width % 64 == 0 else 32
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        **ends,
        "attention_dropout": 0.0,
        "dtype": "float32",
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": round(0.7 * width**-0.5, 4),
        "intermediate_size": round(width * 8 / 3 / 32) * 32,
        "max_position_embeddings": POSITIONS,
        "num_attention_heads": width // head,
        "num_hidden_layers": layers,
        "num_key_value_heads": width // head,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    _write(out / "config.json", config)
    _write(out / "generation_config.json", {**ends, "eos_token_id": [ids[STOP], ids[END]]})
    _write(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": PAD,
            "additional_special_tokens": [START, STOP],
            "chat_template": TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": POSITIONS,
        },
    )
    tokenizer.save(str(out / "tokenizer.json"))
    save_file(_weights(config), out / "model.safetensors", metadata={"format": "pt"})


def _weights(config: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Normal with a deviation of `initializer_range`; what adds to the residual stream less, the more
    layers there are (Radford et al. 2019). By numpy, whose draws don't depend on the processor."""
    rng = np.random.default_rng(SEED)
    deviation: float = config["initializer_range"]
    layers, width, inner = (
        int(config[name]) for name in ("num_hidden_layers", "hidden_size", "intermediate_size")
    )

    def drawn(rows: int, columns: int, scale: float = 1.0) -> NDArray[np.float32]:
        return (deviation * scale * rng.standard_normal((rows, columns))).astype(np.float32)

    weights = {"model.embed_tokens.weight": drawn(config["vocab_size"], width)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for name in ("q", "k", "v"):
            weights[f"{at}.self_attn.{name}_proj.weight"] = drawn(width, width)
            weights[f"{at}.self_attn.{name}_proj.bias"] = np.zeros(width, np.float32)
        last = (2 * layers) ** -0.5
        weights[f"{at}.self_attn.o_proj.weight"] = drawn(width, width, last)
        weights[f"{at}.mlp.gate_proj.weight"] = drawn(inner, width)
        weights[f"{at}.mlp.up_proj.weight"] = drawn(inner, width)
        weights[f"{at}.mlp.down_proj.weight"] = drawn(width, inner, last)
        weights[f"{at}.input_layernorm.weight"] = np.ones(width, np.float32)
        weights[f"{at}.post_attention_layernorm.weight"] = np.ones(width, np.float32)
    weights["model.norm.weight"] = np.ones(width, np.float32)
    return weights


def _tokenizer() -> Tokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019): any text of any
    language comes back as it was. Ties between pairs are broken by their ids, so it is always the same.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(public(), trainer)
    return tokenizer


def public() -> Iterator[str]:
    """The texts that the vocabulary is learnt from, with a capital and amid a sentence."""
    for phrases in (WORDS, ASIDES):
        for options in phrases.values():
            for phrase in options:
                text = _SLOT.sub("", phrase).strip()
                yield from (f" {text}", text[:1].upper() + text[1:])
    for word in COMMON.split():
        yield f" {word}"


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


COMMON = """
the of and to a in is it you that he was for on are with as I his they be at one have this from or had
by not but what all were when we there can an your which their said if do will each about how up out
them then she many some so these would other into has more her two like him see time could no make than
first been its who now people my made over did down only way find use may long little very after words
called just where most know get through back much before go good new write our used me man too any day
same right look think also around another came come work three word must because does part even place
well such here take why things help put years different away again off went old number great tell men
say small every found still between name should home big give air line set own under read last never us
left end along while might next sound below saw something thought both few those always show large often
together asked house don't world going want school important until form food keep children side without
boy once life enough took sometimes four head above kind began almost live page got earth need far hand
high year mother light country father let night picture being study second soon story since ever paper
hard near sentence better best across during today however sure knew it's try told young thing whole
hear example heard several change answer room against top turned learn point city play toward five using
himself usually money seen didn't car body upon family later turn move face door cut done group true
half living short run book gave order open really table remember course front space inside ago early
I'll learned brought close nothing though idea lived became add become grow draw yet less wind behind
cannot among able shown mean rest perhaps certain six feel ready green yes built special full complete
person hot anything hold state list stood hundred ten fast felt kept notice can't strong voice probably
area matter stand start that's class common stop am talk whether girl instead either held already
finally understand mind outside power problem longer carefully follow beautiful everyone leave
everything game system bring watch within themselves begin fact third quite carry distance although sat
possible heart real simple suddenly easy leaves size weather miss pattern walked main someone center
field stay itself question least hour happened foot care low else alone bottom reading fall poor friend
language job mark listen ask single clear energy week explain lost spring travel wrote farm whose
correct mountain color war yourself seem thus square moment teacher comments label labels text texts
category categories classes sentiment opinion view stance positive negative neutral mild mixed
irrelevant unrelated hostile supportive relevant applies apply exactly following answers bracket
brackets means definition classify says writer claim claims supports calls rejects quote rude insult
insults attack threat threats hate sexist sexism racist racism toxic joke sarcasm irony anger joy
sadness disgust trust admiration gratitude post posts tweet user users online website video news article
women woman society government equal rights fair unfair stupid wrong agree disagree thirty twenty forty
forums forum vote political party reason argue experience female male gender race religion sex insulting
respect
"""
