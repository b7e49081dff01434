"""A Hub that lies: a mirror (HF_ENDPOINT), or whoever is on the way to it. Nothing that it says is a path."""

from __future__ import annotations

import gzip
import json
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.sources.conftest import Client
from tests.sources.hub.test_hub import REPO, SOURCE, TOKEN, assert_refused
from tests.sources.samples import checkpoint, gguf, safetensors, sharded
from tests.support.minihub import Answer, MiniHub
from trtbuild.sources.hub import listing as hub_listing
from trtbuild.sources.hub.errors import explain
from trtbuild.sources.hub.location import Location

Change = Callable[[Answer], Answer]
QUICK = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}


def everything(folder: Path) -> dict[str, bytes | None]:
    """All that lies there, links aside."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def outside(client: Client) -> dict[str, bytes | None]:
    """What lies around the cache of the Hub's client."""
    return {
        name: found for name, found in everything(client.home).items() if name.partition("/")[0] not in ("hf", "keep")
    }


def of_file(name: str, method: str, **headers: str | None) -> Change:
    """Other headers in the answers to `method` for one file; None takes one away."""

    def change(answer: Answer) -> Answer:
        if not (answer.path.endswith(f"/{name}") and answer.method == method):
            return answer
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        kept = {key: value for key, value in answer.headers.items() if key not in named}
        return replace(answer, headers=kept | {key: value for key, value in named.items() if value is not None})

    return change


def of_listing(change: Callable[[Any], Any]) -> Change:
    """Another list of files, or other bytes in its place."""

    def twist(answer: Answer) -> Answer:
        if not answer.path.startswith("/api/"):
            return answer
        changed = change(json.loads(answer.body))
        body = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        return replace(answer, body=body, headers={**answer.headers, "Content-Length": str(len(body))})

    return twist


def siblings(*more: dict[str, Any], **changes: Any) -> Callable[[Any], Any]:
    """A list with more files, and with other facts of the first."""
    return lambda listing: {
        **listing,
        "siblings": [listing["siblings"][0] | changes, *listing["siblings"][1:], *more],
    }


@pytest.mark.parametrize(
    ("name", "header", "tag"),
    [
        ("tokenizer.json", "ETag", '"../../../../../precious"'),
        ("tokenizer.json", "X_Linked_Etag", "../x"),
        ("model.safetensors", "X_Linked_Etag", '"/etc/passwd"'),
        ("model.safetensors", "X_Linked_Etag", f'W/"{"a" * 40}"'),
    ],
)
def test_an_etag_is_the_published_digest(hub: MiniHub, client: Client, name: str, header: str, tag: str) -> None:
    hub.add(REPO, checkpoint())
    (client.home / "precious").write_bytes(b"mine")
    before = outside(client)
    hub.twist = of_file(name, "HEAD", **{header: tag})
    assert_refused(client.fetch(SOURCE), "ETag", "is published", "HF_ENDPOINT")
    assert outside(client) == before
    assert all(path.read_bytes() in checkpoint().values() for path in client.cached)


def test_an_etag_that_lies_the_second_time_alone(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, checkpoint())
    asked = 0

    def twist(answer: Answer) -> Answer:
        nonlocal asked
        if answer.method != "HEAD" or not answer.path.endswith("tokenizer.json"):
            return answer
        asked += 1
        wrong = {**answer.headers, "ETag": '"../../../../precious"'}
        return answer if asked == 1 else replace(answer, headers=wrong)

    hub.twist = twist
    hub.repositories[REPO].corrupt["tokenizer.json"] = 1  # so that it is asked for twice
    assert_refused(client.fetch(SOURCE), "ETag")
    assert asked == 2
    assert not list(client.home.rglob("precious*"))


@pytest.mark.parametrize("status", [200, 404])
def test_a_commit_in_a_header_is_the_one_that_was_asked_for(hub: MiniHub, client: Client, status: int) -> None:
    hub.add(REPO, checkpoint())
    wrong = of_file("tokenizer.json", "HEAD", X_Repo_Commit="../../../../evil", X_Error_Code="EntryNotFound")
    hub.twist = lambda answer: replace(wrong(answer), status=status) if wrong(answer) != answer else answer
    assert_refused(client.look(SOURCE), "commit ../../../../evil")
    assert not list(client.home.rglob("evil*"))


