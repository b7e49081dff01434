"""The first inputs of each fuzz target, and words for its mutations: made by code, so that they can be read."""

from __future__ import annotations

import base64
import datetime
import io
import struct
import tempfile
from pathlib import Path

from tests.fuzz import corpus
from tests.fuzz.targets import KEY
from trtbuild.toolchains import builtin
from trtstore import Attachment, Record, Store
from trtstore.exchange import bundle
from trtstore.format import manifest, record
from trtstore.format.manifest import Entry
from trtstore.marks import revocations
from trtstore.remote.leases import State
from trtstore.team import gc, policy, revocation_list
from trtstore.team.versioned import Issue

MANIFEST = manifest.make_manifest(
    [
        Entry("a.bin", "0644", 7, "0f" * 32),
        Entry("sub/é", "0755", 0, "5e" * 32),
        Entry("sub/z", "0644", 1, "ab" * 32),
    ]
)
RECORD = Record(
    key=KEY,
    manifest=MANIFEST.digest,
    bytes=8,
    files=3,
    labels={"model": "tiny"},
    attachments={"log": Attachment(f"sha256:{'ab' * 32}", 3)},
    predicate_type="https://example.org/build/v1",
    predicate={"seconds": 1.5, "big": 1e20, "tags": ["a", None, True, {}]},
)
ENVELOPE = record.encode(RECORD)
STATEMENT = base64.b64decode(ENVELOPE.split(b'"')[3])


def exported() -> bytes:
    """A bundle of one artifact, small enough to be mutated to some effect."""
    with tempfile.TemporaryDirectory() as home:
        store = Store.open(Path(home) / "store", durability="fast")
        (Path(home) / "out").mkdir()
        (Path(home) / "out" / "a").write_bytes(b"seven b")
        store.publish(KEY, Path(home) / "out", predicate_type="p", predicate={}, labels={})
        file = io.BytesIO()
        bundle.export_to(store, [KEY], file)
        return file.getvalue()


def _gguf_text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


SEEDS: dict[str, list[bytes]] = {
    "strict_json": [
        b'{"a":[1,-0,1.5,1e21,null,true,"\\u0000\xc3\xa9"],"b":{}}',
        b'["\\ud800"]',
        b"[9007199254740993]",
        b"[100000000000000000000]",
        b'{"a":1,"a":1}',
        b"\xef\xbb\xbf{}",
    ],
    "manifest_blob": [MANIFEST.encode()],
    "record": [ENVELOPE, ENVELOPE.replace(b"[]", b'[{"keyid":"k","sig":"c2ln"}]')],
    "statement": [STATEMENT],
    "index_row": [b"\x00\x01" + text for text in (b'"abc"', b"[1,NaN]", b"\xff\xfe", b"")] + [b"\x03\x00\x80\x04N."],
    "export_file": [exported()],
    "lock_note": [
        b'{"pid":1,"who":"me","started":1.5}',
        b'{"pid":[],"who"',
        b'{"pid":"7","who":null,"started":NaN}',
    ],
    "revocation_list": [
        revocation_list.RevocationList(
            Issue("5e" * 16, 7, "2026-01-02T03:04:05Z"),
            datetime.datetime(2026, 2, 3, tzinfo=datetime.UTC),
            (KEY, "ff" * 32),
        )
        .statement()
        .payload
    ],
    "policy": [
        policy.statement(gc.RetentionPolicy(500, 90)).payload,
        policy.statement(gc.RetentionPolicy(None, 1), Issue("5e" * 16, 7, "2026-01-02T03:04:05Z")).payload,
    ],
    "kept_files": [
        b'{"from":"engines.tar","schema":1,"scopes":[{"model":["llama*"]}],"since":1780000000}',
        b'{"revocations":[{"envelope":"","reason":"bad","scopes":[{}],"source":"x","when":"today"}],"schema":1}',
    ],
    "revocation": [revocations.statement(f"sha256:{KEY}", "bad scales").payload],
    "lease": [
        State(7, "ab", 3, 15.0, "ci", "host", 1.5, 60.0, "weights, 7 %", released=False).encode(),
        b'{"beat":1e999,"elapsed":-1,"heartbeat":0,"token":1}',
    ],
    "foreign_json": [
        *(text.encode() for text in corpus.VALUES.values() if len(text) < 2000),
        b'{"a":[1,-0.5,1e21,null,true,"\\u0000\xc3\xa9"],"b":{}}',
    ],
    "tensors": [
        b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"F16","shape":[2],'
        b'"data_offsets":[16,20]}}',
    ],
    "gguf": [
        b"GGUF\x03\0\0\0"
        + struct.pack("<QQ", 1, 2)
        + _gguf_text(b"general.architecture")
        + struct.pack("<I", 8)
        + _gguf_text(b"llama")
        + _gguf_text(b"a")
        + struct.pack("<IIQ", 9, 4, 3)
        + bytes(12)
        + _gguf_text(b"t")
        + struct.pack("<IQQIQ", 2, 32, 2, 0, 0),
    ],
    "config_file": [
        b"weights: int8\ngroup_size: 32\na: &a [1, 2]\nb: [*a, *a]\n",
        b"a: !!python/name:os.system\n",
        b"a: ${b}\nb: 0x1f\n",
    ],
    "toolchain_lock": [(builtin.FOLDER / "network.txt").read_bytes()[:3000]],
    "worker_answer": [
        b'{"event":"progress","what":"weights","done":1,"total":2,"unit":"B"}\n{"event":"text","text":"x"}\n'
        b'{"event":"result","facts":{}}\n',
        b'{"event":"error","kind":"input","message":"m","option":null,"hint":null}\n',
    ],
    "small_files": [
        b'{"note":"why","since":1.5}',
        b'{"schema":1,"about":{},"bytes":1,"files":1}',
        b'{"schema":1,"files":[["a",1,"ab"]]}',
    ],
    "trusted_key": [
        b"ed25519:" + base64.b64encode(bytes(range(32))) + b" name=ci model=llama*,x compiler=tensorrt",
        b"ed25519:AAAA model",
    ],
}

WORDS = [
    b'"entries"', b'"schema":1', b'"mode":"0644"', b'"path":"', b'"sha256":"', b'"size":', b'{"', b'"},{"', b"..", b"/",
    b"e\xcc\x81", b"\\ud800", b"\\u0000", b"1e400", b"-0", b"9007199254740992", b"NaN", b"[[[[[[[[", b'"sig":"c2ln"',
    b'"labels":{}', b'"attachments":{}', b'"pid":', b'"who":', b'"started":',
]  # fmt: skip


def write(target: str, folder: Path) -> tuple[Path, Path]:
    """The corpus and the dictionary of `target`, as libFuzzer reads them, in `folder`."""
    corpus, words = folder / "corpus", folder / "words"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(SEEDS[target]):
        (corpus / f"seed-{number}").write_bytes(seed)
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS)
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    return corpus, words
