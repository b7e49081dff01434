"""Azure's blob storage for tests: Azurite, Microsoft's own emulator, on a free port and in a folder of its own.

    with Azurite(tmp_path) as server:
        server.container("team")
        ... environment with server.credentials("writer") ...

It comes from npm (39 MB, 20 seconds, once for each package-lock.json beside this file) into a folder in ~/.cache; Node
and npm must be there. It checks signatures and what a shared access signature allows, and honours conditional writes.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import os
import re
import shutil
import signal
import subprocess
import threading
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent / "azurite"
ACCOUNT = "acme"
KEY = base64.b64encode(hashlib.sha512(b"the writer's").digest()).decode()
VERSION = "2021-08-06"  # of the protocol
PATIENCE = 60.0  # seconds


class NotInstalled(Exception):
    """Why it cannot be had."""


def install() -> Path:
    """The folder that it is installed in. Raises NotInstalled."""
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trtbuild-tests"
    there = cache / f"azurite-{hashlib.sha256(lock).hexdigest()[:16]}"
    if there.exists():
        return there
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotInstalled("node and npm are not installed: there is no Azure to ask")
    making = there.with_suffix(f".{os.getpid()}")
    shutil.rmtree(making, ignore_errors=True)
    shutil.copytree(HERE, making)
    words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--omit=optional"]
    try:
        done = subprocess.run(words, cwd=making, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        raise NotInstalled("npm took too long to bring Azurite") from None
    if done.returncode:
        raise NotInstalled(f"npm does not bring Azurite: {done.stderr[-500:]}")
    try:
        making.rename(there)
    except OSError:  # another run was first
        shutil.rmtree(making)
    return there


class Azurite:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Azurite:
        program = install() / "node_modules/azurite/dist/src/blob/main.js"
        self.folder.mkdir(parents=True, exist_ok=True)
        words = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--location", str(self.folder)]
        words += ["--skipApiVersionCheck", "--disableProductStyleUrl", "--silent"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["node", program, *words],
                env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # PyPI's node is a program that starts another
            )
        assert self._process.stdout is not None
        said, patience = "", threading.Timer(PATIENCE, self._end)
        patience.start()
        for line in self._process.stdout:  # which is all that it says
            said += line
            if found := re.search(r"listens on (http://127\.0\.0\.1:\d+)", line):
                self.url = f"{found[1]}/{ACCOUNT}"
                patience.cancel()
                return self
        patience.cancel()
        said += (self.folder / "log").read_text()[-2000:]
        self.__exit__()
        raise RuntimeError(said)

    def __exit__(self, *_: object) -> None:
        self._end()
        if self._process is not None:
            self._process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def credentials(self, user: str) -> dict[str, str]:
        """The environment of who is `user` here: the owner has the account's key, others a signature for "team"."""
        own = {
            "owner": {"AZURE_STORAGE_ACCOUNT_KEY": KEY},
            "writer": {"AZURE_STORAGE_SAS_TOKEN": self.signature("rcwdl", "team")},
            "reader": {"AZURE_STORAGE_SAS_TOKEN": self.signature("rl", "team")},
            "nobody": {"AZURE_STORAGE_ACCOUNT_KEY": base64.b64encode(b"hunter2" * 9).decode()},
        }
        return {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ENDPOINT": self.url, **own[user]}

    def signature(self, permissions: str, container: str) -> str:
        """A shared access signature for one container: a service SAS, as its documentation has it."""
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
        said = {"sp": permissions, "se": end.strftime("%Y-%m-%dT%H:%M:%SZ"), "sv": VERSION, "sr": "c"}
        resource = f"/blob/{ACCOUNT}/{container}"
        fields = [permissions, "", said["se"], resource, "", "", "", VERSION, "c", *[""] * 7]
        return urllib.parse.urlencode({**said, "sig": _signed("\n".join(fields))})

    def container(self, name: str) -> None:
        """Make one, with the account's own signature."""
        self._ask("PUT", name, query="restype=container")

    def file(self, path: str, data: bytes | None = None, *, method: str = "GET") -> bytes:
        """One object, `<container>/<name>`, past the client under test: read, changed or deleted."""
        return self._ask(method, path, data)

    def _ask(self, method: str, path: str, data: bytes | None = None, query: str = "") -> bytes:
        kind = "application/octet-stream" if data is not None else ""
        now = datetime.datetime.now(datetime.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-date": now, "x-ms-version": VERSION}
        fields = [method, "", "", str(len(data)) if data else "", "", kind, *[""] * 6]
        named = [f"{name}:{value}" for name, value in headers.items()]
        resource = f"/{ACCOUNT}/{ACCOUNT}/{path}" + ("\n" + query.replace("=", ":") if query else "")
        signature = _signed("\n".join([*fields, *named, resource]))
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
        url = f"{self.url}/{path}" + (f"?{query}" if query else "")
        request = urllib.request.Request(url, data=data, method=method, headers=headers)  # noqa: S310
        if kind:
            request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.read()


def _signed(text: str) -> str:
    return base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")).decode()
