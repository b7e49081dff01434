"""Every place that parses bytes which this process did not write: whose they are, and what tries them with others."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[1]
CODE = sorted([*(ROOT / "trtbuild").rglob("*.py"), *(ROOT / "store" / "trtstore").rglob("*.py")])

#: The calls that parse, by the end of their dotted name: of a module, or of anything.
CALLS = frozenset(
    [
        "json.load",
        "json.loads",
        "tomllib.load",
        "tomllib.loads",
        "pickle.load",
        "pickle.loads",
        "marshal.loads",
        "plistlib.load",
        "shelve.open",
        "struct.unpack",
        "struct.unpack_from",
        "struct.iter_unpack",
        "ast.literal_eval",
        "base64.b64decode",
        "base64.urlsafe_b64decode",
        "zipfile.ZipFile",
        "tarfile.open",
        "tarfile.TarFile",
        "shutil.unpack_archive",
        "gzip.open",
        "lzma.open",
        "csv.reader",
        "csv.DictReader",
        "configparser.ConfigParser",
        "email.message_from_bytes",
        "sqlite3.connect",
        "diskcache.Cache",
        "OmegaConf.load",
        "OmegaConf.create",
        "np.load",
        "np.fromfile",
        "np.frombuffer",
        "np.memmap",
        "np.loadtxt",
        "torch.load",
        "torch.frombuffer",
        "load_model",
        "onnx.load",
        "onnx.load_model",
        "load_external_data_for_model",
        "ParseFromString",
        "safe_open",
        "load_file",
        "GGUFReader",
        "Tokenizer.from_str",
        "Tokenizer.from_file",
        "ParquetFile",
        "load_pem_private_key",
        "aoti_load_package",
        "deserialize_cuda_engine",
        "ElementTree.parse",
        "datetime.fromtimestamp",
        "datetime.fromisoformat",
        "datetime.strptime",
        "canonical_json.parse",
        "canonical_json.parse_canonical",
        "yaml.parse",
        "yaml.load",
        "yaml.safe_load",
        "untrusted.parse",
        "untrusted.parse_object",
        "untrusted.json_object",
        "untrusted.read_object",
    ]
)


@cache
def places() -> tuple[str, ...]:
    """`module.function: call` of each call that parses, in order."""
    found = []
    for path in CODE:
        base = ROOT / "store" if "trtstore" in path.parts else ROOT
        module = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text())
        imported = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        found += [f"{module}{where}: {call}" for where, call in _calls(tree, "", imported)]
    return tuple(sorted(found))


def _calls(node: ast.AST, where: str, imported: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for inner in ast.iter_child_nodes(node):
        named = isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from _calls(inner, f"{where}.{inner.name}" if named else where, imported)
    if isinstance(node, ast.Call):
        names = _dotted(node.func)
        for called in (names, [*imported.get(names[0], names[0]).split("."), *names[1:]]):
            for count in (1, 2):
                if (call := ".".join(called[-count:])) in CALLS:
                    yield where, call
                    return


def _dotted(node: ast.AST) -> list[str]:
    """The names of `a.b.c`; of another expression those behind it."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [node.id if isinstance(node, ast.Name) else "", *reversed(names)]


