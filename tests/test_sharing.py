"""Three people, one repository: owner, somebody with access, somebody without; a real sshd between."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests import sshd
from tests.people import Person, objects, pipeline, ran

pytestmark = pytest.mark.services

HOST = "data.example.org"  # of the committed .dvc/config; ~/.ssh/config leads it to the test's sshd
SMALL = (
    *("~models.e5", "~models.bert", "~models.setfit", "~models.zeroshot", "~models.lora"),
    *("~models.tfidf_wide", "pseudo.candidates=[]"),
    *("sample.rows=160", "sample.gold=40", "split.min_support=2", "evaluate.draws=100"),
)
LEARNT = {  # the family also judges generated rows, and labels that a mix doubts
    *("resolve", "augment@private", "instruct@private-tfidf", "compose@private-tfidf"),
    *("train@private-tfidf", "predict@private-tfidf"),
}


def settle(person: Person, server: sshd.Server, key: Path | None, known: str = "") -> None:
    """What docs/access.md has people write into ~/.ssh: where, as whom, and OpenSSH in between."""
    folder = person.home / ".ssh"
    folder.mkdir(exist_ok=True)
    (folder / "known_hosts").write_text(known or server.known_host("127.0.0.1"))
    lines = [f"Host {HOST}", "HostName 127.0.0.1", f"Port {server.port}", f"User {server.user}"]
    lines += [f"UserKnownHostsFile {folder}/known_hosts"]
    if key:
        lines += [f"IdentityFile {key}", "IdentitiesOnly yes"]
    # -F, as ssh takes the home of the password file, and not $HOME
    options = f"-F {folder}/config -o ProxyCommand=none -o BatchMode=yes"
    lines += [f"ProxyCommand ssh {options} -W localhost:%p {HOST}"]
    (folder / "config").write_text("\n  ".join(lines) + "\n")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Server]:
    with sshd.running(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("srv") / "undertone"


@pytest.fixture(scope="module")
def owner(
    server: sshd.Server, remote: Path, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Person:
    """After a model learnt from private data, the stand-in was cleaned, and all of it pushed."""
    person = pipeline(tmp_path_factory.mktemp("people") / "owner", SMALL)
    key = sshd.keypair(person.home / "key")
    server.grant(sshd.WRITER, key)
    settle(person, server, key)
    shutil.copyfile(template, person.folder / "mlflow.db")
    person.remote(url=f"ssh://{HOST}{remote}")
    person.commit("start")
    person.dvc("repro", "clean@standin")
    book = person.folder / "data/raw/standin/comments.xlsx"
    table = pd.read_excel(book, dtype=str, sheet_name="first half", engine="calamine")
    table = table[table["truth"].notna()].rename(columns={"truth": "label"})
    table[["comment", "label"]].to_excel(person.home / "own.xlsx", index=False)
    said = person.undertone("private", "add", str(person.home / "own.xlsx")).stdout
    assert "git add data/raw/private.dvc" in said
    person.dvc("push", "-q")  # pushes what the source in use has made, and no other's
    person.dvc("exp", "run", "-S", "data.source=private")
    person.dvc("push", "-q")
    person.git("checkout", "-q", "params.yaml")
    person.commit("results")
    return person


@pytest.fixture(scope="module")
def collaborator(owner: Person, server: sshd.Server) -> Person:
    """Has a clone and a key that may read."""
    person = owner.clone(owner.folder.with_name("collaborator"))
    key = sshd.keypair(person.home / "key")
    server.grant(sshd.READER, key)
    settle(person, server, key)
    return person


def test_the_owners_files_are_tracked_by_hash_ignored_by_git_and_on_the_private_remote_only(
    owner: Person, remote: Path
) -> None:
    pointer = (owner.folder / "data/raw/private.dvc").read_text()
    assert "remote: private" in pointer
    tracked = owner.git("ls-files", "data").split()
    assert "data/raw/private.dvc" in tracked
    assert not [name for name in tracked if "own" in name or name.endswith((".xlsx", ".parquet"))]
    assert owner.git("status", "--porcelain") == ""
    there = objects(remote / "files/md5")
    private = (owner.home / "own.xlsx").read_bytes()
    assert sum(path.read_bytes() == private for path in there.values()) == 1
    public, local = remote.with_name("public"), owner.folder / ".dvc/config.local"
    local.write_text(f"['remote \"public\"']\n    url = {public}\n")
    owner.dvc("push", "-q", "--remote", "public", "data/raw/private.dvc")
    assert not any(path.read_bytes() == private for path in objects(public / "files/md5").values())
    local.unlink()


def test_who_has_a_key_restores_everything_and_trains_nothing(collaborator: Person) -> None:
    done = collaborator.dvc("exp", "run", "--pull", "-S", "data.source=private")
    assert ran(done) == []
    assert (collaborator.folder / "data/raw/private/own.xlsx").exists()
    assert (collaborator.folder / "models/candidates/private/tfidf").is_dir()
    assert not (collaborator.folder / "mlflow.db").exists()  # no run was made


def test_one_changed_parameter_reruns_only_what_learns_from_it(collaborator: Person) -> None:
    done = collaborator.dvc("exp", "run", "-S", "data.source=private", "-S", "tfidf.c=2.0")
    assert {"train@private-tfidf", "predict@private-tfidf"} <= set(ran(done)) <= LEARNT
    collaborator.git("checkout", "-q", ".")


def test_another_source_and_back_reruns_nothing_and_leaves_git_clean(collaborator: Person) -> None:
    for source, more in (("standin", ["--pull", "clean@standin"]), ("private", [])):
        lock = (collaborator.folder / "dvc.lock").read_bytes()
        done = collaborator.dvc("exp", "run", "-S", f"data.source={source}", *more)
        assert ran(done) == []
        assert (collaborator.folder / "dvc.lock").read_bytes() == lock
        changed = collaborator.git("status", "--porcelain").split()
        assert changed in ([], ["M", "params.yaml"])


def test_a_key_that_may_read_can_neither_push_nor_delete(collaborator: Person, remote: Path) -> None:
    before = sorted(objects(remote / "files/md5"))
    (collaborator.home / "more.csv").write_text("comment,label\nmore,positive\n")
    done = collaborator.undertone(
        "private", "add", "--push", str(collaborator.home / "more.csv"), check=False
    )
    assert done.returncode == 1
    assert "undertone: dvc push: " in done.stderr
    assert sorted(objects(remote / "files/md5")) == before
    said = collaborator.undertone("access").stdout
    assert "write: no, you may only read" in said
    assert "fails" not in said
    collaborator.git("checkout", "-q", ".")


def test_who_has_no_access_runs_the_standin_and_is_told_in_one_line_whom_to_ask(
    owner: Person, server: sshd.Server
) -> None:
    person = owner.clone(owner.folder.with_name("outsider"))
    settle(person, server, None)
    assert ran(person.dvc("repro", "clean@standin")) == ["sample", "locate@standin", *CLEANED]
    done = person.dvc("exp", "run", "-S", "data.source=private", check=False)
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("locate: ")]
    assert len(told) == 1
    for wanted in (
        "data/raw/private",
        "only their pointer",
        "ask the owner of this repository",
        "`undertone access`",
        "-S data.source=standin",
    ):
        assert wanted in told[0]
    # with --pull no stage is reached: DVC's own line, which `undertone access` puts into words
    done = person.dvc("exp", "run", "--pull", "-S", "data.source=private", check=False)
    assert done.returncode != 0
    assert not (person.folder / "data/raw/private").exists()
    done = person.undertone("access", check=False)
    assert done.returncode == 1
    assert "fails  key: you have none → Make one by `ssh-keygen -t ed25519`, send" in done.stdout
    person.git("checkout", "-q", ".")
    assert person.git("status", "--porcelain") == ""


CLEANED = ("ingest@standin", "clean@standin")


def test_a_key_in_config_local_does_as_well_and_stays_out_of_git(
    owner: Person, remote: Path, server: sshd.Server
) -> None:
    person = owner.clone(owner.folder.with_name("local"))
    key = sshd.keypair(person.home / "key")
    address = f"ssh://127.0.0.1{remote}"
    person.remote(local=True, url=address, port=server.port, user=server.user, keyfile=str(key))
    assert "key accepted: 127.0.0.1 accepts none" in person.undertone("access", check=False).stdout
    server.grant(sshd.READER, key)
    person.dvc("fetch", "data/raw/private.dvc")
    server.withdraw(key)
    shutil.rmtree(person.folder / ".dvc/cache")
    assert person.dvc("fetch", "data/raw/private.dvc", check=False).returncode != 0
    assert person.git("status", "--porcelain") == ""


def test_a_server_with_another_host_key_gets_nothing_and_gives_nothing(
    owner: Person, server: sshd.Server
) -> None:
    person = owner.clone(owner.folder.with_name("deceived"))
    key = sshd.keypair(person.home / "key")
    server.grant(sshd.READER, key)
    kind, body = sshd.keypair(person.home / "other").with_suffix(".pub").read_text().split()[:2]
    settle(person, server, key, known=f"[127.0.0.1]:{server.port} {kind} {body}\n")
    assert person.dvc("fetch", "data/raw/private.dvc", check=False).returncode != 0
    assert not person.cache()
    said = person.undertone("access", check=False).stdout
    assert "fails  host key: 127.0.0.1 shows another key than known_hosts has" in said
    # without the ProxyCommand DVC would have taken it, and the doctor says so
    config = person.home / ".ssh/config"
    config.write_text("".join(line for line in config.open() if "ProxyCommand" not in line))
    person.dvc("fetch", "data/raw/private.dvc")
    said = person.undertone("access", check=False).stdout
    assert "fails  host key: " in said
    assert "fails  host key checked: DVC takes any host key → Write under `Host " in said
