"""Secrets stay where they belong: canaries in options and in the environment, and a look at all that was made of them.

Where a value is expected: an own variable of pip, uv or the Hub's client, in the environment of the process that reads
it, and in a request to the host that it is for. Nowhere else.
"""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Done, Project
from trtbuild import redact
from trtbuild.config import compose, schema, secrets
from trtbuild.errors import InputError

CANARY = "CANARY7f3a9c"
#: Variables that trtbuild, its store or its libraries read, and that hold secrets.
VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "TRTSTORE_SIGNING_PASSPHRASE",
    "UV_PUBLISH_TOKEN",
    "SOME_PASSWORD",
)
URLS = ("PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "all_proxy_of_ours")


def environment(**more: str) -> dict[str, str]:
    found = {name: f"{CANARY}-{name}" for name in VARIABLES}
    found |= {name: f"http://user:{CANARY}-{name}@127.0.0.1:9/simple" for name in URLS}
    return found | more


@contextmanager
def server() -> Iterator[tuple[int, list[str]]]:
    """A host on this machine that knows nothing; what it was asked, with the headers."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {dict(self.headers)}")
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing."""

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=found.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield found.server_port, asked
    finally:
        found.shutdown()
        thread.join()
        found.server_close()


class Processes:
    """Looks at all processes of this machine while it is open: command lines, and the environment of workers."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.workers = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Processes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        until = time.monotonic() + 300
        while not self._end.wait(0.02) and time.monotonic() < until:
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    words = (process / "cmdline").read_bytes().decode(errors="replace")
                    if CANARY in words:
                        self.seen.add(words)
                    if "request.json" in words and "trtbuild." in words:
                        self.workers += 1
                        if CANARY in (process / "environ").read_bytes().decode(errors="replace"):
                            self.seen.add(f"environment of {words}")
                except OSError:
                    continue  # it has ended, or is another user's


def files_with(root: Path, canary: str = CANARY) -> list[str]:
    found = []
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and canary.encode() in path.read_bytes():
            found.append(str(path.relative_to(root)))
    return found


def quiet(project: Project, done: Done) -> None:
    assert CANARY not in done.out
    assert CANARY not in done.err
    assert "Traceback" not in done.err and "fault of trtbuild" not in done.err
    assert files_with(project.root) == []


def test_secrets_of_the_environment_are_in_nothing_that_a_build_makes(project: Project, tiny_llama: Path) -> None:
    env = environment()
    words = [f"model.source={tiny_llama}", "quant=int8", "check.prompt=why?", "output=json"]
    with Processes() as processes:
        for verb in ("plan", "doctor", "build", "explain", "fetch"):
            quiet(project, project.trtbuild(verb, *words, env=env))
        done = project.trtbuild("-m", *words, "quant=int8,int4", env=env)
        assert done.code == 0, done.err
        quiet(project, done)
        failed = project.trtbuild(*words, "quant=int4", "refresh=true", "executor.timeout_minutes=0.001", env=env)
        assert failed.code == 1
        quiet(project, failed)
        quiet(project, project.trtbuild("--cfg", "job", env=env))
        quiet(project, project.trtbuild("toolchain", "ls", env=env))
    assert processes.workers > 0, "nothing was looked at"
    assert processes.seen == set()


def test_a_password_is_sent_to_its_own_host_alone(project: Project) -> None:
    with server() as (index, of_index), server() as (hub, of_hub), Processes() as processes:
        env = environment(
            PIP_INDEX_URL=f"http://user:{CANARY}-index@127.0.0.1:{index}/simple",
            HF_ENDPOINT=f"http://127.0.0.1:{hub}",
            PIP_EXTRA_INDEX_URL="",
            PIP_RETRIES="0",
        )
        done = project.trtbuild("model=smollm2", "quant=int8", "output=json", env=env)
        assert done.code != 0
        quiet(project, done)
        done = project.trtbuild("plan", "model.source=hf://org/name", "output=json", env=env)
        assert done.code == 2
        quiet(project, done)
    sent = base64.b64encode(f"user:{CANARY}-index".encode()).decode()
    assert of_hub and not any(sent in each or "-index" in each for each in of_hub)
    assert not any(f"{CANARY}-HF_TOKEN" in each for each in of_index)
    assert processes.seen == set()


def places(node: Any, path: str = "") -> Iterator[tuple[Any, str, str, Any]]:
    """Each option that holds texts: its node, its field, its dotted name, and a value with a secret."""
    for each in fields(node):
        dotted = f"{path}{each.name}"
        value = getattr(node, each.name)
        if is_dataclass(value):
            yield from places(value, f"{dotted}.")
        elif isinstance(value, list):
            yield node, each.name, dotted, [f"a {CANARY}-HF_TOKEN"]
        elif isinstance(value, dict):
            yield node, each.name, dotted, {"name": f"{CANARY}-HF_TOKEN"}
        elif "str" in str(each.type) or "Any" in str(each.type):
            yield node, each.name, dotted, f"{CANARY}-HF_TOKEN and more"


@pytest.mark.parametrize("compiler", sorted(schema.COMPILERS))
def test_no_option_may_hold_a_secret_of_the_environment(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", f"{CANARY}-HF_TOKEN")
    found: list[schema.Config] = []
    compose.run([f"compiler={compiler}", "model.source=/nowhere"], found.append)
    tried = 0
    for node, name, dotted, value in list(places(found[0])):
        before = getattr(node, name)
        setattr(node, name, value)
        with pytest.raises(InputError) as caught:
            secrets.check(found[0])
        assert caught.value.option is not None and caught.value.option.startswith(dotted)
        assert CANARY not in str(caught.value.document())
        assert "HF_TOKEN" in caught.value.message
        setattr(node, name, before)
        tried += 1
    secrets.check(found[0])
    assert tried > 40


def test_a_file_cannot_read_one_either(project: Project) -> None:
    path = project.root / "conf" / "check" / "evil.yaml"
    path.parent.mkdir(parents=True)
    env = environment()
    for value in (
        "${oc.env:HF_TOKEN}",
        "a ${oc.env:HF_TOKEN} b",
        "${oc.decode:${oc.env:HF_TOKEN}}",
        "${oc.env:${output}_X,${oc.env:SOME_PASSWORD}}",
        "${oc.env:UV_INDEX_URL}",
    ):
        path.write_text(f"defaults: [schema, _self_]\nprompt: '{value}'\n")
        flags = ["--config-dir", str(path.parents[1]), "check=evil"]
        done = project.trtbuild("plan", "model.source=/nowhere", *flags, "output=json", env=env)
        assert done.code == 2
        assert done.json["error"]["option"] == "check.prompt"
        quiet(project, done)
        quiet(project, project.trtbuild("--cfg", "job", "--resolve", *flags, env=env))


@pytest.mark.parametrize(
    ("word", "names"),
    [
        (f"store.team=s3://u:{CANARY}@b/p", "store.team"),
        (f"'store.team=file:///x?token={CANARY}'", "store.team"),
        (f"store.team=https://{CANARY}@h/b", "store.team"),
        (f"store.also=[https://u:{CANARY}@h/x]", "store.also"),
        (f"model.source=hf://u:{CANARY}@h/x", "model.source"),
        (f"model.source=https://u:{CANARY}@h/x", "model.source"),
        (f"model.source=https://h/x?sig={CANARY}", "model.source"),
        (f"compiler.locks.network=https://u:{CANARY}@h/x", "compiler.locks.network"),
        (f"executor.flags=[--env=HTTPS_PROXY=http://u:{CANARY}@h]", "executor.flags"),
        (f"executor.flags=[--env,HF_TOKEN={CANARY}]", "executor.flags"),
        (f"sweep.slurm.setup=['export HF_TOKEN={CANARY}']", "sweep.slurm.setup"),
        (f"sweep.ray.address=ray://u:{CANARY}@h:1", "sweep.ray.address"),
        (f"out={CANARY}-HF_TOKEN", "out"),
        (f"+nothing.of.ours=https://u:{CANARY}@h/x", "nothing"),
    ],
)
def test_a_secret_that_is_typed_is_refused_and_not_repeated(project: Project, word: str, names: str) -> None:
    words = [] if word.startswith("model.source") else ["model.source=/nowhere"]
    done = project.trtbuild("plan", *words, word.strip("'"), "output=json", env=environment())
    assert done.code == 2
    assert names in done.err
    quiet(project, done)


def test_the_team_s_store_of_the_environment_holds_none(project: Project) -> None:
    env = environment(TRTBUILD_TEAM=f"s3://u:{CANARY}@bucket/p")
    done = project.trtbuild("plan", "model.source=/nowhere", "output=json", env=env)
    assert done.code == 2
    assert "TRTBUILD_TEAM" in done.err
    quiet(project, done)


def test_a_job_may_read_a_secret_of_its_own_from_a_file(project: Project, tiny_llama: Path) -> None:
    word = "sweep.slurm.setup=['export HF_TOKEN=$(cat ~/.token)']"
    assert project.trtbuild("plan", f"model.source={tiny_llama}", word).code == 0


def test_what_is_no_secret_stays_as_it_is() -> None:
    for text in (
        "hf://org/name@main",
        "hf://gpt2@main",
        "registry/image@sha256:" + "a" * 64,
        "docker://image@sha256:" + "a" * 64,
        "https://host/path?page=2",
        "a@b.c",
        "wheel:x==1",
        "12 tokens/s; key=3",
    ):
        assert redact.redact(text, {}) == text
        assert not redact.has_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://u:{}@h/x",
        "https://{}@h/x",
        "pip --index-url https://__token__:{}@h/simple x",
        "s3://b/p?X-Amz-Signature={}",
        "https://h/b?sv=1&sig={}&x=2",
        "https://u:p@{}@h/x",
        "--index-url=http://u:{}@h\nnext",
        "cannot read 'executor.flags=[--env,HF_TOKEN={}]'",
    ],
)
def test_secrets_in_urls_are_hidden(text: str) -> None:
    hidden = redact.redact(text.format(CANARY), {})
    assert CANARY not in hidden and redact.HIDDEN in hidden
    assert redact.redact(hidden, {}) == hidden


def test_values_of_the_environment_are_hidden_however_they_are_written() -> None:
    value = f'{CANARY}/"+é%'
    env = {
        "HF_TOKEN": value,
        "PIP_INDEX_URL": f"https://u:{CANARY}-b@h",
        "HOME": "/home/me",
        "A_KEY": "short",
    }
    assert set(redact.secrets(env)) == {value, f"{CANARY}-b"}
    for text in (
        value,
        json.dumps({"x": value}),
        f"https://h/{CANARY}%2F%22%2B%C3%A9%25",
        f"Bearer {CANARY}-b",
    ):
        assert CANARY not in redact.redact(text, env)
    assert redact.redact("short /home/me", env) == "short /home/me"


def test_a_log_is_scrubbed_in_place(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    before = f"Looking in indexes: https://u:{CANARY}@h/simple\r\n\udc80 bytes stay\nend"
    log.write_bytes(before.encode("utf-8", "surrogateescape"))
    redact.redact_file(log)
    assert log.read_bytes() == before.replace(f"u:{CANARY}", "***").encode("utf-8", "surrogateescape")
