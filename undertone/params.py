"""params.yaml as one frozen, typed tree: every fault of the file is told at once."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from undertone.errors import Problem

Model = TypeVar("Model", bound=BaseModel)
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]  # part of a path and of a stage's name
SourceName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]  # train@<source>-<candidate>
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]


# what a label's rows weigh in training: alike, or the more the fewer there are (the ratio, or its root)
ClassWeights = Literal["none", "sqrt", "balanced"]


class Section(BaseModel):
    """A section of params.yaml: no unknown key, no value of another type, no NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class Data(Section):
    """Which data the pipeline runs on, and with which codebook.

    `scheme`: a merge or question of the codebook; empty for its own labels.
    """

    source: SourceName
    codebook: Name
    scheme: str | None
    contact: str  # whom to ask for access to a source that isn't here


class Sample(Section):
    """The stand-in workbook; `seed` is apart from `params.seed`, as the data are not the training's.

    `scheme`: a question of the codebook, empty for its own labels.
    """

    seed: Seed
    codebook: Name
    scheme: str | None
    rows: Annotated[int, Field(ge=100)]
    gold: Annotated[int, Field(ge=0)]


class LabelColumns(Section):
    """Where labels stand in a table.

    `name`: one column that holds the label's id, name, code or alias (where the codebook allows many
    also several, split at `separator`, or `none`; a blank cell says nothing). `flags`: a 0/1 column a
    label; with no columns named, those called like the labels. `annotators`: a `name` column for each
    person.
    """

    form: Literal["name", "flags", "annotators"]
    columns: list[str] = []
    separator: str | None = None

    @model_validator(mode="after")
    def _columns_fit_the_form(self) -> "LabelColumns":
        if self.form == "name" and len(self.columns) != 1:
            raise ValueError("form 'name' needs exactly one column")
        if self.form == "annotators" and len(self.columns) < 2:
            raise ValueError("form 'annotators' needs at least two columns")
        return self


class SplitColumn(Section):
    """An official split: the column, and which of its values stand for which part."""

    column: str
    train: list[str]
    validation: list[str] = []
    test: list[str]


class Source(Section):
    """One private table, or several of one shape, under data/raw/<source>/."""

    files: list[str] = ["*"]
    sheets: list[str] | Literal["all"] | None = None
    header: Positive = 1
    encoding: str = "utf-8"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    id: str | None = None
    text: str
    group: str | None = None
    time: str | None = None
    meta: list[str] = []
    labels: LabelColumns | None = None
    gold: LabelColumns | None = None
    split: SplitColumn | None = None
    max_bad_rows: Annotated[int, Field(ge=0)] = 0


class Clean(Section):
    """What counts as a repeat: the Jaccard similarity of character shingles."""

    similarity: Fraction
    shingle: Positive


class Provider(Section):
    """Where requests go: its limits for one file, and who may be asked.

    Without `url` nothing leaves the machine. `key`: the environment variable that holds the key.
    `may_read`: the sources whose comments may be sent there by this program.
    """

    url: str | None
    key: str | None
    lines: Positive
    bytes: Positive
    may_read: list[SourceName]

    @field_validator("key")
    @classmethod
    def _a_key_is_only_named(cls, value: str | None) -> str | None:
        # the value isn't shown: it may be the key itself
        if value is not None and not re.fullmatch("[A-Z_][A-Z0-9_]*", value):
            raise ValueError("write the name of an environment variable, such as OPENAI_API_KEY")
        return value

    @model_validator(mode="after")
    def _a_url_tells_no_secret_and_no_bystander(self) -> "Provider":
        url = urlsplit(self.url or "https://host")
        if url.scheme != "https" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("url must begin with https:// (http:// only on this machine)")
        if not url.hostname or url.username or url.password or url.query:
            raise ValueError("url names a host and a path, no user, password or key")
        return self