def test_discarding_stays_in_the_cache(hub: MiniHub, client: Client) -> None:
    """A link that leads out of the cache is taken away and what it leads to is not."""
    hub.add(REPO, checkpoint())
    path = Path(client.fetch(SOURCE)["paths"]["tokenizer.json"])
    precious = client.home / "precious.txt"
    precious.write_bytes(b"my thesis")
    path.unlink()
    path.symlink_to(precious)
    seen = client.fetch(SOURCE)
    assert Path(seen["paths"]["tokenizer.json"]).read_bytes() == checkpoint()["tokenizer.json"]
    assert precious.read_bytes() == b"my thesis"
    # A whole folder of it that is elsewhere: nothing there is the cache's to delete.
    elsewhere = shutil.copytree(path.parent, client.home / "elsewhere")
    shutil.rmtree(path.parent)
    path.parent.symlink_to(elsewhere)
    (elsewhere / "tokenizer.json").write_bytes(b"my notes")
    assert_refused(client.fetch(SOURCE), "left alone", "tokenizer.json")
    assert (elsewhere / "tokenizer.json").read_bytes() == b"my notes"


LISTINGS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "more names than a repository has": (
        siblings(*({"rfilename": f"f{i}.txt", "size": 2, "blobId": "a" * 40} for i in range(300_000))),
        "300005 files",
    ),
    "nested": (lambda _: b"[" * 200_000, "nested"),
    "endless": (lambda _: b" " * (70 << 20), "goes on behind byte"),
    "html": (lambda _: b"<html>", "did not answer"),
    "a list": (lambda _: [1], "did not answer"),
    "no files": (lambda listing: {**listing, "siblings": None}, "did not answer"),
    "another's files": (siblings({"name": "x"}), "did not answer"),
    "no objects": (lambda listing: {**listing, "siblings": [1, None, "x"]}, "did not answer"),
    "a commit that is a path": (lambda listing: {**listing, "sha": "../../../x"}, "commit is ../../../x"),
    "a commit that is a number": (lambda listing: {**listing, "sha": 7}, "did not answer"),
    "a size of 400 digits": (siblings(size=10**400), "a number of 401 digits"),
    "a size below 0": (siblings(size=-1), "the size -1"),
    "a size beyond numbers": (siblings(size=2**53), "the size 9007199254740992"),
    "a size that is a fraction": (siblings(size=1.5), "the size 1.5"),
    "a size that is a flag": (siblings(size=True), "the size True"),
    "no size": (siblings(size=None), "the size NoneType"),
    "infinitely large": (
        lambda listing: json.dumps(siblings(size=0)(listing)).replace(": 0", ": 1e999", 1).encode(),
        "out of range",
    ),
    "large storage without a digest": (siblings(lfs={"size": 4}), "did not answer"),
    "a digest that is a path": (
        siblings(lfs={"sha256": "../../etc/passwd", "size": 4}),
        "the digest '../../etc/passwd'",
    ),
    "a digest in capitals": (siblings(lfs={"sha256": "A" * 64, "size": 4}), "the digest"),
    "a digest that is a list": (siblings(lfs={"sha256": [], "size": 4}), "the digest list"),
    "a blob that is a path": (siblings(blobId="../x"), "the digest '../x'"),
    "a name that leads out": (siblings(rfilename="../../x.json"), "'../../x.json'"),
    "a name that leads out further down": (siblings(rfilename="a/../../x.json"), "'a/../../x.json'"),
    "an absolute name": (siblings(rfilename="/etc/x.json"), "'/etc/x.json'"),
    "a name of Windows": (siblings(rfilename="a\\..\\x"), "the name"),
    "a name with a control character": (siblings(rfilename="a\x1b[2Jb"), "the name"),
    "a name with half a character": (siblings(rfilename="a\ud800"), "half of a surrogate pair"),
    "no name": (siblings(rfilename=""), "the name ''"),
    "a name of one dot": (siblings(rfilename="a/./b"), "the name"),
    "a name that is a number": (siblings(rfilename=3), "the name 3"),
    "a name that is too long": (siblings(rfilename="x" * 300), "the name 'xxx"),
    "a name twice": (
        siblings({"rfilename": "config.json", "size": 2, "blobId": "a" * 40}),
        "'config.json' twice",
    ),
    "a file that is a folder": (
        siblings({"rfilename": "config.json/x", "size": 2, "blobId": "a" * 40}),
        "'config.json' is a file and a folder",
    ),
    "names that differ in capitals": (
        siblings({"rfilename": "Config.json", "size": 2, "blobId": "a" * 40}),
        "Config.json, config.json",
    ),
    "a config as large as weights": (
        lambda listing: {
            **listing,
            "siblings": [
                each | ({"size": 1 << 40} if each["rfilename"] == "config.json" else {}) for each in listing["siblings"]
            ],
        },
        f"config.json of {REPO} has {1 << 40} bytes",
    ),
}


