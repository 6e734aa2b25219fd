"""params.yaml: read as DVC reads it, every fault told at once, written in DVC's own style."""

import re
import shlex
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from dvc.utils.serialize import modify_yaml

from undertone.errors import Problem
from undertone.params import read_params

SHIPPED = Path("params.yaml")


def overridden(folder: Path, *overrides: str) -> Path:
    """A copy of params.yaml after `dvc exp run -S <override>`."""
    path = folder / "params.yaml"
    path.write_text(SHIPPED.read_text("utf-8"), "utf-8")
    apply_overrides(path, list(overrides))
    return path


def faults(folder: Path, *overrides: str) -> list[str]:
    with pytest.raises(Problem) as caught:
        read_params(overridden(folder, *overrides))
    return str(caught.value).splitlines()


def test_the_shipped_params_are_valid_and_run_on_the_standin() -> None:
    params = read_params(SHIPPED)
    assert params.data.source == "standin"
    assert set(params.candidates()) == {
        *("tfidf", "e5", "bert", "setfit", "zeroshot", "lora", "tfidf_wide"),
    }


def test_dvc_rewrites_the_shipped_file_without_a_change(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(SHIPPED.read_text("utf-8"), "utf-8")
    with modify_yaml(path):
        pass
    assert path.read_text("utf-8") == SHIPPED.read_text("utf-8")
    apply_overrides(path, ["seed=13"])
    assert path.read_text("utf-8") == SHIPPED.read_text("utf-8")


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("bert.lr=abc", "params.yaml: bert.lr is 'abc', must be a number"),
        ("bert.batch=-4", "params.yaml: bert.batch is -4, must be above 0"),
        ("bert.epochs=0", "params.yaml: bert.epochs is 0, must be above 0"),
        ("bert.batch=2.5", "params.yaml: bert.batch is 2.5, must be a whole number"),
        ("e5.class_weights=maybe", "params.yaml: e5.class_weights is 'maybe', must be 'none'"),
        ("bert.epochs=true", "params.yaml: bert.epochs is True, must be a number"),
        ("+bert.learning_rate=1", "params.yaml: bert.learning_rate is not a known key"),
        ("e5.pooling=max", "params.yaml: e5.pooling is 'max', must be 'mean' or 'cls'"),
        ("data.source=Priv ate", "params.yaml: data.source is 'Priv ate', must match"),
        ("clean.similarity=1.5", "params.yaml: clean.similarity is 1.5, must be below 1"),
        ("split.test=0.9", "params.yaml: split: validation and test together leave nothing"),
        ("models.bert.family=gpt", "params.yaml: models.bert.family is 'gpt', must be one of tfidf"),
        ("+models.bert.lr=-1", "params.yaml: models.bert.lr is -1, must be above 0"),
        ("+models.bert.rank=8", "params.yaml: models.bert.rank is not a known key"),
        ("data.source=nowhere", "params.yaml: data.source is 'nowhere', must be one of standin"),
        ("seed=-1", "params.yaml: seed is -1, must be at least 0"),
        ("tfidf.ngrams=[3,1]", "params.yaml: tfidf: ngrams go from the shorter to the longer"),
        ("+models.majority={family: tfidf}", "params.yaml: models.majority: the name means something"),
        ("+ingest.private.delimiter=tab", "params.yaml: ingest.private.delimiter is 'tab'"),
        (
            "evaluate.slices.standin=[meta.sorce]",
            "params.yaml: evaluate.slices.standin: meta.sorce is no column of ingest.standin.meta",
        ),
        (
            "generate.standin.accept.length=[0.9,0.1]",
            "params.yaml: generate.standin.accept: length",
        ),
        (
            "generate.standin.accept.forbidden=['(']",
            "params.yaml: generate.standin.accept.forbidden.0",
        ),
        ("generate.standin.parents=0", "params.yaml: generate.standin.parents is 0, must be above 0"),
        (
            "generate.standin.provider=nobody",
            "params.yaml: generate.standin.provider is 'nobody'",
        ),
        ("~generate.standin", "params.yaml: generate.standin is missing"),
        ("+evaluate.slices.stndin=[month]", "params.yaml: evaluate.slices.stndin: there is no such"),
        ("~bert.lr", "params.yaml: bert.lr is missing"),
        (
            "evaluate.slices.standin=[group]",
            "params.yaml: evaluate.slices.standin.0 is 'group'",
        ),
        (
            "evaluate.slices.standin=[text]",
            "params.yaml: evaluate.slices.standin.0 is 'text'",
        ),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_it_must_be(
    override: str, fault: str, tmp_path: Path
) -> None:
    found = faults(tmp_path, override)
    assert len(found) == 1
    assert found[0].startswith(fault)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, "bert.lr=x", "e5.c=-1", "+typo=1", "+models.bert.batch=0")
    assert len(found) == 4


