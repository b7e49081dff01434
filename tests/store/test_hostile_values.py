"""Records, statements and small files with values that nobody expects: each reader ends in its own words."""

from __future__ import annotations

import base64
import gc
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import corpus
from tests.store.support import KEY, publish, write_files
from trtbuild.report import records as words
from trtstore import Store
from trtstore.cli import main
from trtstore.errors import Malformed
from trtstore.format import canonical_json, record
from trtstore.marks import revocations
from trtstore.team import gc as teamgc
from trtstore.team import policy as teampolicy
from trtstore.upkeep.maintenance import Maintenance

#: A predicate with all that `show`, `diff` and the statistics read of one.
PREDICATE: dict[str, Any] = {
    "buildDefinition": {
        "buildType": "urn:trtbuild:step:v1",
        "externalParameters": {"step.name": "engine", "step.version": 1, "compiler.name": "onnxruntime"},
        "resolvedDependencies": [
            {"name": "input.network", "uri": "urn:trtstore:key:" + KEY, "annotations": {"fields": {"a": 1}}},
            {"name": "model", "uri": "hf://a/b", "annotations": {"files": [["config.json", 3, "ab"]]}},
        ],
    },
    "runDetails": {
        "builder": {"id": "urn:trtbuild:1"},
        "metadata": {"startedOn": "2026-01-02T03:04:05Z", "finishedOn": "2026-01-02T03:05:05Z"},
    },
    "trtbuild_stats": {"seconds": 1.5, "peak_memory_bytes": 1000, "model_bytes": 5},
    "trtbuild_facts": {
        "loss": {"original": 1.5, "quantized": 2.5, "tokens": 9},
        "engine": {
            "compute_capability": "9.0",
            "group_size": 1,
            "weights": "int8",
            "compiler": "tensorrt",
            "release": "10",
            "dtype": "float16",
            "limits": {"max_batch_size": 1, "max_input_len": 2, "max_seq_len": 3},
            "engines": [
                {
                    "file": "a.engine",
                    "network_layers": 1,
                    "phases": [{"name": "x", "batch": [1, 1, 2], "tokens": [1, 1, 1], "past": [1, 1, 1]}],
                    "inputs": [{"name": "x", "dtype": "int64", "shape": [1, -1]}],
                    "outputs": [],
                }
            ],
        },
    },
    "trtbuild_check": {
        "tokens_per_second": 1.5,
        "load_seconds": 0.5,
        "tokens": 16,
        "engines": [{"file": "a.engine", "layers": 3, "precisions": {"FP16": 1}, "scratch_bytes": 9}],
    },
}
LABELS = {"step": "engine", "model": "tiny", "trtbuild-needs": KEY}
#: Of the changes, one in so many is put to a whole command; all are put to the parser.
EVERY, SOME = 11, 47


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(tmp_path / "store", durability="fast")
    publish(made, write_files(tmp_path / "out"), labels=LABELS, predicate=PREDICATE)
    yield made
    gc.enable()  # which the command turns off


def command(store: Store, capsys: pytest.CaptureFixture[str], *args: str, codes: tuple[int, ...]) -> str:
    """Run `trtstore` in this process: an exception of Python's own would leave it, and fail the test."""
    code = main.run_trtstore([*args], lambda: store.root, None, words.lines)
    said = capsys.readouterr()
    assert code in codes, (args, said.err)
    for text in (said.out, said.err):
        assert not set(text) & set("\x1b\x00\u202e\r")
        assert max(map(len, text.splitlines()), default=0) <= 60_000 or "--json" in args
        text.encode()
    return said.out


def enveloped(statement: bytes) -> bytes:
    return canonical_json.canonical(
        {
            "payload": base64.b64encode(statement).decode(),
            "payloadType": record.PAYLOAD_TYPE,
            "signatures": [],
        }
    )


def plant(store: Store, data: bytes, number: int) -> str:
    """A record of a key of its own; where `data` speaks of KEY, it is made to speak of that key."""
    key = hashlib.sha256(str(number).encode()).hexdigest()
    path = store.root / "v1" / "records" / key[:2] / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return key


def of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_no_envelope_or_statement_raises_anything_but_malformed(store: Store) -> None:
    envelope = store.envelope(KEY)
    statement = base64.b64decode(json.loads(envelope)["payload"])
    count, good = 0, 0
    files = [change(envelope) for change in corpus.FILES.values()]
    files += [enveloped(change(statement)) for change in corpus.FILES.values()]
    files += [data for _, data in corpus.spoilt(json.loads(envelope))]
    files += [enveloped(data) for _, data in corpus.spoilt(json.loads(statement))]
    for data in files:
        count += 1
        try:
            found = record.parse(data, KEY)
        except Malformed as error:
            assert len(str(error)) < 4000
        else:
            good += 1
            assert record.parse(record.encode(found), KEY) == found
            text = words.lines(found)
            assert all(line.isprintable() for line in text)
    assert count > 3500
    assert 0 < good < count / 4  # what is not in the one spelling is none, however harmless


