"""A stand-in for Google Cloud Storage, as a program: the part of its XML API that a team store asks for.

    python -m tests.support.gcs FOLDER [--page 5] [--ignore-preconditions]

It prints its port, listens on the loopback, and ends with whoever started it. Google has no emulator, and those of
others lack what matters here: fake-gcs-server 1.54 answers 404 to list-type=2, and gcp-storage-emulator knows no
precondition. So this says what the documentation says (https://cloud.google.com/storage/docs/xml-api/…):

- put-object-upload, reference-headers: `x-goog-if-generation-match`, 0 for a name that is not taken; 412 else.
- get-object-download: `Range: bytes=a-b`, 206 and 416; get-bucket-list: `list-type=2`, prefix, start-after,
  max-keys, continuation tokens; delete-object: 204, and 404 where there is none.
- post-object-multipart, put-object-multipart, post-object-complete, delete-multipart: parts of at least 5 MiB but for
  the last, 10 000 at most, taken in the order of their numbers; completing knows no precondition.
- reference-status: the codes of errors, AuthenticationRequired (401), AccessDenied (403), NoSuchBucket and so on.

Tokens (`Authorization: Bearer …`) are `writer-token` and `reader-token`. A bucket is a folder of FOLDER, an object is a
file below it, so a name cannot be another one's folder, which Google allows.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

TOKENS = {"writer-token": "GET HEAD PUT POST DELETE", "reader-token": "GET HEAD"}
LEAST_PART, MOST_PARTS = 5 << 20, 10_000
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"  # Google's answers name it, too
MESSAGES = {
    "AuthenticationRequired": (401, "Authentication required."),
    "AccessDenied": (403, "Access denied."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchUpload": (404, "The requested upload was not found."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold."),
    "InvalidRange": (416, "The requested range cannot be satisfied."),
    "InvalidArgument": (400, "Invalid argument."),
    "InvalidPart": (400, "One or more of the specified parts could not be found."),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum object size."),
    "NotImplemented": (501, "A header or query you provided requested a function that is not implemented."),
}


class Refused(Exception):
    """An error of the API, by its code."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, page: int, *, honest: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.page, self.honest = folder, page, honest
        self.turn = threading.Lock()  # a condition and the change that it allows are one step
        self.uploads = folder / ".uploads"
        self.uploads.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def placed(self, path: Path, condition: str | None) -> Iterator[Path]:
        """A file to be written, which then has the name `path` if the condition holds."""
        temporary = self.uploads / secrets.token_hex(8)
        try:
            yield temporary
            with self.turn:
                there = generation(path.stat()) if path.is_file() else 0
                if self.honest and condition is not None and int(condition) != there:
                    raise Refused("PreconditionFailed")
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        bucket, _, name = unquote(parts.path).lstrip("/").partition("/")
        try:
            self._check(bucket, name)
            self._ask(bucket, name, body)
        except Refused as refusal:
            status, message = MESSAGES[str(refusal)]
            self._say(status, xml("Error", f"<Code>{refusal}</Code><Message>{message}</Message>"))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _check(self, bucket: str, name: str) -> None:
        allowed = TOKENS.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))
        if allowed is None:
            raise Refused("AuthenticationRequired")
        if not bucket or bucket.startswith(".") or ".." in name.split("/"):
            raise Refused("InvalidArgument")
        if not (self.server.folder / bucket).is_dir():
            raise Refused("NoSuchBucket")
        if self.command not in allowed.split():
            raise Refused("AccessDenied")

    def _ask(self, bucket: str, name: str, body: bytes) -> None:
        path = self.server.folder / bucket / name
        if not name and self.command == "GET" and self.query.get("list-type") == "2":
            self._list(path)
        elif "uploads" in self.query and self.command == "POST":
            identity = secrets.token_hex(8)
            (self.server.uploads / f"{identity}.parts").mkdir()
            said = f"<Bucket>{bucket}</Bucket><Key>{escape(name)}</Key><UploadId>{identity}</UploadId>"
            self._say(200, xml("InitiateMultipartUploadResult", said))
        elif "uploadId" in self.query:
            self._ask_upload(path, self.server.uploads / f"{self.query['uploadId']}.parts", body)
        elif self.query or not name:
            raise Refused("NotImplemented")
        else:
            self._ask_object(path, body)

    def _ask_object(self, path: Path, body: bytes) -> None:
        match self.command:
            case "GET" | "HEAD":
                self._get(path)
            case "PUT":
                with self.server.placed(path, self.headers.get("x-goog-if-generation-match")) as file:
                    file.write_bytes(body)
                    made = file.stat()
                self._say(200, made=made)
            case "DELETE":
                with self.server.turn:
                    if not path.is_file():
                        raise Refused("NoSuchKey")
                    path.unlink()
                self._say(204)
            case _:
                raise Refused("NotImplemented")

    def _ask_upload(self, path: Path, parts: Path, body: bytes) -> None:
        if not parts.is_dir():
            raise Refused("NoSuchUpload")
        match self.command:
            case "PUT":
                if not 1 <= int(self.query["partNumber"]) <= MOST_PARTS:
                    raise Refused("InvalidArgument")
                (parts / self.query["partNumber"]).write_bytes(body)
                self._say(200, headers={"ETag": md5(body)})
            case "POST":
                self._complete(path, parts, body)
            case "DELETE":
                shutil.rmtree(parts)
                self._say(204)
            case _:
                raise Refused("NotImplemented")

    def _get(self, path: Path) -> None:
        if not path.is_file():
            raise Refused("NoSuchKey")
        with path.open("rb") as file:
            made = os.fstat(file.fileno())
            size = made.st_size
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if wanted is None:
                self._say(200, file.read(), made=made)
                return
            start, end = int(wanted[1]), min(int(wanted[2] or size), size - 1)
            if start > end:
                raise Refused("InvalidRange")
            file.seek(start)
            said = {"Content-Range": f"bytes {start}-{end}/{size}"}
            self._say(206, file.read(end - start + 1), said, made=made)

    def _list(self, bucket: Path) -> None:
        prefix = self.query.get("prefix", "")
        after = self.query.get("start-after", "")
        if "continuation-token" in self.query:
            after = base64.urlsafe_b64decode(self.query["continuation-token"]).decode()
        if self.query.get("delimiter"):
            raise Refused("NotImplemented")
        with self.server.turn:  # as it was at one moment
            found = {str(each.relative_to(bucket)): each.stat() for each in bucket.rglob("*") if each.is_file()}
        names = sorted(name for name in found if name.startswith(prefix) and name > after)
        page = names[: min(int(self.query.get("max-keys", 1000)), self.server.page)]
        more = len(names) > len(page)
        said = f"<Name>{bucket.name}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount>"
        said += f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        if more:
            token = base64.urlsafe_b64encode(page[-1].encode()).decode()
            said += f"<NextContinuationToken>{token}</NextContinuationToken>"
        for name in page:
            made = found[name]
            modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(made.st_mtime))
            said += f"<Contents><Key>{escape(name)}</Key><Generation>{generation(made)}</Generation>"
            said += f"<LastModified>{modified}</LastModified><ETag>{tag(made)}</ETag>"
            said += f"<Size>{made.st_size}</Size></Contents>"
        self._say(200, xml("ListBucketResult", said))

    def _complete(self, path: Path, parts: Path, body: bytes) -> None:
        wanted = [
            (int(text(part, "PartNumber")), text(part, "ETag"))
            for part in ElementTree.fromstring(body)  # noqa: S314  # the client under test wrote it
        ]
        if [number for number, _ in wanted] != sorted({number for number, _ in wanted}):
            raise Refused("InvalidPartOrder")
        files = [parts / str(number) for number, _ in wanted]
        if not files or not all(file.is_file() for file in files):
            raise Refused("InvalidPart")
        if any(file.stat().st_size < LEAST_PART for file in files[:-1]):
            raise Refused("EntityTooSmall")
        with self.server.placed(path, None) as whole:
            with whole.open("wb") as out:
                for file, (_, said) in zip(files, wanted, strict=True):
                    data = file.read_bytes()
                    if said.strip('"') != md5(data).strip('"'):
                        raise Refused("InvalidPart")
                    out.write(data)
            made = whole.stat()
        shutil.rmtree(parts)
        self._say(200, xml("CompleteMultipartUploadResult", f"<ETag>{tag(made)}</ETag>"), made=made)

    def _say(
        self,
        status: int,
        data: bytes = b"",
        headers: dict[str, str] | None = None,
        made: os.stat_result | None = None,
    ) -> None:
        self.send_response(status)
        if made is not None:
            self.send_header("x-goog-generation", str(generation(made)))
            self.send_header("Last-Modified", formatdate(made.st_mtime, usegmt=True))
            self.send_header("ETag", tag(made))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def generation(made: os.stat_result) -> int:
    """Microseconds of its making, as Google has them."""
    return made.st_mtime_ns // 1000