class Price(Section):
    """For a million tokens."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    currency: str


class Voter(Section):
    """A model with a prompt of the codebook. `definitions` off leaves out their paragraph alone.

    `model`: as the provider calls it; for the local door a base (`hub:`, `path:`), for the stand-in
    `simulated:<accuracy>`.
    """

    provider: Name
    model: str
    prompt: str
    definitions: bool
    temperature: Annotated[float, Field(ge=0, le=2)]
    max_tokens: Positive


def _is_a_voter(value: str) -> str:
    if value in ("gold", "silver", "retry"):  # a voter's name stands beside these in files and reports
        raise ValueError(f"'{value}' means something else, choose another name for the voter")
    return value


VoterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$"), AfterValidator(_is_a_voter)]


class Request(Section):
    """Who labels a source's comments; nobody where its table brings its labels along.

    `rows`: about how many comments they are asked, drawn by `split.seed`: those that people labelled,
    and others; a larger number adds to those of a smaller one. Empty: about all.
    """

    voters: dict[VoterName, Voter]
    rows: Positive | None = None


Door = Literal["none", "simulated", "files", "endpoint", "local"]


class Endpoint(Section):
    """Patience with a batch service, in seconds. `rounds`: how often what failed is asked again."""

    poll: Annotated[float, Field(gt=0)]
    wait: Annotated[float, Field(gt=0)]
    timeout: Annotated[float, Field(gt=0)]
    retries: Annotated[int, Field(ge=0)]
    rounds: Annotated[int, Field(ge=0)]


class Local(Section):
    """`batch`: texts answered at once by a local model; `seed`: of answers drawn on this machine."""

    batch: Positive
    seed: Seed


Outcome = Literal[
    "ok", "missing", "duplicate", "provider_error", "refused", "unparsable", "out_of_schema"
]


class Collect(Section):
    """`retry`: the outcomes that are written into the next requests."""

    retry: list[Outcome]


class Fuse(Section):
    """How votes become one label.

    `tie`: what votes without a winner are worth: no label, or the commonest of the tied labels.
    `min_votes`: valid answers that a label needs. `weights`:
    voter → its weight, 1 for one not named.
    """

    method: Literal["majority", "weighted", "dawid_skene"]
    tie: Literal["none", "commonest"]
    min_votes: Positive
    weights: dict[VoterName, Annotated[float, Field(gt=0)]]


class Review(Section):
    """`simulated`: source → how many rows people are made up for, who review them with every step that
    real ones take; for a stand-in alone, which knows the truth of its rows."""

    simulated: dict[SourceName, Annotated[int, Field(ge=2)]]


class Folds(Section):
    """Repeated stratified k-fold for tables too small for one validation part."""

    k: Annotated[int, Field(ge=3)]  # one is the test, one validation, the others train
    repeats: Positive


class Split(Section):
    """Sizes of the parts where the table names none; `seed` is apart from `params.seed`, so that
    the test part stays what it is when the training seed changes.

    `order`: by chance, or the latest rows are the test part and those before them validation.
    `rare`: what becomes of a label with fewer than `min_support` rows: it stops the pipeline, its rows
    leave (of many labels a text only the label does), or it joins the label `merge_into`, a new one
    if need be. `folds`: cross-validation over all but the test part, which then chooses in place of
    validation.
    """

    seed: Seed
    validation: Fraction
    test: Fraction
    order: Literal["random", "time"]
    min_support: Positive
    rare: Literal["refuse", "drop", "merge"]
    merge_into: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]  # a label's id
    train_rows: Positive | None  # a stratified part of the training rows, for quick runs
    folds: Folds | None

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on")
        return self

    @model_validator(mode="after")
    def _folds_have_no_order(self) -> "Split":
        if self.folds is not None and self.order == "time":
            raise ValueError("folds are drawn by chance; they need order: random")
        return self


def _is_a_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"no regular expression: {error.msg}") from None
    return value


class Bundle(Section):
    """A released bundle by its folder, and the `digest` that its manifest ends with: so that its bytes
    are known though DVC doesn't look at them."""

    folder: str
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Accept(Section):
    """Which generated texts become rows.

    `length`: quantiles of the training rows' characters, from and to. `strange`: the share of training
    rows whose letters follow each other as unusually as the strangest that is accepted. `copied`: the
    letters and digits in a row that a text may not share with a parent (32 are what the audit calls a
    quotation; of Chinese 11). `forbidden`: regular expressions, case doesn't count. `judge`: who must
    give a text the label that it was asked for; empty: a model of the family tfidf, fitted for it.
    """

    length: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = Field(
        strict=False
    )
    strange: Annotated[float, Field(ge=0, lt=1)]
    copied: Annotated[int, Field(ge=4)]
    forbidden: list[Annotated[str, Field(min_length=1), AfterValidator(_is_a_pattern)]]
    judge: Bundle | None

    @model_validator(mode="after")
    def _lengths_ascend(self) -> "Accept":
        if self.length[0] >= self.length[1]:
            raise ValueError("length goes from the lower quantile to the higher")
        return self


class Generate(Section):
    """New rows of a source's labels, written by a language model after training rows.

    `labels`: label → how many texts are asked for; `rarest` stands for the one with fewest training
    rows. A request asks for `texts` of them, after `parents` training rows of the label, which the
    `seed` draws. For the stand-in `model` is `simulated:<share of texts with the right label>`.
    """

    door: Literal["simulated", "files", "endpoint", "local"]
    provider: Name
    model: str
    temperature: Annotated[float, Field(ge=0, le=2)]
    max_tokens: Positive
    labels: Annotated[dict[str, Positive], Field(min_length=1)]
    texts: Positive
    parents: Positive
    seed: Seed
    accept: Accept

    @property
    def writer(self) -> Voter:
        """As the doors know one who is asked; `writing` has the prompt."""
        return Voter(
            provider=self.provider,
            model=self.model,
            prompt="generate",
            definitions=True,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
        )