def test_a_store_full_of_damaged_records_is_listed_verified_and_collected(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    envelope = store.envelope(KEY)
    statement = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    planted = 0
    for change in corpus.FILES.values():
        plant(store, change(envelope), planted := planted + 1)
        plant(store, enveloped(change(canonical_json.canonical(statement))), planted := planted + 1)
    for document, wrap in ((json.loads(envelope), bytes), (statement, enveloped)):
        for _, data in list(corpus.spoilt(document, corpus.UNLAWFUL))[::EVERY]:
            plant(store, wrap(data), planted := planted + 1)
    damaged = of(planted)
    command(store, capsys, "ls", codes=(0,))
    assert len(json.loads(command(store, capsys, "ls", "--json", codes=(0,)))["records"]) == planted + 1
    command(store, capsys, "stats", codes=(0,))
    command(store, capsys, "gc", "--dry-run", "--all", codes=(0,))
    for verb in ("show", "path", "export -o -"):
        command(store, capsys, *verb.split(), damaged, codes=(3,))
    command(store, capsys, "diff", KEY, damaged, codes=(3,))
    command(store, capsys, "verify", codes=(4,))
    command(store, capsys, "verify", codes=(0,))  # they are in quarantine now
    assert store.lookup(KEY) is not None
    assert planted > 100


def test_a_lawful_record_says_anything_and_every_reader_shows_it(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    envelope = store.envelope(KEY)
    statement = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    keys = []
    for number, (_, data) in enumerate(list(corpus.spoilt(statement["predicate"], corpus.LAWFUL))[::SOME]):
        predicate = json.loads(data)
        if not isinstance(predicate, dict):
            continue
        subject = {**statement["subject"][0], "name": of(number)}
        said = canonical_json.canonical({**statement, "predicate": predicate, "subject": [subject]})
        keys.append(plant(store, enveloped(said), number))
    assert len(keys) > 15
    command(store, capsys, "ls", codes=(0,))
    command(store, capsys, "stats", codes=(0,))
    for key in keys:
        assert store.lookup(key) is not None
        command(store, capsys, "show", key, codes=(0,))
        command(store, capsys, "diff", KEY, key, codes=(0,))
        json.loads(command(store, capsys, "show", "--json", key, codes=(0,)))
    command(store, capsys, "gc", "--dry-run", codes=(0,))
    file = tmp_path / "all.tar"
    command(store, capsys, "export", "--all", "-o", str(file), codes=(0,))
    other = Store.open(tmp_path / "other", durability="fast")
    command(other, capsys, "import", str(file), codes=(0, 2, 4))


def test_labels_of_any_number_make_no_line_of_any_length(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        labels = {f"{'n' * 100}-{number}-{each}": "v" * 1000 for each in range(60)}
        publish(store, tmp_path / "out", of(number), labels=labels)
    out = command(store, capsys, "ls", codes=(0,))
    assert len(out) < 21 * 5000


@pytest.mark.parametrize("name", ["pin", "revocation", "environment", "contents", "lock note"])
def test_a_small_file_of_the_store_holds_anything(name: str, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    root = store.root / "v1"
    environment = root / "toolchains" / "a-1"
    (environment / "files").mkdir(parents=True)
    about = {"schema": 1, "about": {"title": "t", "made": 1.5}, "bytes": 5, "files": 1}
    (environment / "environment.json").write_text(json.dumps(about))
    contents = {"schema": 1, "files": [["a", 1, "ab"]]}
    (environment / "contents.json").write_text(json.dumps(contents))
    Maintenance(store).pin(KEY, "why")
    said = json.loads(revocations.statement(f"sha256:{'ab' * 32}", "bad").payload)
    path, good, wrap = {
        "pin": (root / "pins" / KEY, {"note": "why", "since": 1.5}, bytes),
        "revocation": (root / "revoked" / ("ab" * 32), said, enveloped),
        "environment": (environment / "environment.json", about, bytes),
        "contents": (environment / "contents.json", contents, bytes),
        "lock note": (root / "locks" / "gate", {"pid": 1, "who": "x", "started": 1.5}, bytes),
    }[name]
    path.parent.mkdir(exist_ok=True)
    whole = json.dumps(good).encode()
    spoilt = [data for _, data in corpus.spoilt(good)]
    for data in (*(change(whole) for change in corpus.FILES.values()), *spoilt[:: max(1, len(spoilt) // 25)]):
        path.unlink(missing_ok=True)
        path.write_bytes(wrap(data))
        command(store, capsys, "roots", codes=(0,))
        command(store, capsys, "show", KEY, codes=(0,))
        command(store, capsys, "gc", "--dry-run", codes=(0,))


def test_no_revocation_or_policy_raises_anything_but_malformed() -> None:
    policy = teampolicy.statement(teamgc.RetentionPolicy(1, 2)).payload
    revocation = revocations.statement(f"sha256:{KEY}", "bad").payload
    for statement, parse in (
        (policy, teampolicy.parsed),
        (revocation, lambda data: revocations.parse(data, KEY)),
    ):
        whole = [change(statement) for change in corpus.FILES.values()]
        for data in (*whole, *(data for _, data in corpus.spoilt(json.loads(statement)))):
            try:
                parse(enveloped(data))
            except Malformed as error:
                assert len(str(error)) < 4000
