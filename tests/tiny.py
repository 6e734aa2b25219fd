"""Tiny real models and data, made on the spot: a pretrained base with random weights, labelled texts."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from undertone import bundle, models
from undertone.labels import LabelSpace
from undertone.models import Examples
from undertone.params import BertSettings, E5Settings, Settings, TfidfSettings

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


SETTINGS: dict[str, Settings] = {
    "tfidf": TfidfSettings(analyzer="word", ngrams=(1, 2), features=4096, c=4.0, class_weights="sqrt"),
    "e5": E5Settings(
        base="path:tiny", pooling="mean", prefix="", max_length=32, c=4.0, class_weights="sqrt"
    ),
    "bert": BertSettings(
        base="path:tiny",
        pooling="mean",
        max_length=32,
        epochs=2,
        batch=16,
        lr=1e-3,
        warmup=0.1,
        weight_decay=0.01,
        patience=2,
        class_weights="sqrt",
        precision="fp32",
    ),
}


def bundled(family: str, folder: Path, *, many: bool = False) -> models.Classifier:
    """A trained model, and its bundle in `folder`/bundle."""
    model = models.create(SETTINGS[family], space(many=many), base=base(folder / "base"), seed=7)
    train = examples(160, many=many)
    model.fit(train, examples(40, many=many, seed=1), lambda *_: None)
    model.space = model.space.with_thresholds(model.scores(train.texts), train.truth)
    bundle.write(model, folder / "bundle", candidate=family, opset=17, digests={"comments": "md5"})
    return model