IN_USE = [
    *list(LISTINGS)[:4],
    "a size of 400 digits",
    "a name that leads out",
    "a commit that is a path",
    *list(LISTINGS)[-2:],
]


@pytest.mark.parametrize("listing", IN_USE)
def test_a_list_of_files_that_no_hub_sends_is_one_error(hub: MiniHub, client: Client, listing: str) -> None:
    hub.add(REPO, checkpoint())
    change, words = LISTINGS[listing]
    hub.twist = of_listing(change)
    begun = time.monotonic()
    assert_refused(client.look(SOURCE), words, REPO)
    assert time.monotonic() - begun < 60, "it took minutes"
    assert outside(client) == {}
    assert client.cached == []
    # And nothing of it is remembered.
    hub.twist = lambda answer: answer
    assert client.look(SOURCE)["config"]


@pytest.mark.parametrize("listing", [name for name in list(LISTINGS)[:-2] if name != "endless"])
def test_what_is_wrong_with_a_list_of_files_is_said(listing: str) -> None:
    change, words = LISTINGS[listing]
    rows = [{"rfilename": name, "size": len(data), "blobId": "b" * 40} for name, data in sorted(checkpoint().items())]
    changed = change({"sha": "c" * 40, "siblings": rows})
    location = Location(REPO, None, None)
    with pytest.raises(ValueError) as caught:  # of which `explain` makes the user's error
        hub_listing.parsed(location, changed if isinstance(changed, bytes) else json.dumps(changed).encode())
    assert words in explain(caught.value, location, "model.source", None).message


def test_weights_that_fit_on_no_disk_are_not_asked_for(hub: MiniHub, client: Client) -> None:
    hub.lfs_from = 1 << 30  # in git itself: a plan downloads them, to hash them
    hub.add(REPO, checkpoint())

    def change(listing: Any) -> Any:
        rows = [
            row | ({"size": 2**52} if row["rfilename"].endswith(".safetensors") else {}) for row in listing["siblings"]
        ]
        return {**listing, "siblings": rows}

    hub.twist = of_listing(change)
    assert_refused(client.look(SOURCE), f"needs {str(2**52)[:10]}", "HF_HOME")
    assert hub.sent(".safetensors") == 0


def endless(answer: Answer) -> Answer:
    """The body over and over, and no word of its length."""
    headers = {name: value for name, value in answer.headers.items() if name != "Content-Length"}
    return replace(answer, headers=headers, body=b"x" * (1 << 20), times=4096)


def packed(answer: Answer) -> Answer:
    """A few bytes that unpack to many."""
    body = gzip.compress(bytes(64 << 20))
    return replace(
        answer,
        body=body,
        headers={**answer.headers, "Content-Encoding": "gzip", "Content-Length": str(len(body))},
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (endless, "goes on behind byte"),
        (packed, "Content-Encoding: gzip"),
        (
            lambda answer: replace(answer, headers={**answer.headers, "Content-Encoding": "br, gzip"}),
            "Content-Encoding",
        ),
    ],
    ids=["endless", "packed", "twice packed"],
)
@pytest.mark.parametrize("what", ["/api/models/org/name", "tokenizer.json", "model.safetensors"])
def test_an_answer_has_an_end(hub: MiniHub, client: Client, what: str, change: Change, words: str) -> None:
    hub.add(REPO, checkpoint())
    hub.twist = lambda answer: change(answer) if what in answer.path and answer.method == "GET" else answer
    begun = time.monotonic()
    answer = client.fetch(SOURCE)
    assert_refused(answer, REPO, words)
    assert time.monotonic() - begun < 60
    assert sum(path.stat().st_size for path in client.home.rglob("*") if path.is_file()) < 2 << 20