def tag(made: os.stat_result) -> str:
    """Opaque, as that of an object in parts."""
    return f'"{generation(made):x}"'


def md5(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def text(part: ElementTree.Element, name: str) -> str:
    found = next((each.text for each in part if each.tag.rpartition("}")[2] == name), None)
    if not found:
        raise Refused("InvalidArgument")
    return found


def xml(name: str, inner: str) -> bytes:
    namespace = "" if name == "Error" else f" xmlns='{NAMESPACE}'"
    return f"<?xml version='1.0' encoding='UTF-8'?><{name}{namespace}>{inner}</{name}>".encode()


class Gcs:
    """The program above as a process, with one bucket and the folder that it is in."""

    def __init__(self, folder: Path, bucket: str, *options: str) -> None:
        self.bucket = folder / bucket
        self._words = [sys.executable, "-m", "tests.support.gcs", str(folder), *options]
        self._port = 0

    def __enter__(self) -> Gcs:
        self.bucket.mkdir(parents=True)
        self._process = subprocess.Popen(
            self._words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def credentials(self, user: str) -> dict[str, str]:
        """The environment of who is `user` here; of "nobody" the token is none of its."""
        token = "hunter2-hunter2" if user == "nobody" else f"{user}-token"
        return {"GOOGLE_BASE_URL": f"http://127.0.0.1:{self._port}", "GOOGLE_BEARER_TOKEN": token}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--page", type=int, default=1000)
    parser.add_argument("--ignore-preconditions", action="store_true")
    args = parser.parse_args()
    server = Server(args.folder, args.page, honest=not args.ignore_preconditions)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # ends where whoever started it does


if __name__ == "__main__":
    main()