OWN = "own"  # the mix of a candidate that names none
Weight = Annotated[float, Field(ge=0)]


class Mix(Section):
    """What a row of each origin weighs in training; those of weight 0 are left out.

    `silver`: voters' label, `table`: one that came with the comments. `gold`: people's label in the
    place of these; where it weighs 0, its rows are like the others. `generated` rows were written by a
    model after training rows, `pseudo` rows are comments that nobody labelled, but an ensemble, see
    `Pseudo`. `noise`: rows whose label is likely wrong, see `noise.cleaned`, are dropped, or weigh what
    speaks for it; but never those of people.
    """

    gold: Weight = 0.0
    silver: Weight = 0.0
    table: Weight = 0.0
    generated: Weight = 0.0
    pseudo: Weight = 0.0
    noise: Literal["none", "drop", "weigh"] = "none"

    @property
    def adds(self) -> bool:
        """Whether rows are learnt from that the split doesn't hold."""
        return self.generated > 0 or self.pseudo > 0

    @property
    def doubts(self) -> bool:
        """Whether labels that are likely wrong weigh less."""
        return self.noise != "none"

    @model_validator(mode="after")
    def _learns_from_something(self) -> "Mix":
        if not (self.silver or self.table or self.gold):
            raise ValueError("no row of the split weighs anything; give gold, silver or table a weight")
        return self


class Doubt(Section):
    """How much of the training labels is changed by chance, at which `rates`, to see what that costs and
    what a mix's `noise` gives back; of no rate: nothing. `draws`: how often at each."""

    rates: list[Annotated[float, Field(ge=0, lt=1)]]
    draws: Positive


class Queue(Section):
    """Who of the pool goes to people: at most so many of whom the ensemble is in two minds, the most
    doubtful first, and so many others at `random`."""

    disagreed: Annotated[int, Field(ge=0)]
    random: Annotated[int, Field(ge=0)]


class Pseudo(Section):
    """Labels for comments that nobody labelled, by an ensemble of `candidates`; of none, or where one
    isn't among `models` and no mix in use asks for it: no such labels.

    `combine`: `vote` takes what most decide, as confident as their share is; `mean` decides on the mean
    of their calibrated scores. A label is accepted from a confidence of `threshold` on.
    """

    candidates: list[Name]
    combine: Literal["vote", "mean"]
    threshold: Annotated[float, Field(ge=0.5, le=1)]
    queue: Queue


class Search(Section):
    """The next rows for people. `labels`: source → the rare labels that are looked for, none where it
    isn't named. Of `rows` in all `random` are drawn, the labels share the others. The rest says how a
    text is embedded, as in E5Settings.
    """

    labels: dict[SourceName, list[str]]
    rows: Positive
    random: Annotated[int, Field(ge=0)]
    base: str
    pooling: Literal["mean", "cls"]
    prefix: str
    max_length: Annotated[int, Field(ge=8, le=8192)]

    @model_validator(mode="after")
    def _leaves_rows_to_the_labels(self) -> "Search":
        if self.random >= self.rows:
            raise ValueError("random rows leave none that are like the labels")
        return self


class Candidate(Section):
    """What all families have: `mix` names the composition of the training part, one of `mixes`."""

    mix: Name = OWN