def test_a_size_in_a_header_is_the_published_one(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, checkpoint())
    hub.twist = of_file("model.safetensors", "HEAD", X_Linked_Size=str(2**40))
    assert_refused(client.fetch(SOURCE), f"{2**40} bytes, and", "are published")


RANGES: dict[str, tuple[Change, str]] = {
    "another range": (
        lambda answer: replace(answer, headers={**answer.headers, "Content-Range": "bytes 5-9/70000"}),
        "sends the range bytes 5-9/70000",
    ),
    "a file of another size": (
        lambda answer: replace(answer, headers={**answer.headers, "Content-Range": f"bytes 0-65535/{10**15}"}),
        "sends the range",
    ),
    "no range": (
        lambda answer: replace(answer, headers={**answer.headers, "Content-Range": "items *"}),
        "sends the range items *",
    ),
    "a number without end": (
        lambda answer: replace(answer, headers={**answer.headers, "Content-Range": f"bytes 0-1/{'9' * 5000}"}),
        "sends the range",
    ),
    "less": (
        lambda answer: replace(answer, body=answer.body[:20], headers={**answer.headers, "Content-Length": "20"}),
        "only 20 of its",
    ),
    "packed": (packed, "Content-Encoding: gzip"),
    "the whole of another file": (
        lambda answer: replace(answer, status=200, body=b"GGUF", headers={**answer.headers, "Content-Length": "4"}),
        "a file has 4 bytes",
    ),
}


@pytest.mark.parametrize("lie", RANGES)
def test_what_comes_for_a_range_is_that_range(hub: MiniHub, client: Client, lie: str) -> None:
    hub.add(REPO, {"m.gguf": gguf(padding=70_000)})
    change, words = RANGES[lie]
    hub.twist = lambda answer: change(answer) if answer.path.endswith(".gguf") else answer
    assert_refused(client.look(SOURCE), words)


def test_more_than_the_range_is_not_read(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, {"m.gguf": gguf(padding=70_000)})
    hub.twist = lambda answer: replace(endless(answer), body=answer.body) if answer.path.endswith(".gguf") else answer
    assert client.look(SOURCE)["architecture"] == "llama"


@pytest.mark.parametrize("files", [checkpoint(), {"m.gguf": gguf()}], ids=["safetensors", "gguf"])
def test_a_plan_was_told_of_the_weights_that_come(hub: MiniHub, client: Client, files: dict[str, bytes]) -> None:
    """A header that a plan reads is a stranger's until the file is here: then it is compared."""
    commit = hub.add(REPO, files)
    lie = gguf(architecture="phi3") if "m.gguf" in files else safetensors("a", "c")
    name = next(name for name in files if name.endswith((".gguf", ".safetensors")))
    cut = lie[: len(files[name])].ljust(len(files[name]), b"\0")
    hub.twist = lambda answer: (
        replace(answer, body=cut[:65536], headers={**answer.headers, "Content-Length": str(len(cut[:65536]))})
        if answer.status == 206 and answer.path.endswith(name)
        else answer
    )
    args = ["--headers", "--fetch", str(client.home / "keep")]
    assert_refused(client.look(SOURCE, *args), "begins otherwise", "run the command again")
    hub.twist = lambda answer: answer
    assert client.look(f"{SOURCE}@{commit}", *args)["headers"]


def test_each_endpoint_is_remembered_apart(hub: MiniHub, client: Client) -> None:
    """What a mirror said of a commit is not what the Hub says of it."""
    commit = hub.add(REPO, checkpoint())
    honest = client.look(f"{SOURCE}@{commit}")
    with MiniHub() as mirror:
        mirror.add(REPO, checkpoint())
        mirror.repositories[REPO].commits[commit] = checkpoint(**{"tokenizer.json": b"{}"})
        lied = Client(client.home, mirror.url).look(f"{SOURCE}@{commit}")
    assert lied["identity"] != honest["identity"]
    assert client.look(f"{SOURCE}@{commit}")["files"] == honest["files"]