#: Covered by a fuzz target, or by a test in a file: `fuzz:name`, `path::function`.
PLANS = "tests/planning/test_hostile_checkpoints.py::test_a_plan_ends_in_words_of_its_own"
JSON = "fuzz:foreign_json"
_TRITON = "trtbuild.compilers.tensorrt_llm.triton_models"
#: (what is parsed and who wrote it, what covers it) -> the places, one for each call.
TABLE: dict[tuple[str, str], list[str]] = {
    ("any JSON that is not ours; all other places of trtbuild call this one", JSON): [
        "trtbuild.untrusted.parse: json.loads",
    ],
    ("any JSON of a store; all other places of trtstore call this one", "fuzz:strict_json"): [
        "trtstore.format.canonical_json._parse: json.loads",
    ],
    ("a checkpoint's small files, by its author or a Hub's mirror", PLANS): [
        "trtbuild.sources.base.parse_config: untrusted.json_object",
        "trtbuild.sources.refusals._object: untrusted.parse",
        "trtbuild.sources.select._shards: untrusted.parse_object",
        "trtbuild.sources.select.weight_map: untrusted.parse_object",
        "trtbuild.networks.tokenizer.special_tokens.read_object: untrusted.json_object",
        "trtbuild.networks.chat.template._refuse_json: untrusted.parse",
    ],
    ("the same in a worker, which a plan has examined before", JSON): [
        "trtbuild.networks.weights.as_transformers._weights: untrusted.read_object",
        "trtbuild.networks.weights.as_transformers.check_folder: untrusted.read_object",
        "trtbuild.networks.weights.checkpoint.read_json: untrusted.read_object",
        "trtbuild.networks.tokenizer.tokens.check: untrusted.json_object",
        "trtbuild.networks.tokenizer.tokens._template: untrusted.read_object",
        "trtbuild.compilers.modelopt.modelopt_run._complete: untrusted.read_object",
        "trtbuild.compilers.modelopt.modelopt_run._complete: untrusted.read_object",
        "trtbuild.compilers.modelopt.modelopt_run.run: untrusted.read_object",
        "trtbuild.compilers.tensorrt_llm.scripts_checkpoint.run: untrusted.read_object",
        "trtbuild.compilers.tensorrt_llm.modelopt_checkpoint.run: untrusted.read_object",
        "trtbuild.compilers.tensorrt_llm.serving._tokens: untrusted.read_object",
    ],
    ("a checkpoint's tokenizer.json; a library in Rust parses it", "tests/compilers/test_tokenizer.py::*"): [
        "trtbuild.networks.tokenizer.tokens._reference: Tokenizer.from_str",
        "trtbuild.compilers.text.Text.__init__: Tokenizer.from_str",
        f"{_TRITON}.postprocessing.TritonPythonModel.initialize: Tokenizer.from_file",
        f"{_TRITON}.preprocessing.TritonPythonModel.initialize: Tokenizer.from_file",
    ],
    ("the header of a checkpoint's safetensors, by its author or a mirror", "fuzz:tensors"): [
        "trtbuild.formats.safetensors._parse: untrusted.parse_object",
        "trtbuild.formats.safetensors._parse: struct.unpack",
    ],
    ("the header of a GGUF, by its author or a mirror", "fuzz:gguf"): [
        "trtbuild.formats.gguf._Cursor.scalar: struct.unpack",
        "trtbuild.formats.gguf._value: struct.unpack",
    ],
    (
        "bytes of a tensor, as many as a checked header says",
        "tests/networks/weights/test_checkpoint.py::*",
    ): [
        "trtbuild.networks.weights.stored.Stored.read: np.fromfile",
        "trtbuild.compilers.modelopt.exported.TensorEntry.codes: np.fromfile",
    ],
    ("an ONNX network that a step before wrote", "tests/compilers/test_quantization.py::*"): [
        "trtbuild.networks.weights.tensors.Network.open: load_model",
        "trtbuild.networks.weights.tensors.Network.columns: np.frombuffer",
        "trtbuild.networks.weights.tensors.Network.rows: np.frombuffer",
        "trtbuild.networks.weights.tensors.Network.rows: np.fromfile",
        "trtbuild.networks.genai.builder._settle_scale: load_model",
    ],
    ("what a step before, or a vendor's tool, wrote into an artifact", JSON): [
        "trtbuild.networks.genai.builder._settle_context: untrusted.read_object",
        "trtbuild.compilers.aot_inductor.manifest.read: untrusted.parse_object",
        "trtbuild.compilers.aot_inductor.inference._config_ends: untrusted.read_object",
        "trtbuild.compilers.modelopt.check.run: untrusted.read_object",
        "trtbuild.compilers.modelopt.check.run: untrusted.read_object",
        "trtbuild.compilers.modelopt.verify_export._check_quantization: untrusted.read_object",
        "trtbuild.compilers.modelopt.verify_export.verify: untrusted.read_object",
        "trtbuild.compilers.modelopt.exported.entries: untrusted.parse_object",
        "trtbuild.compilers.onnxruntime.engine._copy_rest: untrusted.read_object",
        "trtbuild.compilers.onnxruntime.runtime._json: untrusted.read_object",
        "trtbuild.compilers.tensorrt.engine.run: untrusted.read_object",
        "trtbuild.compilers.tensorrt.engine.build_apart: untrusted.read_object",
        "trtbuild.compilers.tensorrt.inspection.precisions: untrusted.parse",
        "trtbuild.compilers.tensorrt.manifest.read: untrusted.parse_object",
        "trtbuild.compilers.tensorrt_llm.scripts_checkpoint.check_files: untrusted.read_object",
        "trtbuild.compilers.tensorrt_llm.engine._RankProgress.__init__: untrusted.read_object",
        "trtbuild.compilers.tensorrt_llm.engine._positions: untrusted.read_object",
        "trtbuild.compilers.tensorrt_llm.engine_folder.read: untrusted.parse_object",
        "trtbuild.compilers.tensorrt_llm.engine_folder.settle: untrusted.parse_object",
        "trtbuild.compilers.tensorrt_llm.verify_export.verify: untrusted.read_object",
        "trtbuild.compilers.tensorrt_llm.modelopt_run._complete: untrusted.read_object",
        "trtbuild.compilers.text.Text.__init__: untrusted.parse_object",
    ],
    (
        "an engine, which is code: who may write it is the store's to say",
        "tests/compilers/tensorrt/test_compatibility.py::*",
    ): [
        "trtbuild.compilers.tensorrt.gpu.TensorRt._load: deserialize_cuda_engine",
    ],
    (
        "weights of an engine in safetensors, by the library",
        "tests/compilers/aot_inductor/test_weights.py::*",
    ): [
        "trtbuild.compilers.aot_inductor.package_loader.read: load_file",
    ],
    ("a package that PyTorch wrote in this very step", "tests/compilers/aot_inductor/test_link.py::*"): [
        "trtbuild.compilers.aot_inductor.package.settle: zipfile.ZipFile",
        "trtbuild.compilers.aot_inductor.package.settle: zipfile.ZipFile",
        "trtbuild.compilers.aot_inductor.package.wanted: zipfile.ZipFile",
    ],
    ("a text to calibrate on, by its author or a mirror", JSON): [
        "trtbuild.compilers.modelopt.texts._lines: untrusted.parse",
        "trtbuild.compilers.modelopt.texts._rows: ParquetFile",
    ],
    ("ours: this process's parent, or a file of this package", JSON): [
        "trtbuild.compilers.tensorrt.builder.main: json.loads",
        "trtbuild.compilers.tensorrt_llm.contract.contract: json.loads",
        f"{_TRITON}.postprocessing.TritonPythonModel.initialize: json.loads",
        f"{_TRITON}.preprocessing.TritonPythonModel.initialize: json.loads",
        "trtbuild.networks.chat.apart.serve: json.load",
        "trtbuild.worker.StepRequest.read: untrusted.read_object",
        "trtbuild.artifacts.provenance._time: datetime.fromtimestamp",
    ],
    ("answers of a worker, in a Python or a container of the user's", "fuzz:worker_answer"): [
        "trtbuild.executors.worker_events.listen: untrusted.parse_object",
    ],
    ("answers of other programs: docker, a named Python, a job elsewhere, a template's trial", JSON): [
        "trtbuild.doctor.containers._runtimes: untrusted.parse",
        "trtbuild.networks.chat.trial.try_out: untrusted.parse_object",
        "trtbuild.sweeps.job_entry._parsed: untrusted.parse",
        "trtbuild.sweeps.job_folder.parse: untrusted.parse_object",
        "trtbuild.toolchains.pythons._asked: untrusted.parse_object",
    ],
    ("a lock that uv has just written", "tests/toolchains/test_lock.py::*"): [
        "trtbuild.toolchains.lockfile_build.make: tomllib.loads",
    ],
    ("the user's own uv.toml", "tests/toolchains/test_indexes.py::*"): [
        "trtbuild.toolchains.indexes._of_files: tomllib.loads",
    ],
    ("wheels of an index, and bundles of toolchains", "tests/sources/test_wheel.py::*"): [
        "trtbuild.sources.wheel._opened: zipfile.ZipFile",
        "trtbuild.toolchains.bundle.read: zipfile.ZipFile",
        "trtbuild.toolchains.bundle.write: zipfile.ZipFile",
    ],
    ("what this user's earlier commands remembered of a Hub", JSON): [
        "trtbuild.sources.hub.commit.recall: untrusted.parse",
        "trtbuild.sources.hub.headers.recall: untrusted.parse",
    ],
    ("a team's or a stranger's config folder", "fuzz:config_file"): [
        "trtbuild.config.yaml_files.check: yaml.parse",
    ],
    ("a record's envelope and statement, by whoever may write to a store", "fuzz:statement"): [
        "trtstore.format.envelope.parse: canonical_json.parse",
        "trtstore.format.envelope.statement: canonical_json.parse_canonical",
        "trtstore.format.envelope.unbase64: base64.b64decode",
        "trtstore.team.signing._verifies: base64.b64decode",
        "trtstore.index.usage._moment: datetime.fromisoformat",
    ],
    ("a manifest, by whoever may write to a store", "fuzz:manifest_blob"): [
        "trtstore.format.manifest.parse: canonical_json.parse_canonical",
    ],
    ("a lease, by whoever may write to a team store", "fuzz:lease"): [
        "trtstore.remote.leases._parse: canonical_json.parse",
    ],
    ("a mirror's list of files", "tests/sources/hub/test_lies.py::*"): [
        "trtbuild.sources.hub.listing._value: untrusted.parse_object",
    ],
    ("revocations, doubts and dates that a local store keeps", "fuzz:kept_files"): [
        "trtstore.marks.doubts._parse: canonical_json.parse",
        "trtstore.marks.revocations._decode: canonical_json.parse",
    ],
    ("the last day of a list or policy, by whoever signed it", "fuzz:revocation_list"): [
        "trtstore.team.versioned.moment: datetime.strptime",
    ],
    ("pins and environments, by whoever may write to a local store", "fuzz:small_files"): [
        "trtstore.environments.seal._sealed: canonical_json.parse",
        "trtstore.environments.environment._contents: canonical_json.parse",
        "trtstore.environments.environment.read: canonical_json.parse",
        "trtstore.marks.pins._read: canonical_json.parse",
        "trtstore.units.moment: datetime.fromtimestamp",
    ],
    ("a lock's note, by whoever may write to a local store", "fuzz:lock_note"): [
        "trtstore.disk.locks._holder: canonical_json.parse",
    ],
    ("the index, by this user alone: it is refused where another may write", "fuzz:index_row"): [
        "trtstore.index.index._value: json.loads",
        "trtstore.index.index_schema._Blank.__init__: sqlite3.connect",
        "trtstore.index.index_schema.connect: sqlite3.connect",
        "trtstore.index.index_schema.make: sqlite3.connect",
    ],
    ("public keys, by the user or a team's list", "fuzz:trusted_key"): [
        "trtstore.format.trust.raw: base64.b64decode",
    ],
    ("the user's own private key", "tests/team/test_trust.py::*"): [
        "trtstore.team.signing.signer: load_pem_private_key",
    ],
}


