"""A checkpoint's small files with values that nobody expects: what plans it ends in its own words, and soon."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuzz import corpus
from tests.support import tiny
from trtbuild import untrusted
from trtbuild.building.digests import Hasher
from trtbuild.config import compose, schema
from trtbuild.errors import MAX_LINE, InputError, TrtbuildError
from trtbuild.formats import safetensors
from trtbuild.formats.gguf import read_header, read_metadata
from trtbuild.planning.plan import make_plan
from trtbuild.planning.resolve import resolve
from trtbuild.report import terminal
from trtstore import Store

GENERATION = {
    "eos_token_id": [2],
    "bos_token_id": 1,
    "pad_token_id": 0,
    "temperature": 0.5,
    "top_k": 3,
    "top_p": 0.5,
    "do_sample": True,
    "max_length": 20,
}
#: The file that is spoilt, the options, and of how many changes one is tried.
PLANS = [
    ("config.json", ("quant=int8",), 1),
    ("config.json", ("quant=fp8", "compiler=tensorrt_llm", "target=h100_sxm"), 1),
    ("config.json", ("quant=none", "compiler=tensorrt", "target=h100_sxm"), 3),
    ("config.json", ("quant=none", "compiler=aot_inductor"), 3),
    ("config.json", ("quant=int8", "network.frontend=genai"), 3),
    ("config.json", ("quant=fp8", "compiler=modelopt", "target=h100_sxm"), 3),
    ("tokenizer_config.json", ("quant=int8",), 1),
    ("tokenizer.json", ("quant=int8",), 3),
    ("generation_config.json", ("quant=int8",), 1),
    ("added_tokens.json", ("quant=int8",), 1),
    ("special_tokens_map.json", ("quant=int8",), 1),
]
SMALL = {
    "generation_config.json": GENERATION,
    "added_tokens.json": {"<x>": 5},
    "special_tokens_map.json": {"eos_token": "</s>"},
}


@pytest.fixture
def planned(tmp_path: Path) -> Iterator[Callable[..., Callable[[], None]]]:
    """Gives what resolves, plans and examines a checkpoint under some options, again and again."""
    reporter = terminal.reporter(None)
    store = Store.open(tmp_path / "store", durability="fast")

    def prepare(model: Path, *options: str) -> Callable[[], None]:
        found: list[schema.Config] = []
        compose.run([f"model.source={model}", *options], found.append)

        def again() -> None:
            resolved = resolve(found[0], Hasher(store.index, reporter))
            make_plan(resolved.recipe, None)
            resolved.examine()

        return again

    yield prepare
    reporter.close()


@pytest.mark.parametrize(("file", "options", "every"), PLANS, ids=lambda value: str(value)[:60])
def test_a_plan_ends_in_words_of_its_own(
    file: str,
    options: tuple[str, ...],
    every: int,
    planned: Callable[..., Callable[[], None]],
    tmp_path: Path,
) -> None:
    model = tiny.write_model(tmp_path / "model")
    plan = planned(model, *options)
    good = SMALL[file] if file in SMALL else json.loads((model / file).read_bytes())
    whole = json.dumps(good).encode()
    (model / file).write_bytes(whole)
    if file != "added_tokens.json":  # each of whose tokens must be one of tokenizer.json's
        plan()
    changes = [data for _, data in corpus.spoilt(good)]
    step = every * max(1, len(changes) // 700)
    refused = 0
    for data in (*(change(whole) for change in corpus.FILES.values()), *changes[::step]):
        (model / file).write_bytes(data)
        try:
            plan()
        except TrtbuildError as error:  # anything else fails the test
            refused += 1
            assert isinstance(error, InputError)
            assert all(len(line) < MAX_LINE + 100 and line.isprintable() for line in error.lines())
    assert refused >= len(corpus.FILES) - 1  # an object without a field may be whole


def test_a_header_of_safetensors_is_refused_or_right(tmp_path: Path) -> None:
    good = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "F16", "shape": [2], "data_offsets": [16, 20]},
    }
    path = tmp_path / "model.safetensors"
    whole = json.dumps(good).encode()
    for text in (
        *(change(whole) for change in corpus.FILES.values()),
        *(data for _, data in corpus.spoilt(good)),
        b'{"a":{"dtype":"F32","shape":[' + b"9,".ljust(2, b"9") * 300_000 + b'1],"data_offsets":[0,20]}}',
    ):
        data = struct.pack("<Q", len(text)) + text + bytes(20)
        try:
            found = safetensors.read_header(lambda count, data=data: data[:count], len(data), path.name, "model.source")
        except InputError as error:
            assert all(line.isprintable() for line in error.lines())
        else:
            assert all(0 <= each.begin <= each.end <= len(data) for each in found.values())


@pytest.mark.parametrize("read", [read_header, read_metadata])
def test_a_header_of_gguf_is_refused_or_read(read: Callable[..., object], tiny_gguf: Path) -> None:
    data = tiny_gguf.read_bytes()[:8192]
    places = range(0, 2048, 5)
    spoilt = [data[:at] + worth + data[at + len(worth) :] for at in places for worth in _WORTHS]
    for each in [data[:length] for length in range(0, 4096, 37)] + spoilt:
        try:
            read(lambda count, each=each: each[:count], tiny_gguf.stat().st_size, "model.gguf", "model.source")
        except InputError as error:
            assert all(len(line) < MAX_LINE + 100 and line.isprintable() for line in error.lines())


_WORTHS = (
    b"\xff" * 8,
    bytes(8),
    b"\xff" * 4,
    b"\x09\0\0\0",
    b"\xff\xff\xff\xff\0\0\0\0",
    b"\0\0\0\0\0\0\xf0\x7f",
)


@pytest.mark.parametrize("name", corpus.UNLAWFUL)
def test_what_is_unlawful_is_refused_by_the_one_parser(name: str) -> None:
    for text in (corpus.UNLAWFUL[name], f'{{"a":[{corpus.UNLAWFUL[name]}]}}'):
        with pytest.raises(untrusted.MalformedJson) as refused:
            untrusted.parse(text.encode())
        assert len(str(refused.value)) < 300


@pytest.mark.parametrize("name", corpus.LAWFUL)
def test_what_is_lawful_is_read_as_json_reads_it(name: str) -> None:
    assert untrusted.parse(corpus.LAWFUL[name].encode()) == json.loads(corpus.LAWFUL[name])


def test_a_pipe_or_a_device_is_not_opened(tmp_path: Path) -> None:
    link = tmp_path / "config.json"
    link.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"config\.json cannot be read: it is no regular file"):
        untrusted.read_object(link)
