"""Tiny real models and data, made on the spot: a pretrained base with random weights, labelled texts."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from undertone import models
from undertone.annotation.prompts import Instruction
from undertone.codebook import Codebook, Label
from undertone.deployment import bundle, release
from undertone.deployment.predictor import Family
from undertone.labels import LabelSpace
from undertone.models import Examples, Start
from undertone.networks import bases
from undertone.params import (
    Asked,
    BertSettings,
    E5Settings,
    FewshotSettings,
    Logistic,
    LoraSettings,
    SetfitSettings,
    Settings,
    TfidfSettings,
    Torch,
)

WORDS = "equal pay leave office meeting boss team work never fair kind cold the a is not".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def base(folder: Path) -> Path:
    """A two-layer BERT with random weights and a whole-word tokenizer."""
    tokenizer = Tokenizer(
        tokenizer_models.WordPiece(
            {word: at for at, word in enumerate([*SPECIAL, *WORDS])}, unk_token="[UNK]"
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def space(*, many: bool = False) -> LabelSpace:
    return LabelSpace.of("tiny", ["fair", "cold", "other"], many=many)


def examples(rows: int, *, many: bool = False, seed: int = 0) -> Examples:
    """Texts whose labels can be read off two of their words."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 12))) for _ in range(rows)]
    fair = np.array(["fair" in text.split() for text in texts])
    cold = np.array(["cold" in text.split() for text in texts]) & (many | ~fair)
    return Examples(texts, np.stack([fair, cold, ~fair & ~cold], axis=1))


# no setting of `Sampled` does anything
PLAIN: dict[str, Any] = {"logit_adjustment": 0.0, "downsample": None, "mixing": 0.0}

TRAINED: dict[str, Any] = {
    "steps": None,
    "batch": 16,
    "accumulate": 1,
    "lr": 1e-3,
    "warmup": 0.1,
    "weight_decay": 0.01,
    "evaluate_every": None,
    "patience": 2,
    "class_weights": "sqrt",
    "focal": 0.0,
    "precision": "fp32",
    "checkpointing": False,
    **PLAIN,
}

ASKED: dict[str, Any] = {
    "base": "scratch:1x32",
    "adapt": None,
    "load": "full",
    "prompt": None,
    "definitions": False,
    "shots": 0,
    "max_length": 128,
    "predict": "closed",
    "max_new_tokens": 8,
}

SETTINGS: dict[str, Settings] = {
    "tfidf": TfidfSettings(
        analyzer="word", ngrams=(1, 2), features=4096, c=4.0, class_weights="sqrt", **PLAIN
    ),
    "e5": E5Settings(
        base="path:tiny",
        adapt=None,
        pooling="mean",
        prefix="",
        max_length=32,
        c=4.0,
        class_weights="sqrt",
        **PLAIN,
    ),
    "bert": BertSettings(
        base="path:tiny",
        adapt=None,
        pooling="mean",
        max_length=32,
        epochs=2,
        **TRAINED,
    ),
    "setfit": SetfitSettings(
        base="path:tiny",
        adapt=None,
        pooling="mean",
        prefix="",
        max_length=32,
        shots=16,
        pairs=64,
        head="logistic",
        logistic=Logistic(c=4.0),
        torch=Torch(epochs=100, lr=0.05),
        epochs=1,
        **TRAINED,
    ),
    "fewshot": FewshotSettings(**ASKED),
    "lora": LoraSettings(
        **ASKED,
        r=4,
        alpha=8.0,
        dropout=0.0,
        target_modules="all-linear",
        objective="answer",
        loss_on="answer",
        preference=None,
        epochs=2.0,
        steps=None,
        batch=16,
        accumulate=1,
        lr=0.005,
        warmup=0.1,
        weight_decay=0.0,
        evaluate_every=None,
        patience=2,
        class_weights="none",
        focal=0.0,
        precision="fp32",
        checkpointing=False,
        **PLAIN,
    ),
}

# What a family needs besides to learn something from 600 tiny texts; one that isn't here learns nothing.
LEARNING: dict[str, dict[str, Any]] = {
    "tfidf": {},
    "e5": {},
    "bert": {"epochs": 12.0, "patience": 12},
    "setfit": {"shots": 64, "pairs": 512},
    "lora": {"epochs": 3.0, "patience": 3, "r": 16, "alpha": 64.0},
}


def start(family: str, folder: Path, *, many: bool = False, shots: int = 0) -> Start:
    """What a model of `family` starts from; its base is made in `folder` unless it is there."""
    own = SETTINGS[family]
    if own.base is None:
        return Start(seed=7)
    if not isinstance(own, Asked):
        made = folder / "base"
        return Start(seed=7, base=made if made.exists() else base(made))
    made = folder / "decoder"
    if not made.exists():
        bases.materialise(own.base, made)
    labels = [
        Label(id=one, name=one, examples=[f"the {one} boss", f"a {one} office"])
        for one in space().labels
    ]
    book = Codebook(name="tiny", title="tiny", language="en", many=many, labels=labels)
    instruction = Instruction.of(book, None, definitions=own.definitions, shots=shots)
    return Start(seed=7, base=made, instruction=instruction)


def bundled(family: str, folder: Path, *, many: bool = False) -> models.Classifier:
    """A trained model, its variants in `folder`/variants, and its int8 bundle in `folder`/bundle."""
    model = models.create(SETTINGS[family], space(many=many), start(family, folder))
    train = examples(160, many=many)
    model.fit(train, examples(40, many=many, seed=1), lambda *_: None, folder / "state")
    model.space = model.space.with_thresholds(model.scores(train.texts), train.truth)
    released(model, folder / "bundle", candidate=family, digests={"comments": "md5"})
    return model


def released(
    model: models.Classifier, folder: Path, *, candidate: str, digests: Mapping[str, str]
) -> None:
    """The model's int8 bundle in `folder`, and all its variants in `variants` beside it."""
    exported = folder.parent / "variants"
    texts = examples(64).texts
    bundle.write(model, exported, candidate=candidate, opset=17, calibration=texts, digests=digests)
    release.write(exported, folder, {key: ["int8"] for key in get_args(Family)})


def spoil(made: Path, fault: str) -> None:
    """Make a language model's folder one that can't be used."""
    weights = made / "model.safetensors"
    if fault == "missing":
        shutil.rmtree(made)
    elif fault == "pickled":
        weights.rename(made / "pytorch_model.bin")
    elif fault == "pointer":  # what git leaves of a large file that wasn't fetched
        weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif fault == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif fault == "no config":
        (made / "config.json").unlink()
    elif fault == "no tokenizer":
        for path in made.glob("*token*"):
            path.unlink()
    elif fault == "tensors":
        tensors = load_file(weights)
        del tensors["model.layers.1.mlp.up_proj.weight"]
        save_file(tensors, weights, {"format": "pt"})
    else:
        assert fault == "code"
        config = json.loads((made / "config.json").read_text())
        names = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
        config |= {"model_type": "evil", "auto_map": dict.fromkeys(names, "evil.M")}
        (made / "config.json").write_text(json.dumps(config))
        (made / "evil.py").write_text("raise SystemExit('code was run')")