class Sampled(Candidate):
    """What is done about labels of unlike frequency, for every family that learns.

    `class_weights`: what a row weighs; for many labels the presence of one against its absence, or
    where a language model writes them, the row by its rarest label. `logit_adjustment`: tau of Menon et
    al. 2021, 0 is off. `downsample`: a label's rows in an epoch (of many labels, the rows of which it is
    the rarest) are at most this many times those of the rarest, drawn anew each epoch. `mixing`: the
    share of an epoch that is drawn as if all labels were equally frequent (Kang et al. 2020).
    """

    class_weights: ClassWeights
    logit_adjustment: Annotated[float, Field(ge=0)]
    downsample: Annotated[float, Field(ge=1)] | None
    mixing: Annotated[float, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _draws_in_one_way(self) -> "Sampled":
        if self.downsample is not None and self.mixing > 0:
            raise ValueError("downsample and mixing both draw the rows of an epoch; use one of them")
        return self


class Adapt(Section):
    """More pre-training of a base on the comments that neither validation nor test holds.

    `batch`: rows of `max_length` tokens for a decoder, comments for an encoder.
    """

    epochs: Annotated[float, Field(gt=0)]
    batch: Positive
    lr: Annotated[float, Field(gt=0, le=1)]
    max_length: Annotated[int, Field(ge=8, le=8192)]


class TfidfSettings(Sampled):
    """TF-IDF over hashed n-grams, so that no word of a comment is stored, and logistic regression."""

    exportable: ClassVar[bool] = False
    family: Literal["tfidf"] = "tfidf"
    base: ClassVar[None] = None
    adapt: ClassVar[None] = None
    analyzer: Literal["word", "char"]
    ngrams: tuple[Positive, Positive] = Field(strict=False)  # from, to
    features: Annotated[int, Field(ge=2**10, le=2**24)]
    c: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _ngrams_ascend(self) -> "TfidfSettings":
        if self.ngrams[0] > self.ngrams[1]:
            raise ValueError("ngrams go from the shorter to the longer")
        return self


class E5Settings(Sampled):
    """Frozen sentence embeddings and a logistic head."""

    exportable: ClassVar[bool] = True
    family: Literal["e5"] = "e5"
    base: str
    adapt: Adapt | None
    pooling: Literal["mean", "cls"]
    prefix: str
    max_length: Annotated[int, Field(ge=8, le=8192)]
    c: Annotated[float, Field(gt=0)]


class Trained(Sampled):
    """Training by gradient: by `epochs`, or by `steps` where they are given.

    `batch` rows are learnt from at once, `accumulate` times before each update. `evaluate_every`: steps
    between two looks at validation, an epoch without it. `patience`: looks without a better one until
    training stops. `focal`: gamma of Lin et al. 2017, 0 is cross-entropy. `checkpointing` computes
    activations anew instead of keeping them: slower, in less memory.
    """

    epochs: Annotated[float, Field(gt=0)]
    steps: Positive | None
    batch: Positive
    accumulate: Positive
    lr: Annotated[float, Field(gt=0, le=1)]
    warmup: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    evaluate_every: Positive | None
    patience: Positive
    focal: Annotated[float, Field(ge=0)]
    precision: Literal["auto", "bf16", "fp32"]
    checkpointing: bool


class BertSettings(Trained):
    """A fully fine-tuned encoder."""

    exportable: ClassVar[bool] = True
    family: Literal["bert"] = "bert"
    base: str
    adapt: Adapt | None
    pooling: Literal["mean", "cls"]
    max_length: Annotated[int, Field(ge=8, le=8192)]


class Logistic(Section):
    """scikit-learn's logistic regression: the inverse of how far weights are held down."""

    c: Annotated[float, Field(gt=0)]


class Torch(Section):
    """A linear layer learnt by AdamW, `epochs` times from all rows at once."""

    epochs: Positive
    lr: Annotated[float, Field(gt=0, le=1)]


class SetfitSettings(Trained):
    """An encoder tuned on pairs of few rows, then a head on its embeddings (Tunstall et al. 2022).

    `shots`: rows of each label, all without it. `pairs`: so many make an epoch, one half of rows that
    share a label; `batch` counts them. `head`: `logistic` is scikit-learn's; `torch` learns by gradient,
    and takes `focal`. What each is set to stands in the section of its name.
    """

    exportable: ClassVar[bool] = True
    family: Literal["setfit"] = "setfit"
    base: str
    adapt: Adapt | None
    pooling: Literal["mean", "cls"]
    prefix: str
    max_length: Annotated[int, Field(ge=8, le=8192)]
    shots: Positive | None
    pairs: Annotated[int, Field(ge=2)]
    head: Literal["logistic", "torch"]
    logistic: Logistic
    torch: Torch

    @model_validator(mode="after")
    def _has_no_setting_without_effect(self) -> "SetfitSettings":
        if self.focal and self.head == "logistic":
            raise ValueError("focal is of a head that learns by gradient; it needs head: torch")
        if self.shots is not None and (self.downsample is not None or self.mixing):
            raise ValueError("shots, downsample and mixing all draw the rows; use one of them")
        return self


class Asked(Candidate):
    """A causal language model and what it is asked.

    `load`: its weights as they are, or as 4-bit NF4 with double quantisation (Dettmers et al. 2023).
    `prompt`: a prompt of the codebook, the scheme's first without it. `shots`: examples of each label
    from the codebook. `predict`: `closed` scores every label's answer, `generate` lets the model write
    `max_new_tokens` and reads that, as published.
    """

    exportable: ClassVar[bool] = False
    base: str
    adapt: Adapt | None
    load: Literal["full", "nf4"]
    prompt: str | None
    definitions: bool
    shots: Annotated[int, Field(ge=0)]
    max_length: Annotated[int, Field(ge=16, le=131072)]
    predict: Literal["closed", "generate"]
    max_new_tokens: Positive


class FewshotSettings(Asked):
    """An untuned language model, asked with `shots` examples of each label, or none."""

    family: Literal["fewshot"] = "fewshot"


class Preference(Section):
    """Direct preference optimisation (Rafailov et al. 2023) after the tuning; kept if it gains.

    All pairs weigh alike: `class_weights`, `focal` and a mix's weights are of the tuning alone.
    """

    beta: Annotated[float, Field(gt=0)]
    epochs: Annotated[float, Field(gt=0)]
    lr: Annotated[float, Field(gt=0, le=1)]


class LoraSettings(Trained, Asked):
    """A language model tuned by low-rank adapters (Hu et al. 2021), on 4-bit weights QLoRA.

    `objective`: `answer` learns to write the label's answer, `classify` puts a head on the comment's
    last token. `loss_on`: the answer's tokens, or all of them, as in the published ablation.
    """

    family: Literal["lora"] = "lora"
    r: Positive
    alpha: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: list[str] | Literal["all-linear"]
    objective: Literal["answer", "classify"]
    loss_on: Literal["answer", "all"]
    preference: Preference | None

    @model_validator(mode="after")
    def _has_no_setting_without_effect(self) -> "LoraSettings":
        if self.objective == "classify":
            asks = (self.prompt, self.definitions, self.shots, self.preference, self.loss_on == "all")
            if self.predict == "generate" or any(asks):
                raise ValueError(
                    "objective classify asks and writes nothing: no prompt, definitions, shots,"
                    " preference, loss_on: all or predict: generate"
                )
        elif self.focal and self.loss_on == "all":
            raise ValueError("focal weighs answers; it needs loss_on: answer")
        elif self.logit_adjustment and self.predict == "generate":
            raise ValueError("logit_adjustment corrects scores; it needs predict: closed")
        return self


Settings = TfidfSettings | E5Settings | BertSettings | SetfitSettings | FewshotSettings | LoraSettings
FAMILIES: Mapping[str, type[Settings]] = {
    "tfidf": TfidfSettings,
    "e5": E5Settings,
    "bert": BertSettings,
    "setfit": SetfitSettings,
    "fewshot": FewshotSettings,
    "lora": LoraSettings,
}


class Train(Section):
    """`launcher`: what would be written after `accelerate launch`, such as --num_processes 2, for
    families that learn by gradient; empty: one process."""

    launcher: Annotated[str, Field(pattern=r"\S")] | None


class Calibrate(Section):
    """What is fitted on validation beside the thresholds.

    `temperature`: one that every logit is divided by. `max_error`: the share of wrong texts among those
    that are answered, which is kept with 95 % confidence by abstaining from the rest; empty: never.
    """

    temperature: bool
    max_error: Fraction | None


class Evaluate(Section):
    """`draws`: bootstrap samples behind each interval. `slices`: source → by what its rows are told
    apart: `month`, `length`, or `meta.<column>` of ingest's `meta`; by length where it isn't named.
    Slices of fewer than `slice_rows` test rows are pooled.
    """

    draws: Annotated[int, Field(ge=100)]
    slices: dict[SourceName, list[Annotated[str, Field(pattern=r"^(month|length|meta\..+)$")]]]
    slice_rows: Positive


class Select(Section):
    """The validation metric that decides."""

    metric: Literal["macro_f1", "micro_f1", "accuracy"]


class Prevalence(Section):
    """How much of the corpus each label is.

    `judge`: whose scores are corrected; `encoder` where the champion is too slow for a whole corpus.
    `inclusion`: source → the column, one of ingest's `meta`, with the probability that a row was drawn
    to be labelled by hand; without it all were drawn alike.
    """

    judge: Literal["champion", "encoder"]
    inclusion: dict[SourceName, str]


class Choose(Section):
    """What a variant of the encoder has to keep on validation to be released: a macro-F1 at most
    `max_drop` below PyTorch's, and `min_agreement` of the decisions."""

    max_drop: Annotated[float, Field(ge=0, le=1)]
    min_agreement: Annotated[float, Field(ge=0, le=1)]


class Export(Section):
    """`calibration`: of how many training texts the static variant takes its ranges."""

    opset: Annotated[int, Field(ge=14, le=20)]
    calibration: Positive
    choose: Choose


class Hourly(Section):
    """What a machine costs an hour, in `currency`."""

    hour: Annotated[float, Field(ge=0)]
    currency: str


class Bench(Section):
    """`lengths` in tokens of the encoder; batch 1 is measured in any case.

    `repeats`: calls at batch 1, fewer of larger batches and of a model that would need more than
    `seconds` for them. `starts`: of new processes, for cold start and memory, or fewer after `seconds`;
    0 leaves them out. `threads`: empty for as many as there are cores. `p95_ms`: an optional target for
    the release at batch 1. `price`: of the machine, for the cost of a million comments.
    """

    lengths: Annotated[list[Positive], Field(min_length=1)]
    batches: Annotated[list[Positive], Field(min_length=1)]
    repeats: Annotated[int, Field(ge=5)]
    seconds: Annotated[float, Field(gt=0)]
    starts: Annotated[int, Field(ge=0)]
    threads: Positive | None
    p95_ms: Annotated[float, Field(gt=0)] | None
    price: Hourly | None


def _is_a_host(value: str) -> str:
    if urlsplit(f"https://{value}").hostname != value.strip("[]") or re.search(r"[\s*]", value):
        raise ValueError("write a host's name alone, in small letters, such as api.openai.com")
    return value


Host = Annotated[str, AfterValidator(_is_a_host)]


class Tracking(Section):
    """`unreachable`: what a stage does when MLflow's store doesn't answer: `record` its run on this
    machine, to be sent by `undertone sync`, or `refuse` to start."""

    unreachable: Literal["record", "refuse"]


class Privacy(Section):
    """`allowed_hosts`: the only hosts that comments may be sent to, by name, without port."""

    allowed_hosts: list[Host]


class Audit(Section):
    """`public`: files, as patterns from the repository's folder, that were read and found fit for all:
    what stands in them is no finding anywhere. An earlier version of one is named by its git object."""

    public: list[str]


class Params(Section):
    """The whole of params.yaml."""

    seed: Seed
    data: Data
    sample: Sample
    ingest: dict[SourceName, Source]
    clean: Clean
    providers: dict[Name, Provider]
    prices: dict[str, Price]
    request: dict[SourceName, Request]
    answer: dict[SourceName, Door]
    endpoint: Endpoint
    local: Local
    collect: Collect
    fuse: Fuse
    review: Review
    split: Split
    generate: dict[SourceName, Generate | None]  # None: nothing is generated
    search: Search
    pseudo: Pseudo
    mixes: dict[Name, Mix]
    doubt: Doubt
    models: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    tfidf: TfidfSettings
    e5: E5Settings
    bert: BertSettings
    setfit: SetfitSettings
    fewshot: FewshotSettings
    lora: LoraSettings
    train: Train
    calibrate: Calibrate
    evaluate: Evaluate
    select: Select
    prevalence: Prevalence
    export: Export
    bench: Bench
    tracking: Tracking
    privacy: Privacy
    audit: Audit

    def candidates(self) -> dict[str, Settings]:
        """Each entry of `models` with its family's section filled in, in the file's order."""
        return {
            name: FAMILIES[entry["family"]].model_validate(
                {**getattr(self, entry["family"]).model_dump(), **entry}
            )
            for name, entry in self.models.items()
        }

    def ensemble(self) -> list[str]:
        """Who makes pseudo-labels: all of `pseudo.candidates`, or nobody where one isn't there."""
        named = self.pseudo.candidates
        return named if self.models.keys() >= set(named) else []

    def twins(self) -> dict[str, str | None]:
        """Each candidate on another mix than `own` → the candidate that differs in that alone."""
        candidates = self.candidates()
        return {
            name: next(
                (
                    other
                    for other, its in candidates.items()
                    if its == settings.model_copy(update={"mix": OWN})
                ),
                None,
            )
            for name, settings in candidates.items()
            if settings.mix != OWN
        }


def read_params(path: Path = Path("params.yaml")) -> Params:
    """The checked params; one `Problem` that holds every fault, a line each."""
    content = read_yaml(path)
    problems: list[Problem] = []
    params: Params | None = None
    try:
        params = validated(Params, content, where=path.name)
    except Problem as problem:
        problems.append(problem)
    entries = _entry_problems(content, path.name) if isinstance(content, Mapping) else []
    problems += entries
    if params is not None and params.data.source not in params.ingest:
        known = ", ".join(params.ingest)
        what = f"data.source is '{params.data.source}', must be one of {known}"
        remedy = f"Add a section ingest.{params.data.source}."
        problems.append(Problem(what, where=path.name, remedy=remedy))
    if params is not None:
        problems += _labelling_problems(params, path.name)
        problems += _slice_problems(params, path.name)
        problems += _search_problems(params, path.name)
    if params is not None and not entries:  # a candidate's settings are needed whole
        problems += _mix_problems(params, path.name)
        problems += _generating_problems(params, path.name)
        problems += _fold_problems(params, path.name)
    if problems or params is None:
        raise Problem.together(problems)
    return params


def _labelling_problems(params: Params, where: str) -> list[Problem]:
    """Sources without a word on who labels them, or with two."""
    problems: list[Problem] = []
    for source, table in params.ingest.items():
        for section in ("request", "answer"):
            if source not in getattr(params, section):
                remedy = f"Write `{source}:` as the other sources of `{section}` have it."
                problems.append(Problem(f"{section}.{source} is missing", where=where, remedy=remedy))
        if source not in params.request or source not in params.answer:
            continue
        door, voters = params.answer[source], params.request[source].voters
        if door == "none" and voters:
            what = f"request.{source} has voters, but answer.{source} is none"
            problems.append(Problem(what, where=where, remedy="Choose files, endpoint or local."))
        if door != "none" and not voters:
            what = f"answer.{source} is {door}, but request.{source}.voters is empty"
            problems.append(Problem(what, where=where, remedy="Name a voter, or write none."))
        if params.request[source].rows is not None and not voters:
            what = f"request.{source}.rows is set, but nobody is asked"
            problems.append(Problem(what, where=where, remedy="Name a voter, or leave rows empty."))
        if door != "none" and table.labels is not None:
            what = f"both ingest.{source}.labels and the voters of answer.{source} give labels"
            remedy = "Name people's labels under `gold`, or set the answer to none."
            problems.append(Problem(what, where=where, remedy=remedy))
        for name, voter in voters.items():
            if voter.provider not in params.providers:
                place = f"request.{source}.voters.{name}.provider"
                what = f"{place} is '{voter.provider}', must be one of {', '.join(params.providers)}"
                problems.append(Problem(what, where=where))
    return problems


def _mix_problems(params: Params, where: str) -> list[Problem]:
    """Mixes that nobody knows, that nothing can be compared with, or that would teach what they
    learnt."""
    known = ", ".join(params.mixes)
    if OWN not in params.mixes:
        what = f"mixes.{OWN} is missing, which candidates learn from that name no mix"
        return [Problem(what, where=where, remedy=f"There are {known}.")]
    candidates, problems = params.candidates(), []
    if params.mixes[OWN].adds or params.mixes[OWN].doubts:
        what = f"mixes.{OWN} adds or doubts rows, so that there is nothing to compare it with"
        remedy = "Leave generated, pseudo and noise out of it; name another mix for a candidate."
        problems.append(Problem(what, where=where, remedy=remedy))
    for name, own in candidates.items():
        if own.mix not in params.mixes:
            what = f"models.{name}: its mix is '{own.mix}', must be one of {known}"
            problems.append(Problem(what, where=where))
        elif own.mix != OWN and params.split.folds is not None:
            what = f"models.{name}: its mix '{own.mix}' is of the training part, and folds have others"
            problems.append(Problem(what, where=where, remedy="Leave out its `mix`, or split.folds."))
        elif own.mix != OWN and not isinstance(own, Sampled):
            what = f"models.{name}: the family {own.family} learns from no row, so a mix changes nothing"
            problems.append(Problem(what, where=where, remedy="Leave out its `mix`."))
    problems += [
        Problem(
            f"models.{name} has no twin on the mix '{OWN}', so nobody can say what its mix is worth",
            where=where,
            remedy=f"Add an entry with the same settings and no `mix`, beside {name}.",
        )
        for name, twin in params.twins().items()
        if twin is None and candidates[name].mix in params.mixes
    ]
    weighing = {name for name, mix in params.mixes.items() if mix.pseudo}
    uses = [name for name, own in candidates.items() if own.mix in weighing]
    for name in params.pseudo.candidates:
        if name not in candidates and uses:
            what = f"pseudo.candidates: '{name}' is no candidate, must be of {', '.join(candidates)}"
            remedy = f"Name another; or write `candidates: []`, and {uses[0]} has no pseudo-labels."
            problems.append(Problem(what, where=where, remedy=remedy))
        elif name not in candidates:
            continue
        elif (mix := params.mixes.get(candidates[name].mix)) and (mix.adds or mix.doubts):
            what = f"pseudo.candidates: {name} would learn from rows that it labels, or doubts rows"
            remedy = "Name one whose mix has no generated and no pseudo rows, and no noise."
            problems.append(Problem(what, where=where, remedy=remedy))
    if len(set(params.pseudo.candidates)) < len(params.pseudo.candidates):
        problems.append(Problem("pseudo.candidates: one stands twice", where=where))
    return problems


def _generating_problems(params: Params, where: str) -> list[Problem]:
    """Sources without a word on generated rows, and writers at providers that nobody knows."""
    problems = [
        Problem(
            f"generate.{source} is missing",
            where=where,
            remedy=f"Write `{source}:` and nothing behind it, if nothing is to be generated.",
        )
        for source in params.ingest
        if source not in params.generate
    ]
    for source, one in params.generate.items():
        if one is not None and one.provider not in params.providers:
            known = ", ".join(params.providers)
            what = f"generate.{source}.provider is '{one.provider}', must be one of {known}"
            problems.append(Problem(what, where=where))
    return problems


def _fold_problems(params: Params, where: str) -> list[Problem]:
    """A base that read on in the comments has read those of every fold."""
    if params.split.folds is None:
        return []
    return [
        Problem(
            f"models.{name} adapts its base, which split.folds would judge by texts that it read",
            where=where,
            remedy="Set its `adapt` to null, or split.folds.",
        )
        for name, own in params.candidates().items()
        if own.adapt is not None
    ]


def _slice_problems(params: Params, where: str) -> list[Problem]:
    """Slices by what no source brings, which would be found out only after all training."""
    problems: list[Problem] = []
    for source, columns in params.evaluate.slices.items():
        if source not in params.ingest:
            what = f"evaluate.slices.{source}: there is no such source"
            problems.append(Problem(what, where=where, remedy=f"There are {', '.join(params.ingest)}."))
            continue
        meta = [f"meta.{one}" for one in params.ingest[source].meta]
        problems += [
            Problem(
                f"evaluate.slices.{source}: {column} is no column of ingest.{source}.meta",
                where=where,
                remedy=f"There are {', '.join(['length', 'month', *meta])}.",
            )
            for column in columns
            if column.startswith("meta.") and column not in meta
        ]
    return problems


def _search_problems(params: Params, where: str) -> list[Problem]:
    """Labels that would be looked for in no source."""
    return [
        Problem(
            f"search.labels.{source}: there is no such source",
            where=where,
            remedy=f"There are {', '.join(params.ingest)}.",
        )
        for source in params.search.labels
        if source not in params.ingest
    ]


_RESERVED = re.compile(r"majority|stratified|teachers|champion|release|latest|pseudo|v\d+|onnx-.*")


def _entry_problems(content: Mapping[str, Any], where: str) -> list[Problem]:
    """The faults of what the entries of `models` override; those of the sections are told as theirs."""
    entries = content.get("models")
    problems: list[Problem] = []
    for name, entry in entries.items() if isinstance(entries, Mapping) else ():
        if not isinstance(entry, Mapping):
            continue
        if _RESERVED.fullmatch(str(name)):
            what = f"models.{name}: the name means something else in reports and in the registry"
            problems.append(Problem(what, where=where, remedy="Choose another."))
        family = str(entry.get("family"))
        section = content.get(family)
        if family not in FAMILIES:
            known = ", ".join(FAMILIES)
            what = f"models.{name}.family is {entry.get('family')!r}, must be one of {known}"
            problems.append(Problem(what, where=where))
        elif isinstance(section, Mapping):
            whole = {**section, **entry}
            try:
                FAMILIES[family].model_validate(whole)
            except ValidationError as error:
                problems += [
                    Problem(_fault(detail, f"models.{name}.", whole), where=where)
                    for detail in error.errors(include_url=False)
                    if detail["loc"] and detail["loc"][0] in entry
                ]
    return problems


def read_yaml(path: Path) -> object:
    """A YAML 1.2 file, read as DVC reads it (PyYAML would take 2e-5 for a text)."""
    if not path.is_file():
        raise Problem("no such file", where=str(path))
    try:
        return YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}" if mark else ""
        told = str(error.problem).partition(" with value")[0]  # the value of a key that stands twice
        raise Problem(f"not valid YAML: {told}", where=f"{path}{line}") from None
    except UnicodeDecodeError:
        raise Problem("not UTF-8", where=str(path)) from None
    except YAMLError as error:
        raise Problem(f"not valid YAML ({type(error).__name__})", where=str(path)) from None


