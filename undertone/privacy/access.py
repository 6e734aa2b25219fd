"""What stands between this machine and the data: one line a check, with what to do about it.

Nothing is changed, here or there, and no password or key is ever printed.
"""

import asyncio
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from secrets import token_hex
from shlex import split
from typing import Any

from undertone import files
from undertone.errors import Problem, first_line, without_password
from undertone.params import Params, read_params
from undertone.privacy import kinds

_TIMEOUT = 15.0  # seconds for one connection
_PLACEHOLDER = re.compile(r"(^|\.)example\.(com|net|org)$")  # hosts that nobody has (RFC 2606)
_SAMPLE = 2000  # objects of a directory whose modes are looked at


@dataclass(frozen=True)
class Check:
    """`remedy` is empty where all is well."""

    name: str
    what: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return not self.remedy

    def __str__(self) -> str:
        if self.ok:
            return f"ok     {self.name}: {self.what}"
        return f"fails  {self.name}: {self.what} → {self.remedy}"


def examine(name: str | None = None) -> Iterator[Check]:
    """The checks of the remote called `name`, by default the default one, and of MLflow's server."""
    root = files.root()
    params = read_params(root / "params.yaml")
    yield from _remote(name, root, params.data.contact)
    yield from _server(params)


def _remote(name: str | None, root: Path, contact: str) -> Iterator[Check]:
    from dvc.exceptions import DvcException
    from dvc.fs import get_cloud_fs
    from dvc.repo import Repo

    try:
        repo = Repo(root.as_posix())
    except (DvcException, ValueError) as error:  # ValueError: not UTF-8
        yield Check("remote settings", _told(error), _CORRECT)
        return
    with repo:
        name = name or repo.config["core"].get("remote")
        settings = repo.config["remote"].get(name)
        if settings is None:
            known = ", ".join(repo.config["remote"]) or "none"
            what = f"no remote '{name}' in .dvc/config; there are: {known}" if name else "none is set"
            ask = f"Ask {contact} for its address, then `dvc remote add -d private URL`."
            yield Check("remote", what, ask)
            return
        yield Check("remote", f"'{name}' is {without_password(settings['url'])}")
        yield _verified(name, settings)
        yield _no_secrets(name, root)
        try:
            made, config, path = get_cloud_fs(repo.config, name=name)
            system = made(**config)
        except Exception as error:  # each kind of remote has its own, from urllib's to ImportError
            install = isinstance(error, ImportError)
            yield Check("remote settings", _told(error), "Install it." if install else _CORRECT)
            return
    if system.protocol == "ssh":
        try:
            checks = list(_ssh(system, name, contact))
        except ValueError as error:  # as ssh's files are read
            remedy = "Correct ~/.ssh/config or ~/.ssh/known_hosts; `ssh` itself says more."
            yield Check("ssh settings", first_line(error), remedy)
            return
        yield from checks
        accepted = any(check.name == "key accepted" and check.ok for check in checks)
        if not accepted or any(check.name == "server" and not check.ok for check in checks):
            return  # all else would fail for the same reason, half a minute later
    if system.protocol == "local":
        yield from _directory(Path(path))
    else:
        yield from _rights(system, path, name, contact)


_CORRECT = "Correct .dvc/config or .dvc/config.local."


def _told(error: Exception) -> str:
    """A ValueError may repeat what stands in the place of a port: a part of a password."""
    if not isinstance(error, ValueError):
        return first_line(error)
    return f"an address or a file that can't be read ({type(error).__name__})"


def _verified(name: str, settings: dict[str, Any]) -> Check:
    if settings.get("verify"):
        return Check("verify", "what comes from the remote is hashed before it is used")
    remedy = f"dvc remote modify {name} verify true, and commit .dvc/config"
    return Check("verify", "off: a damaged object would be taken for a good one", remedy)


def _no_secrets(name: str, root: Path) -> Check:
    """.dvc/config is committed; .dvc/config.local is not, and may hold secrets."""
    shared, local = ".dvc/config", ".dvc/config.local"
    written = root / shared
    if written.exists() and (found := kinds.secrets_in(written.read_text("utf-8", "replace"))):
        remedy = (
            f"Change it, as git keeps it; write the new one by `dvc remote modify --local {name} …`."
        )
        return Check("secrets", f"{shared}, which git tracks, holds {', '.join(found)}", remedy)
    if (root / local).exists() and stat.S_IMODE((root / local).stat().st_mode) & 0o077:
        return Check("secrets", f"others may read {local}", f"chmod 600 {local}")
    return Check("secrets", f"none in {shared}")