def test_a_base_that_read_every_comment_cannot_be_judged_by_folds(tmp_path: Path) -> None:
    folds = "split.folds={k: 5, repeats: 2}"
    found = faults(tmp_path, folds, "~models.tfidf_wide")
    assert [line.split(" adapts")[0] for line in found] == [
        f"params.yaml: models.{name}" for name in ("zeroshot", "lora")
    ]
    plain = ("fewshot.adapt=null", "lora.adapt=null", "~models.tfidf_wide")
    read_params(overridden(tmp_path, folds, *plain))
    assert "need order: random" in faults(tmp_path, folds, "split.order=time")[0]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["+models.e5.mix=gone"], "models.e5: its mix is 'gone', must be one of own, wide"),
        (["+models.bert.mix=wide"], "models.bert has no twin on the mix 'own', so nobody can say"),
        (["+models.tfidf_wide.c=2.0"], "models.tfidf_wide has no twin on the mix 'own'"),
        (["~mixes.own"], "mixes.own is missing, which candidates learn from that name no mix"),
        (["mixes.wide.pseudo=-1"], "mixes.wide.pseudo is -1, must be at least 0"),
        (["+mixes.wide.noise=often"], "mixes.wide.noise is 'often', must be 'none', 'drop' or 'weigh'"),
        (["+mixes.none={pseudo: 1.0}"], "mixes.none: no row of the split weighs anything"),
        (["pseudo.candidates=[tfidf,gpt]"], "pseudo.candidates: 'gpt' is no candidate"),
        (["pseudo.candidates=[tfidf_wide]"], "pseudo.candidates: tfidf_wide would learn from rows"),
        (["pseudo.candidates=[tfidf,tfidf]"], "pseudo.candidates: one stands twice"),
        (["pseudo.threshold=0.3"], "pseudo.threshold is 0.3, must be at least 0.5"),
        (["+request.private.rows=9"], "request.private.rows is set, but nobody is asked"),
        (["+models.pseudo={family: tfidf}"], "models.pseudo: the name means something else"),
        (
            ["split.folds={k: 3, repeats: 1}", "fewshot.adapt=null", "lora.adapt=null"],
            "models.tfidf_wide: its mix 'wide' is of the training part, and folds have others",
        ),
        (
            ["+mixes.own.noise=drop", "pseudo.candidates=[]"],
            "mixes.own adds or doubts rows, so that there is nothing to",
        ),
        (
            ["+mixes.own.generated=1.0", "pseudo.candidates=[]"],
            "mixes.own adds or doubts rows, so that there is nothing to",
        ),
        (
            ["+models.other={family: fewshot, mix: wide}"],
            "models.other: the family fewshot learns from no row, so a mix changes nothing",
        ),
        (
            [
                "+mixes.clean={silver: 1.0, noise: drop}",
                "+models.other={family: tfidf, mix: clean}",
                "pseudo.candidates=[other]",
            ],
            "pseudo.candidates: other would learn from rows that it labels, or doubts rows",
        ),
    ],
)
def test_what_mixes_and_ensembles_cannot_be_is_told(
    overrides: list[str], told: str, tmp_path: Path
) -> None:
    (line,) = faults(tmp_path, *overrides)
    assert line.startswith(f"params.yaml: {told}")


def test_one_candidate_alone_needs_no_word_on_an_ensemble(tmp_path: Path) -> None:
    others = [name for name in read_params(SHIPPED).models if name != "bert"]
    alone = read_params(overridden(tmp_path, *(f"~models.{name}" for name in others)))
    assert (list(alone.models), alone.ensemble()) == (["bert"], [])
    assert read_params(SHIPPED).ensemble() == read_params(SHIPPED).pseudo.candidates != []


def test_where_a_mix_weighs_pseudo_labels_the_switch_is_named(tmp_path: Path) -> None:
    (line,) = faults(tmp_path, "~models.e5")
    assert line.endswith("or write `candidates: []`, and tfidf_wide has no pseudo-labels.")
    read_params(overridden(tmp_path, "~models.e5", "pseudo.candidates=[]"))


def test_faults_of_several_mixes_are_told_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, "+models.e5.mix=wide", "+models.bert.mix=gone", "pseudo.candidates=[x]")
    assert len(found) == 3