@pytest.mark.parametrize("what", ["/api/models", "tokenizer.json", "model.safetensors", "m.gguf"])
def test_a_token_goes_to_the_hub_alone(hub: MiniHub, client: Client, what: str) -> None:
    """Also where it sends its client to another host or port, by whatever it sends it there."""
    commit = hub.add(REPO, {"m.gguf": gguf()} if what == "m.gguf" else sharded(1) | checkpoint())
    hub.tokens = {TOKEN}
    with MiniHub() as other:
        other.repositories, other.tokens = hub.repositories, {TOKEN}

        def twist(answer: Answer) -> Answer:
            if what not in answer.path:
                return answer
            place = {"Location": f"{other.url}{answer.path}", "Content-Length": "0"}
            kept = {"X-Repo-Commit": commit} if "resolve" in answer.path else {}
            kept |= {name: value for name, value in answer.headers.items() if name.startswith(("ETag", "X-Linked"))}
            route = {"X-Xet-Hash": "a" * 64, "X-Xet-Refresh-Route": f"{other.url}/xet-read-token"}
            return replace(answer, status=307, headers=kept | place | route, body=b"")

        hub.twist = twist
        assert client.fetch(SOURCE, HF_TOKEN=TOKEN)["paths"]
        assert other.log
        assert not any(one.token for one in other.log)
        assert any(one.token for one in hub.log)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate")
@pytest.mark.parametrize("what", ["/api/models", "tokenizer.json"])
def test_https_leads_nowhere_without_it(client: Client, tmp_path: Path, what: str) -> None:
    """A plain answer could be anybody's: the list of files, too, which all else is compared with."""
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "9", "-subj", "/CN=hub", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with MiniHub(tls=context) as hub, MiniHub() as plain:
        hub.add(REPO, checkpoint())
        plain.repositories, plain.tokens, hub.tokens = hub.repositories, {TOKEN}, {TOKEN}
        secure = Client(client.home, hub.url)
        env = {"SSL_CERT_FILE": certificate, "HF_TOKEN": TOKEN}
        assert secure.look(SOURCE, **env)["config"]
        shutil.rmtree(client.home / "hf")
        hub.twist = lambda answer: (
            replace(answer, status=302, headers={**answer.headers, "Location": f"{plain.url}{answer.path}"})
            if what in answer.path
            else answer
        )
        assert_refused(secure.fetch(SOURCE, **env), "leads from https to http://127.0.0.1")
        assert plain.log == []


@pytest.mark.parametrize("what", ["/api/models", "tokenizer.json", "model.safetensors"])
def test_a_byte_now_and_then_holds_nobody(hub: MiniHub, client: Client, what: str) -> None:
    hub.add(REPO, checkpoint())
    hub.drip = lambda answer: what in answer.path
    begun = time.monotonic()
    assert_refused(client.fetch(SOURCE, **QUICK), "answers too slowly", "HF_HUB_DOWNLOAD_TIMEOUT")
    assert time.monotonic() - begun < 60


def test_a_hub_that_asks_to_wait_for_years_is_not_waited_for(hub: MiniHub, client: Client) -> None:
    hub.add(REPO, checkpoint())
    later = {"Retry-After": "999999999999"}
    hub.twist = lambda answer: (
        replace(answer, status=429, headers={**answer.headers, **later}) if "resolve" in answer.path else answer
    )
    begun = time.monotonic()
    assert_refused(client.fetch(SOURCE, **QUICK), REPO)
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("what", ["/api/models", "tokenizer.json"])
def test_a_redirect_without_a_place_is_one_error(hub: MiniHub, client: Client, what: str) -> None:
    hub.add(REPO, checkpoint())
    hub.twist = lambda answer: replace(answer, status=302) if what in answer.path else answer
    assert_refused(client.fetch(SOURCE), "without saying where")


@pytest.mark.parametrize(
    "location", ["http://[", "http://\0", "file:///etc/passwd", "//", "http://a:b:c/", "x" * 70_000]
)
def test_a_redirect_to_nowhere_is_one_error(hub: MiniHub, client: Client, location: str) -> None:
    hub.add(REPO, checkpoint())
    hub.twist = lambda answer: (
        replace(answer, status=302, headers={**answer.headers, "Location": location})
        if answer.path.endswith("tokenizer.json")
        else answer
    )
    assert client.fetch(SOURCE, **QUICK)["error"] == "InputError"