def _ssh(system: Any, name: str, contact: str) -> Iterator[Check]:
    """Address, keys and host key, as DVC's own ssh client sees them: it reads ~/.ssh/config."""
    from asyncssh.config import SSHClientConfig

    given = {key: value for key, value in system.fs_args.items() if key not in _NOT_ASYNCSSH}
    host = str(given.pop("host"))
    own = Path.home() / ".ssh/config"
    if own.exists():
        user, port = given.get("username", ()), given.get("port", ())
        config = SSHClientConfig.load(None, [own], False, False, False, "", user, host, port)
    else:
        config = None

    def setting(key: str, otherwise: Any) -> Any:
        return config.get(key, otherwise) if config else otherwise

    address = str(setting("Hostname", host))
    port = int(given.get("port") or setting("Port", 22))
    proxy = setting("ProxyCommand", None)
    proxy = proxy if proxy and proxy != "none" else None
    if not proxy and _PLACEHOLDER.search(address):
        command = f"dvc remote modify {name} url URL"
        remedy = f"{contact} sets the real one by `{command}`, and commits .dvc/config."
        yield Check("server", f"{address} is a placeholder, and nobody's", remedy)
        return
    if not proxy:
        try:
            with socket.create_connection((address, port), timeout=_TIMEOUT):
                pass
        except OSError as error:
            remedy = f"Check network and VPN, and the name in .dvc/config or {own}; else ask {contact}."
            yield Check("server", f"{address}:{port} doesn't answer: {first_line(error)}", remedy)
            return
        yield Check("server", f"{address}:{port} answers")
    named = given.get("client_keys") or setting("IdentityFile", None) or _default_keys()
    keys = [Path(str(key)).expanduser() for key in named]
    given |= {"port": port, "username": given.get("username") or setting("User", getuser())}
    yield from _keys(keys, bool(given.get("password")), name, contact)
    files = setting("UserKnownHostsFile", None) or ["~/.ssh/known_hosts"]
    known = [str(path) for file in files if (path := Path(file).expanduser()).exists()]
    yield from _connection(host, address, given, known, proxy, contact)
    yield _host_key_checked(host, proxy, own)


_NOT_ASYNCSSH = ("client_factory", "timeout", "max_sessions", "skip_instance_cache")


def _default_keys() -> list[str]:
    return [
        str(path)
        for kind in ("ed25519", "ecdsa", "rsa", "ed25519_sk", "ecdsa_sk")
        if (path := Path.home() / f".ssh/id_{kind}").exists()
    ]


def _keys(keys: list[Path], password: bool, name: str, contact: str) -> Iterator[Check]:
    absent = [key for key in keys if not key.exists()]
    there = [key for key in keys if key.exists()]
    if absent:
        remedy = f"Correct `keyfile` or IdentityFile: dvc remote modify --local {name} keyfile KEY"
        yield Check("key", f"{absent[0]}: no such file", remedy)
    elif not there and not password and not os.environ.get("SSH_AUTH_SOCK"):
        remedy = (
            f"Make one by `ssh-keygen -t ed25519`, send its .pub to {contact}, then"
            f" `dvc remote modify --local {name} keyfile ~/.ssh/id_ed25519`."
        )
        yield Check("key", "you have none", remedy)
    else:
        yield Check("key", ", ".join(map(str, there)) or ("a password" if password else "of an agent"))
    for key in there:
        if stat.S_IMODE(key.stat().st_mode) & 0o077:
            yield Check("key's permissions", f"others may read {key}", f"chmod 600 {key}")
        else:
            yield Check("key's permissions", f"{key} is yours alone")


def _connect(host: str, given: dict[str, Any]) -> Exception | None:
    """Why a connection as DVC makes it fails, None if it doesn't."""
    import asyncssh

    async def attempt() -> None:
        async with asyncssh.connect(host, **given):
            pass

    try:
        asyncio.run(asyncio.wait_for(attempt(), _TIMEOUT))
    except (asyncssh.Error, OSError, asyncssh.KeyImportError, TimeoutError) as error:
        return error
    return None