def validated(model: type[Model], content: object, *, where: str) -> Model:
    """`content` as a `model`, or one `Problem` that holds every fault, a line each."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [Problem(_fault(detail, "", content), where=where) for detail in details]
        raise Problem.together(problems) from None


_WORDING = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "dict_type": "must be a section",
    "model_type": "must be a section",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have at least {min_length} entries",
    "string_too_short": "must not be empty",
}


def _fault(detail: ErrorDetails, within: str, content: object) -> str:
    # Union members and dict keys appear in pydantic's location as words that are no key of ours.
    path: list[str] = []
    place: Any = content
    for step in detail["loc"]:
        if isinstance(place, Mapping) and step in place:
            place = place[step]
        elif isinstance(place, list) and isinstance(step, int) and step < len(place):
            place = place[step]
        elif detail["type"] != "missing":
            continue
        path.append(str(step))
    name = within + ".".join(path)
    if detail["type"] == "extra_forbidden":
        return f"{name} is not a known key"
    if detail["type"] == "missing":
        return f"{name} is missing"
    if detail["type"] == "value_error":
        return f"{name or 'the file'}: {detail['ctx']['error']}"
    wording = _WORDING.get(detail["type"])
    told = wording.format(**detail.get("ctx", {})) if wording else detail["msg"]
    value = repr(place) if isinstance(place, str | int | float | None) else f"a {type(place).__name__}"
    return f"{name} is {value}, {told}"
