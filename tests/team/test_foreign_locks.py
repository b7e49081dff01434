"""A lock that comes with a record: what it installs runs only where it ships, is signed, or was allowed by hand."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import rfc8785

from tests.support.cli import Done, Project
from tests.team.support import Place, machine, writer
from trtbuild.errors import InputError
from trtbuild.facts.key import LOCK
from trtbuild.toolchains import builtin, lock
from trtbuild.toolchains.lock import Lock
from trtstore import Store
from trtstore.team import trust_list

FOREIGN = f"evilpkg==1.0 --hash=sha256:{'e' * 64}\n"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> tuple[Store, str]:
    """A store that has the network of a tiny model, and its key."""
    project = Project(tmp_path_factory.mktemp("theirs"))
    done = project.trtbuild(f"model.source={tiny_llama}", "until=network", "output=json", "store.team=")
    assert done.code == 0, done.err
    return Store.open(project.store), done.json["key"]


class Index:
    """A package index that has nothing, and remembers who asked."""

    def __init__(self) -> None:
        asked = self.asked = []  # type: list[str]

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/simple"


@pytest.fixture
def index() -> Iterator[Index]:
    made = Index()
    yield made
    made.server.shutdown()
    made.server.server_close()


def with_lock(network: tuple[Store, str], store: Store, text: str) -> tuple[str, Lock]:
    """The network's artifact in `store`, under the key that it has with the lock `text`, which is attached."""
    theirs, old = network
    record = theirs.lookup(old)
    assert record is not None
    found = lock.parse(text, "test", "test", "the test's lock")
    predicate = json.loads(json.dumps(record.predicate))
    fields = predicate["buildDefinition"]["externalParameters"]
    fields[LOCK] = found.digest
    key = hashlib.sha256(rfc8785.dumps(fields)).hexdigest()
    with store.scratch() as work:
        shutil.copytree(theirs.materialise(record).path, work / "out", copy_function=shutil.copyfile)
        (work / "lock").write_text(text)
        store.publish(
            key,
            work / "out",
            predicate_type=record.predicate_type,
            predicate=predicate,
            labels=record.labels,
            attachments={"toolchain-network": work / "lock"},
        )
    return key, found


def its_lock(network: tuple[Store, str]) -> str:
    """The text of the lock that the network was made with."""
    record = network[0].lookup(network[1])
    assert record is not None
    found = builtin.of_digest(record.predicate["buildDefinition"]["externalParameters"][LOCK])
    assert found is not None
    return found.text


def rebuild(project: Project, key: str, model: Path, index: Index, *words: str, **env: str) -> Done:
    """Nothing of PyPI is asked: the user's own index is one that has nothing, either."""
    environment = {
        "PIP_INDEX_URL": f"{index.url}/own",
        "PIP_NO_CACHE_DIR": "1",
        "UV_INDEX_URL": f"{index.url}/own",
    }
    return project.trtbuild(
        "rebuild", key, f"model.source={model}", "executor.name=managed", *words, env={**environment, **env}
    )


def test_a_foreign_lock_is_refused_by_the_names_of_its_packages(
    network: tuple[Store, str], tmp_path: Path, tiny_llama: Path, index: Index
) -> None:
    project = Project(tmp_path)
    text = f"--extra-index-url {index.url}\n" + its_lock(network) + FOREIGN
    key, found = with_lock(network, Store.open(project.store), text)
    done = rebuild(project, key, tiny_llama, index)
    assert done.code == 2
    assert "with packages that no shipped toolchain has: evilpkg 1.0" in done.err
    assert f"executor.allow_lock=[{found.digest}]" in done.err
    assert (index.asked, "Traceback" in done.err) == ([], False)
    assert not (project.store / "v1" / "local").exists(), "nothing is installed"
    # Another lock is not what was allowed.
    assert rebuild(project, key, tiny_llama, index, f"executor.allow_lock=[{'0' * 64}]").code == 2


def test_an_index_that_a_record_names_is_never_asked(
    network: tuple[Store, str], tmp_path: Path, tiny_llama: Path, index: Index
) -> None:
    project = Project(tmp_path)
    text = f"--extra-index-url {index.url}/theirs\n" + its_lock(network) + FOREIGN
    key, found = with_lock(network, Store.open(project.store), text)
    done = rebuild(project, key, tiny_llama, index, f"executor.allow_lock=[{found.digest}]")
    assert (done.code, "could not install the toolchain" in done.err) == (2, True), done.err
    assert index.asked, "the user's own index is asked"
    assert not [path for path in index.asked if "theirs" in path]