def _connection(
    host: str, address: str, given: dict[str, Any], known: list[str], proxy: str | None, contact: str
) -> Iterator[Check]:
    """The host's key and yours, by a connection that trusts known_hosts alone, unlike DVC's."""
    import asyncssh

    careful = {**given, "known_hosts": known or b""}
    error = _connect(host, careful)
    if proxy and error is not None:
        what = f"no connection by ProxyCommand: {first_line(error)}"
        yield Check("server", what, f"Run `ssh {host}`, which says why; see also below.")
        error = _connect(host, {**careful, "proxy_command": None})
    unknown = False
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        port = int(given.get("port") or 22)
        if known and asyncssh.match_known_hosts(known, address, address, port)[0]:
            what = f"{address} shows another key than known_hosts has: it was set up anew, or is another"
            remedy = f"Send nothing; ask {contact} for the new fingerprint before `ssh-keygen -R`."
            yield Check("host key", what, remedy)
            return
        remedy = f"Ask {contact} for its fingerprint, run `ssh {host}`, say yes if it shows the same."
        yield Check("host key", f"{address} is not in known_hosts", remedy)
        if given.get("password"):
            return  # whoever answers there would read it
        error = _connect(host, {**given, "known_hosts": None})
        unknown = True
    denied = isinstance(error, asyncssh.PermissionDenied)
    if not unknown and (error is None or denied):
        yield Check("host key", f"the one that known_hosts has for {address}")
    if denied:
        user = given.get("username") or "your user name there"
        remedy = f"Send the .pub beside your key to {contact}; check the user, which is '{user}' here."
        yield Check("key accepted", f"{address} accepts none of your keys", remedy)
    elif error is not None:
        yield Check(
            "server", f"no connection: {first_line(error)}", f"Check network and VPN; ask {contact}."
        )
    else:
        yield Check("key accepted", f"by {address}")


def _host_key_checked(host: str, proxy: str | None, own: Path) -> Check:
    """DVC's client takes any host key; a ProxyCommand has OpenSSH look at it first."""
    words = split(proxy) if proxy else []
    loose = any(word.lower().replace(" ", "") in _LOOSE for word in words)
    if words and Path(words[0]).name == "ssh" and not loose:
        return Check("host key checked", "by OpenSSH, before DVC connects")
    what = "a ProxyCommand that doesn't check it" if words else "DVC takes any host key"
    line = f"ProxyCommand ssh -o ProxyCommand=none -o BatchMode=yes -W localhost:%p {host}"
    return Check("host key checked", what, f"Write under `Host {host}` in {own}: {line}")


_LOOSE = {
    f"{dash}stricthostkeychecking={value}"
    for dash in ("", "-o")
    for value in ("no", "off", "accept-new")
}


def _rights(system: Any, path: str, name: str, contact: str) -> Iterator[Check]:
    """Reading and writing, by trying, through DVC's own file system."""
    try:
        listed = system.ls(path, detail=False)
    except FileNotFoundError:
        if system.protocol != "s3":  # which has no folders
            remedy = f"Check `url` of '{name}'; if it is new, the owner's first `dvc push` makes it."
            yield Check("read", f"{path} isn't there", remedy)
            return
        listed = []
    except Exception as error:  # of asyncssh, botocore, fsspec: each has a hierarchy of its own
        yield _refused("read", error, name, contact)
        return
    yield Check("read", "yes" if listed else "yes; nothing was pushed yet")
    try:
        _write_s3(system, path) if system.protocol == "s3" else _write(system, path)
    except Exception as error:
        if not _is_refusal(error):
            yield Check("write", first_line(error), f"Ask {contact}, if you need to push.")
            return
        yield Check("write", "no, you may only read, which is enough to run everything")
        return
    yield Check("write", "yes")


def _write(system: Any, path: str) -> None:
    trial = f"{path}/.undertone-access-{token_hex(8)}.tmp"
    with system.open(trial, "wb") as file:
        file.write(b"")
    system.remove(trial)


def _write_s3(system: Any, path: str) -> None:
    """An upload in parts that is begun and given up: no object comes to be, so none has to be deleted,
    which a role may well not allow."""
    bucket, _, prefix = path.strip("/").partition("/")
    where = {"Bucket": bucket, "Key": f"{prefix}/.undertone-access-{token_hex(8)}.tmp".lstrip("/")}
    begun = system.fs.call_s3("create_multipart_upload", **where)
    system.fs.call_s3("abort_multipart_upload", **where, UploadId=begun["UploadId"])


