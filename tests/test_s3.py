"""An S3 remote with a key for each person: to write, to read, or for nothing; moto with IAM on."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.people import Person, pipeline

pytestmark = pytest.mark.services
BUCKET = "undertone"
ROLES = {  # as docs/access.md has them
    "writer": ["s3:GetObject", "s3:ListBucket", "s3:PutObject", "s3:AbortMultipartUpload"],
    "reader": ["s3:GetObject", "s3:ListBucket"],
    "nobody": [],
}
STRANGER = ("AKIAUNKNOWN", "guessed")


@dataclass(frozen=True)
class Store:
    """`keys`: id and secret of each of `ROLES`; `admin` may look at everything."""

    address: str
    keys: dict[str, tuple[str, str]]
    admin: Any

    def objects(self) -> dict[str, str]:
        """Names and digests of what lies in the bucket."""
        listed = self.admin.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {entry["Key"]: entry["ETag"] for entry in listed}

    def uploads(self) -> list[Any]:
        found: list[Any] = self.admin.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        port = own.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("s3") / "log"
    calls = 12  # made below without a key; all later ones have to show theirs
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(calls)}
    with log.open("wb") as file:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        _await(port, process, log)
        yield _settled(address)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _await(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    pytest.fail(f"the S3 server doesn't start: {log.read_text()[-2000:]}")


def _settled(address: str) -> Store:
    def client(service: str, key: tuple[str, str]) -> Any:
        return boto3.client(
            service,
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id=key[0],
            aws_secret_access_key=key[1],
        )

    first = ("first", "first")
    client("s3", first).create_bucket(Bucket=BUCKET)
    iam = client("iam", first)
    keys = {}
    for user, actions in {**ROLES, "admin": ["s3:*"]}.items():
        iam.create_user(UserName=user)
        if actions:
            resources = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
            allowed = [{"Effect": "Allow", "Action": actions, "Resource": resources}]
            policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
            iam.put_user_policy(UserName=user, PolicyName="data", PolicyDocument=policy)
        made = iam.create_access_key(UserName=user)["AccessKey"]
        keys[user] = made["AccessKeyId"], made["SecretAccessKey"]
    return Store(address, keys, client("s3", keys["admin"]))


def key(person: Person, store: Store, role: str) -> None:
    """What docs/access.md has people do with their key: into .dvc/config.local, which git ignores."""
    name, secret = store.keys.get(role, STRANGER)
    person.remote(local=True, access_key_id=name, secret_access_key=secret)
    (person.folder / ".dvc/config.local").chmod(0o600)


@pytest.fixture(scope="module")
def owner(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """After two tables were pushed."""
    folder = tmp_path_factory.mktemp("people") / "owner"
    person = pipeline(folder, ["data.source=private"], stages=("sample", "locate"))
    person.remote(url=f"s3://{BUCKET}/data", endpointurl=store.address, region="us-east-1")
    key(person, store, "writer")
    for name in ("a", "b"):
        (person.home / f"{name}.csv").write_text(f"comment,label\nof {name},positive\n")
    person.commit("start")
    person.undertone("private", "add", "--push", *(str(person.home / f"{one}.csv") for one in "ab"))
    person.commit("data")
    return person


@pytest.fixture(scope="module")
def reader(owner: Person, store: Store) -> Person:
    """Has a clone and a key that may read."""
    person = owner.clone(owner.folder.with_name("reader"))
    key(person, store, "reader")
    return person


def test_who_may_write_pushes_and_who_may_read_pulls_the_same_bytes(
    reader: Person, store: Store
) -> None:
    assert len(store.objects()) == 3
    reader.dvc("pull", "-q", "data/raw/private.dvc")
    for name in "ab":
        assert (reader.folder / f"data/raw/private/{name}.csv").read_text().startswith("comment,label\n")
    assert reader.git("status", "--porcelain") == ""  # the key isn't there for git


def test_who_may_only_read_changes_nothing(reader: Person, store: Store) -> None:
    before = store.objects()
    reader.dvc("pull", "-q", "data/raw/private.dvc")
    (reader.home / "c.csv").write_text("comment,label\nof c,positive\n")
    done = reader.undertone("private", "add", "--push", str(reader.home / "c.csv"), check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("undertone: dvc push: ")
    assert store.objects() == before


@pytest.mark.parametrize(
    ("role", "wanted"),
    [
        ("writer", ("ok     read: yes", "ok     write: yes")),
        ("reader", ("ok     read: yes", "ok     write: no, you may only read")),
        ("nobody", ("fails  read: this key has no right to it",)),
        ("stranger", ("fails  read: the server doesn't know this key",)),
        (None, ("fails  read: no key is set → dvc remote modify --local private access_key_id",)),
    ],
)
def test_the_doctor_tells_the_rights_and_who_has_none_gets_no_byte(
    role: str | None, wanted: tuple[str, ...], owner: Person, store: Store
) -> None:
    before = store.objects()
    person = owner.clone(owner.folder.with_name(f"asks-{role}"))
    if role:
        key(person, store, role)
    done = person.undertone("access", check=False)
    for line in wanted:
        assert line in done.stdout, done.stdout + done.stderr
    assert (done.returncode == 0) == ("fails" not in done.stdout)
    assert store.keys.get(role or "", STRANGER)[1] not in done.stdout + done.stderr
    if done.returncode:
        assert person.dvc("pull", "data/raw/private.dvc", check=False).returncode != 0
        assert not person.cache()
    assert store.objects() == before
    assert store.uploads() == []


def test_a_damaged_object_is_found_and_stays(owner: Person, store: Store) -> None:
    (name,) = [name for name in store.objects() if not name.endswith(".dir")][:1]
    whole = store.admin.get_object(Bucket=BUCKET, Key=name)["Body"].read()
    store.admin.put_object(Bucket=BUCKET, Key=name, Body=whole[:-1])
    person = owner.clone(owner.folder.with_name("damaged"))
    key(person, store, "writer")
    assert person.dvc("pull", "data/raw/private.dvc", check=False).returncode != 0
    done = person.undertone("verify", "--remote", check=False)
    assert done.returncode == 1
    assert f"remote: {''.join(Path(name).parts[-2:])}: " in done.stdout
    assert "remote: 3 checked, 1 do not hold their bytes" in done.stdout
    assert name in store.objects()
    store.admin.put_object(Bucket=BUCKET, Key=name, Body=whole)
    assert person.undertone("verify", "--remote").returncode == 0