def test_a_twin_differs_in_its_mix_alone_however_it_is_written(tmp_path: Path) -> None:
    shipped = read_params(SHIPPED)
    assert shipped.twins() == {"tfidf_wide": "tfidf"}
    c = shipped.tfidf.c
    path = overridden(tmp_path, f"+models.tfidf_wide.c={c}", "+models.tfidf.mix=own")
    assert read_params(path).twins() == {"tfidf_wide": "tfidf"}


def test_a_mix_is_swept_as_any_parameter(tmp_path: Path) -> None:
    given = {"params.yaml": ["mixes.wide.pseudo=0,0.25,0.5,1"]}
    found = [
        read_params(overridden(tmp_path, *one["params.yaml"])).mixes["wide"].pseudo
        for one in get_hydra_sweeps(given)
    ]
    assert found == [0, 0.25, 0.5, 1]


def test_a_candidate_is_three_lines_and_inherits_its_familys_section(tmp_path: Path) -> None:
    path = overridden(tmp_path, "+models.modern={family: bert, base: 'hub:a/b@c', lr: 3.0e-5}")
    candidates = read_params(path).candidates()
    assert candidates["modern"].base == "hub:a/b@c"
    assert candidates["modern"].model_dump()["lr"] == 3e-5
    assert candidates["modern"].model_dump()["epochs"] == candidates["bert"].model_dump()["epochs"]


def test_numbers_are_read_as_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    shipped = SHIPPED.read_text("utf-8")
    assert "  lr: 0.0002\n" in shipped
    path.write_text(shipped.replace("  lr: 0.0002\n", "  lr: 2e-5\n"), "utf-8")  # PyYAML: a text
    assert read_params(path).bert.lr == 2e-5


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 1\nseed: 2\n", "utf-8")
    with pytest.raises(Problem, match=r"params.yaml line 2: not valid YAML"):
        read_params(path)
    with pytest.raises(Problem, match="no such file"):
        read_params(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("providers.openai.key=sk-canary-1", "providers.openai.key: write the name of an environment"),
        ("providers.openai.url=https://me:canary@llm.example.org/v1", "no user, password or key"),
        ("providers.openai.url=http://llm.example.org/v1", "must begin with https://"),
        ("+request.private.voters.gold={provider: openai}", "'gold' means something else"),
        ("answer.private=files", "request.private.voters is empty"),
        ("~request.edos", "request.edos is missing"),
    ],
)
def test_voters_and_providers_are_checked_and_no_secret_is_shown(
    tmp_path: Path, override: str, told: str
) -> None:
    lines = faults(tmp_path, override)
    assert any(told in line for line in lines)
    assert not any("canary" in line for line in lines)


def test_a_table_with_labels_and_voters_is_told(tmp_path: Path) -> None:
    voter = "{provider: openai, model: m, prompt: p, definitions: true, temperature: 0.0, max_tokens: 4}"
    lines = faults(tmp_path, "answer.private=files", f"+request.private.voters.one={voter}")
    assert any("both ingest.private.labels and the voters" in line for line in lines)


@pytest.mark.parametrize(
    "host", ["https://x.org", "x.org:443", "X.org", "'*.x.org'", "x.org/v1", "u@x.org", "''", "'a b'"]
)
def test_an_allowed_host_is_a_name_alone(tmp_path: Path, host: str) -> None:
    (line,) = faults(tmp_path, f"privacy.allowed_hosts=[{host}]")
    assert "privacy.allowed_hosts" in line
    assert "a host's name alone" in line


def test_a_name_and_an_address_are_hosts(tmp_path: Path) -> None:
    path = overridden(tmp_path, "privacy.allowed_hosts=[api.x.org,127.0.0.1]")
    assert read_params(path).privacy.allowed_hosts == ["api.x.org", "127.0.0.1"]


def test_every_documented_experiment_has_valid_params(tmp_path: Path) -> None:
    text = Path("docs/studies.md").read_text("utf-8").replace("\\\n", " ")
    shared = dict(re.findall(r'^    (\w+)="([^"]+)"', text, re.MULTILINE))
    lines = re.findall(r"^    dvc exp run (.+)", text, re.MULTILINE)
    assert len(lines) == 6
    for line in lines:
        words = shlex.split(re.sub(r"\$(\w+)", lambda one: shared[one[1]], line))
        given = [words[at + 1] for at, word in enumerate(words) if word == "-S"]
        assert len(given) > len(shared)
        for choice in get_hydra_sweeps({"params.yaml": given}):
            read_params(overridden(tmp_path, *choice["params.yaml"]))