def _refused(right: str, error: BaseException, name: str, contact: str) -> Check:
    code = _code(error)
    if code in ("NoCredentialsError", "PartialCredentialsError"):
        remedy = f"dvc remote modify --local {name} access_key_id ID, and secret_access_key likewise"
        return Check(right, "no key is set", remedy)
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return Check(right, f"the server doesn't know this key ({code})", f"Ask {contact}.")
    if _is_refusal(error):
        return Check(right, f"this key has no right to it ({code})", f"Ask {contact}.")
    remedy = f"Check `url` and `endpointurl` of '{name}', network and VPN; else ask {contact}."
    return Check(right, first_line(error), remedy)


def _code(error: BaseException) -> str:
    """S3's word for it, which s3fs wraps into errors of Python's; or the error's own name."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict) and (code := response.get("Error", {}).get("Code")):
            return str(code)
        if type(cause).__name__.endswith("CredentialsError"):
            return type(cause).__name__
        cause = cause.__cause__
    return type(error).__name__


def _is_refusal(error: BaseException) -> bool:
    refusals = ("AccessDenied", "AllAccessDisabled", "403", "SFTPPermissionDenied")
    return isinstance(error, PermissionError) or _code(error) in refusals


def _directory(path: Path) -> Iterator[Check]:
    if not path.is_dir():
        yield Check("read", f"{path} isn't there", "Mount it, or correct `url` in .dvc/config.local.")
        return
    if not os.access(path, os.R_OK | os.X_OK):
        yield Check("read", f"{path} is closed to you", f"Ask for the group of {path}.")
        return
    yield Check("read", "yes")
    if not os.access(path, os.W_OK):
        yield Check("write", "no, you may only read, which is enough to run everything")
        return
    yield Check("write", "yes")
    # DVC hashes objects of any other mode, and deletes from a directory those that are damaged
    loose = 0
    for seen, file in enumerate(path.glob("files/md5/??/*")):
        loose += stat.S_IMODE(file.stat().st_mode) != 0o444 and not file.name.endswith(".tmp")
        if seen > _SAMPLE:
            break
    if loose:
        what = f"{loose} objects are not read-only, so that DVC deletes them where they are damaged"
        yield Check("objects' mode", what, f"find {path}/files -type f -exec chmod 444 {{}} +")
    else:
        yield Check("objects' mode", "read-only")


def _server(params: Params) -> Iterator[Check]:
    """MLflow's server, the experiment and the registry's model of this codebook."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address.startswith(("http://", "https://")):
        yield Check("MLflow", "runs go to a file of this machine, no server is set")
        return
    from mlflow.exceptions import MlflowException

    from undertone.records import tracking

    shown = without_password(address).partition("://")[2].rstrip("/")
    model, contact = params.data.codebook, params.data.contact
    try:
        client = tracking.client()
    except Problem:
        yield Check("MLflow", f"{shown} doesn't answer", f"Check network and VPN; else ask {contact}.")
        return
    questions: dict[str, Callable[[], object]] = {
        "MLflow": lambda: client.search_experiments(max_results=1),
        "MLflow experiment": lambda: client.get_experiment_by_name(model),
        "MLflow registry": lambda: client.get_registered_model(model),
    }
    for name, ask in questions.items():
        try:
            answer = ask()
        except MlflowException as error:
            yield _of_server(name, error, shown, model, contact)
            if name == "MLflow":
                return
        else:
            told = f"{shown} answers" if name == "MLflow" else f"'{model}' can be read"
            yield Check(name, told if answer is not None else f"no '{model}' yet")


def _of_server(name: str, error: Any, shown: str, model: str, contact: str) -> Check:
    status = error.get_http_status_code()
    told = f"{error.error_code} {error}"
    if "RESOURCE_DOES_NOT_EXIST" in told or status == 404:
        return Check(name, f"no '{model}' yet")
    if "401" in told or "UNAUTHENTICATED" in told:
        remedy = f"Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; ask {contact} for them."
        return Check(name, f"{shown} doesn't know you (401)", remedy)
    if "403" in told or "PERMISSION_DENIED" in told:
        return Check(name, f"you have no right to '{model}' (403)", f"Ask {contact} for it.")
    return Check(name, f"{shown} doesn't answer", f"Check network and VPN; else ask {contact}.")