def test_every_parser_of_foreign_bytes_is_in_the_table() -> None:
    listed = sorted(place for some in TABLE.values() for place in some)
    found = sorted(places())
    new = [place for place in found if found.count(place) > listed.count(place)]
    gone = [place for place in listed if listed.count(place) > found.count(place)]
    assert not new, (
        f"{', '.join(sorted({*new}))}: bytes are parsed there, and tests/test_parsers.py does not list it. Read JSON "
        "through trtbuild.untrusted or trtstore.format.canonical_json, say in TABLE whose bytes they are, and name the "
        "fuzz target "
        "(tests/fuzz/targets.py) or the test that tries the place with values nobody expects (tests/fuzz/corpus.py)."
    )
    assert not gone, f"{', '.join(sorted({*gone}))}: nothing is parsed there any more; take it out of TABLE"


@pytest.mark.parametrize("covered", sorted({covered for _, covered in TABLE}))
def test_what_covers_a_parser_exists(covered: str) -> None:
    kind, _, name = covered.partition(":")
    if kind == "fuzz":
        assert name in TARGETS
        return
    path, _, function = covered.partition("::")
    text = (ROOT / path).read_text()
    assert function == "*" or f"def {function}(" in text


def test_python_objects_are_unpickled_nowhere() -> None:
    bad = (
        "pickle.",
        "marshal.",
        "torch.load",
        "shelve.",
        "ast.literal_eval",
        "yaml.load",
        "np.load",
        "plistlib.",
    )
    assert not [place for place in places() if place.partition(": ")[2].startswith(bad)]
