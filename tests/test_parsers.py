"""Every place that parses bytes which this process did not write: whose they are, and what tries them with others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = sorted([*(ROOT / "trtbuild").rglob("*.py"), *(ROOT / "store" / "trtstore").rglob("*.py")])

#: The calls that parse, by the end of their dotted name: of a module, or of anything.
CALLS = {
    *(
        "json.load",
        "json.loads",
        "tomllib.load",
        "tomllib.loads",
        "pickle.load",
        "pickle.loads",
        "marshal.loads",
    ),
    *("struct.unpack", "struct.unpack_from", "struct.iter_unpack", "ast.literal_eval", "plistlib.load"),
    *(
        "zipfile.ZipFile",
        "ZipFile",
        "tarfile.open",
        "TarFile",
        "shutil.unpack_archive",
        "gzip.open",
        "lzma.open",
    ),
    *("csv.reader", "csv.DictReader", "configparser.ConfigParser", "shelve.open", "email.message_from_bytes"),
    *("base64.b64decode", "base64.urlsafe_b64decode", "binascii.unhexlify"),
    *("sqlite3.connect", "diskcache.Cache", "OmegaConf.load", "OmegaConf.create"),
    *("np.load", "np.fromfile", "np.frombuffer", "np.memmap", "np.loadtxt", "torch.load", "torch.frombuffer"),
    *("load_model", "onnx.load", "onnx.load_model", "load_external_data_for_model", "ParseFromString"),
    *("safe_open", "load_file", "GGUFReader", "Tokenizer.from_str", "Tokenizer.from_file", "ParquetFile"),
    *(
        "load_pem_private_key",
        "aoti_load_package",
        "deserialize_cuda_engine",
        "ET.parse",
        "ElementTree.parse",
    ),
    *("datetime.fromtimestamp", "datetime.fromisoformat", "datetime.strptime", "strptime", "fromisoformat"),
    *("strictjson.parse", "strictjson.parse_canonical", "yaml.parse", "yaml.load", "yaml.safe_load"),
    *("foreign.parse", "foreign.parse_object", "foreign.json_object", "foreign.read_object"),
}


def places() -> Iterator[str]:
    """`module.function: call` of each call that parses."""
    for path in CODE:
        base = ROOT / "store" if "trtstore" in path.parts else ROOT
        module = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
        yield from (f"{module}{where}: {call}" for where, call in _calls(ast.parse(path.read_text()), ""))


def _calls(node: ast.AST, where: str) -> Iterator[tuple[str, str]]:
    for inner in ast.iter_child_nodes(node):
        named = isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from _calls(inner, f"{where}.{inner.name}" if named else where)
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        for call in CALLS:
            if called == call or called.endswith(f".{call}"):
                yield where, call
                break