def test_a_file_of_the_user_s_own_is_allowed(
    network: tuple[Store, str], tmp_path: Path, tiny_llama: Path, index: Index
) -> None:
    project = Project(tmp_path)
    (tmp_path / "own.txt").write_text(its_lock(network) + FOREIGN)
    key, _ = with_lock(network, Store.open(project.store), its_lock(network) + FOREIGN)
    done = rebuild(project, key, tiny_llama, index, "executor.allow_lock=[own.txt]")
    assert "could not install the toolchain" in done.err


def test_packages_that_ship_need_no_word(
    network: tuple[Store, str], tmp_path: Path, tiny_llama: Path, index: Index
) -> None:
    """A lock of some of a shipped toolchain's packages, with the same hashes, as another release may have."""
    project = Project(tmp_path)
    lines = its_lock(network).splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if "==" in line)
    second = next(number for number, line in enumerate(lines) if "==" in line and number > first)
    fewer = [line for line in (*lines[:first], *lines[second:]) if not line.startswith("# chosen")]
    key, found = with_lock(network, Store.open(project.store), "".join(fewer))
    assert builtin.of_digest(found.digest) is None
    assert "could not install the toolchain" in rebuild(project, key, tiny_llama, index).err


@pytest.mark.parametrize(("scope", "installs"), [("", True), ("model=other", False)])
def test_a_trusted_signature_allows_it_within_its_scope(
    network: tuple[Store, str],
    tmp_path: Path,
    tiny_llama: Path,
    index: Index,
    shared_folder: Place,
    scope: str,
    installs: bool,
) -> None:
    signer = writer()
    theirs = machine(tmp_path / "ci", shared_folder, f"{signer.public} name=ci")
    key, _ = with_lock(network, theirs.store, its_lock(network) + FOREIGN)
    theirs.team().push(theirs.store, key, signer)
    project = Project(tmp_path)
    mine = machine(project.store, shared_folder, f"{signer.public} name=ci")
    assert mine.pull(key) is not None
    done = rebuild(
        project,
        key,
        tiny_llama,
        index,
        f"store.trusted=['{signer.public} name=ci {scope}']",
        **{trust_list.FOLDER: str(tmp_path / "nobody")},
    )
    assert ("could not install the toolchain" in done.err) == installs, done.err
    assert ("that no shipped toolchain has: evilpkg 1.0" in done.err) != installs


def test_a_rebuild_takes_no_upstream_step_from_the_team(
    network: tuple[Store, str], tmp_path: Path, tiny_llama: Path, shared_folder: Place
) -> None:
    """The record alone says whose its upstream steps are: its word must not choose the keys that count for them."""
    theirs, key = network
    signer = writer()
    ci = machine(tmp_path / "ci", shared_folder, f"{signer.public} name=ci")
    record = theirs.lookup(key)
    assert record is not None
    ci.store.receive(key, theirs.envelope(key), theirs)
    ci.team().push(ci.store, key, signer)
    project = Project(tmp_path)
    built = project.trtbuild(f"model.source={tiny_llama}", "output=json")
    engine = built.json["key"]
    next(path for path in project.records() if path.name == key).unlink()
    done = project.trtbuild(
        "rebuild",
        engine,
        f"model.source={tiny_llama}",
        f"store.team={shared_folder.url}",
        f"store.trusted=['{signer.public} name=ci']",
    )
    assert done.code == 0, done.err
    assert "network  rebuilt" in done.err
    assert [path.name for path in project.records()] == [engine]


@pytest.mark.parametrize(
    "line",
    [
        "-r other.txt",
        "--requirement=other.txt",
        "-c constraints.txt",
        "-e .",
        "--trusted-host example.org",
        "--index-url=http://h/ --trusted-host h",
        f"evil @ https://example.org/evil-1.0-py3-none-any.whl --hash=sha256:{'e' * 64}",
        f"evil==1.0 --hash=sha256:{'e' * 64} --index-url=http://h/",
        f"evil==1.0 --hash=sha256:{'e' * 64} \\\n  --index-url http://h/",
        f"evil==1.0 --hash=md5:{'e' * 32}",
        "evil==1.0",
        f"evil==1.* --hash=sha256:{'e' * 64}",
        f"./evil-1.0-py3-none-any.whl --hash=sha256:{'e' * 64}",
        f"""evil==1.0 ; os_name != "a --hash=sha256:{"f" * 64}" --hash=sha256:{"e" * 64}""",
        "# title: ../../outside",
        "# title: \x1b[2J",
    ],
)
def test_a_lock_says_nothing_but_packages_by_hash(line: str) -> None:
    good = f"good==1.0 --hash=sha256:{'a' * 64}\n"
    with pytest.raises(InputError):
        lock.parse(f"{good}{line}\n", "rebuild", "x", "a record")
