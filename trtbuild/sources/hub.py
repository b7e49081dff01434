"""A checkpoint on the Hugging Face Hub, through its own client: its cache, its token, its endpoint.

The client compares sizes and no digests (its own storage, Xet, aside), so every file is checked here: large
ones against the sha256 that the commit states, small ones against git's blob id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from huggingface_hub import (
    HfApi,
    constants,
    get_session,
    hf_hub_download,
    hf_hub_url,
    hf_raise_for_status,
    try_to_load_from_cache,
)
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but not in its __all__

from trtbuild.errors import InputError
from trtbuild.sources import gguf_header, hub_headers, hub_location, refusals, safetensors_header, select
from trtbuild.sources.base import Headers, Json, Progress, Request, SourceFile, parse_config
from trtbuild.sources.gguf_header import Header, Reader
from trtbuild.sources.hub_commit import Commit, HubFile, checked, latest, recall, remember
from trtbuild.sources.hub_errors import FAILURES, explain
from trtbuild.sources.hub_location import Location
from trtbuild.sources.hub_progress import bar_class
from trtbuild.sources.refusals import Listing
from trtbuild.sources.sighting import Sighting, recheck, see
from trtbuild.tensor_header import Entry
from trtstore.digest import OnBytes, ignore_bytes, in_threads

_TIMEOUT = 30.0  # seconds without an answer
_PARTIAL = 206  # the status of an answer that is just the range
_T = TypeVar("_T")


def open_source(request: Request) -> HubSource:
    """Raises InputError for a malformed location; touches no network."""
    return HubSource(request, hub_location.parse(request))


class HubSource:
    """One repository at one commit, which is looked up once."""

    in_place = False

    def __init__(self, request: Request, location: Location) -> None:
        self._option = request.option
        self._digester = request.digester
        self._understood = request.understood
        self._location = location
        #: by name in the repository: files that are here and whose bytes were checked
        self._seen: dict[str, Sighting] = {}
        #: by name in the repository: the first bytes of files that are not here
        self._heads: dict[str, bytes] = {}

    def describe(self) -> str:
        return self._location.at(self._commit.sha)

    def files(self) -> tuple[SourceFile, ...]:
        return tuple(self._files.values())

    def config(self) -> Mapping[str, Json] | None:
        if select.CONFIG not in self._chosen:
            return None
        return parse_config(self._read(select.CONFIG), f"{self.describe()}: {select.CONFIG}", self._option)

    def gguf_architecture(self) -> str | None:
        first = next((real for name, real in self._chosen.items() if name.endswith(".gguf")), None)
        return None if first is None else self._parsed(gguf_header.read_architecture, first)

    def gguf_header(self) -> Header | None:
        return gguf_header.joined(list(self._gguf_headers.values()))

    def gguf_metadata(self) -> Mapping[str, Json] | None:
        first = next((real for name, real in self._chosen.items() if name.endswith(".gguf")), None)
        return None if first is None else self._parsed(gguf_header.read_metadata, first)

    def headers(self) -> Headers | None:
        if self._gguf_headers:
            return Headers({name: each.entries for name, each in self._gguf_headers.items()}, None)
        shards = {name: real for name, real in self._chosen.items() if name.endswith(".safetensors")}
        index = select.weight_map(self._read(select.INDEX)) if select.INDEX in self._chosen else None
        known = hub_headers.recall(self._memory, self._commit, shards.values())
        if known is None:
            try:
                known = self._shard_headers(list(shards.values()))
            except FAILURES:
                return None  # nobody answers: what the weights are is found out once they are here
            hub_headers.remember(self._memory, self._commit, known)
        return Headers({name: known[real] for name, real in shards.items()}, index)

    def _shard_headers(self, names: list[str]) -> dict[str, Mapping[str, Entry]]:
        read: list[Mapping[str, Entry]] = in_threads(
            lambda name, _on_bytes: self._parsed(safetensors_header.read_header, name, self._first),
            names,
            ignore_bytes,
        )
        return dict(zip(names, read, strict=True))

    @cached_property
    def _gguf_headers(self) -> dict[str, Header]:
        parts = {name: real for name, real in self._chosen.items() if name.endswith(".gguf")}
        return {name: self._parsed(gguf_header.read_header, real) for name, real in parts.items()}

    def _parsed(
        self, reader: Reader[_T], name: str, first: Callable[[HubFile, int], bytes] | None = None
    ) -> _T:
        """What `reader` makes of the first bytes of the file `name` of the repository, which `first` gives."""
        file = self._commit.file(name)
        where = f"{self._location.repo}/{name}"

        def read(count: int) -> bytes:
            head = (first or self._head)(file, count)
            refusals.check_pointer(head, where, self._option)
            return head

        return reader(read, file.size, where, self._option)

    def small(self, names: Collection[str]) -> Mapping[str, bytes]:
        real = {name: there for name, there in self._chosen.items() if name in names}
        self._verify(real.values(), None)
        return {name: self._seen[there].path.read_bytes() for name, there in real.items()}

    def fetch(self, keep: Path, progress: Progress) -> Mapping[str, Path]:  # noqa: ARG002  # the Hub's cache keeps them
        self.recheck()  # what was here for the plan already
        self._verify(self._chosen.values(), progress)
        return {name: self._seen[real].path for name, real in self._chosen.items()}

    def recheck(self) -> None:
        recheck(self._seen.values(), self._digester, self._option)

    @property
    def _memory(self) -> Path:
        kept = Path(constants.HF_HOME) / "trtbuild"
        return kept if self._location.kind == "model" else kept / f"{self._location.kind}s"

    @cached_property
    def _commit(self) -> Commit:
        wanted = self._location.commit
        known = recall(self._memory, self._location.repo, wanted) if wanted else None
        if known is not None:
            return known
        commit = self._try(self._look_up)
        remember(self._memory, commit)
        return commit

    def _look_up(self) -> Commit:
        location = self._location
        try:
            look = HfApi().model_info if location.kind == "model" else HfApi().dataset_info
            info = look(location.repo, revision=location.revision, files_metadata=True, timeout=_TIMEOUT)
            if location.commit not in (None, info.sha):
                raise ValueError("another commit in the answer")
            return checked(location.repo, info.sha or "", map(_row, info.siblings or ()))
        except (KeyError, TypeError) as failure:  # JSON, but another service's
            raise ValueError("no model in the answer") from failure

    @cached_property
    def _chosen(self) -> dict[str, str]:
        """Logical name -> name in the repository, sorted by logical name."""
        location = self._location
        names = {file.name for file in self._commit.files}
        listing = Listing(
            # Files of the repository's top only; one further down can be named.
            names={name for name in names if "/" not in name or select.is_template(name)}
            if location.file is None
            else names,
            where=location.repo,
            option=self._option,
            naming=f"model.source=hf://{location.repo}/<file>.gguf@{location.revision or 'main'}",
            below=lambda: {name for name in names if "/" in name},
        )
        if location.file is None:
            chosen = select.choose(listing, self._read)
        elif location.file in names:
            chosen = select.choose_gguf(listing, location.file)
        else:
            there = [name for name in sorted(names) if name.endswith(".gguf")]
            raise InputError(
                f"{location.repo} has no file {location.file}",
                option=self._option,
                hint=f"it has: {', '.join(there[:8])}" if there else "it has no .gguf file",
            )
        chosen |= self._tokenizer(listing, chosen)
        return dict(sorted(chosen.items()))

    def _tokenizer(self, listing: Listing, chosen: Mapping[str, str]) -> dict[str, str]:
        """What lies beside a GGUF, and is read because its own tokenizer is not understood."""
        first = min(chosen)
        if self._understood is None or not first.endswith(".gguf"):
            return {}
        beside = select.beside_gguf(listing, chosen)
        if not beside or self._understood(self._parsed(gguf_header.read_header, chosen[first]).metadata):
            return {}
        return beside

    @cached_property
    def _files(self) -> dict[str, SourceFile]:
        files = {real: self._commit.file(real) for real in self._chosen.values()}
        # Stored in git itself, which knows no sha256: the bytes are needed, weights included.
        self._verify([name for name, file in files.items() if file.sha256 is None], None)
        return {
            name: SourceFile(name, files[real].size, files[real].sha256 or self._seen[real].sha256)
            for name, real in self._chosen.items()
        }

    def _read(self, name: str) -> bytes:
        self._verify([name], None)
        text = self._seen[name].path.read_bytes()
        refusals.check_pointer(text, f"{self._location.repo}/{name}", self._option)
        return text

    def _head(self, file: HubFile, count: int) -> bytes:
        """As `_first`. Raises InputError when nobody answers."""
        return self._try(lambda: self._first(file, count))

    def _first(self, file: HubFile, count: int) -> bytes:
        """The first `count` bytes, from the cache or by a ranged request. Raises one of FAILURES."""
        cached = try_to_load_from_cache(self._location.repo, file.name, revision=self._commit.sha)
        if isinstance(cached, str):
            with Path(cached).open("rb") as stream:
                return stream.read(count)
        head = self._heads.get(file.name, b"")
        if len(head) < min(count, file.size):
            head = self._heads[file.name] = self._request_head(file, head, count)
        return head[:count]

    def _request_head(self, file: HubFile, head: bytes, count: int) -> bytes:
        """`head`, the first bytes that are known, and more up to `count` bytes."""
        url = hf_hub_url(self._location.repo, file.name, revision=self._commit.sha)
        wanted = f"bytes={len(head)}-{count - 1}"
        headers = {**build_hf_headers(), "Range": wanted, "Accept-Encoding": "identity"}
        with get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT) as response:
            hf_raise_for_status(response)
            # A server may ignore the range: then it begins at the start, and reading stops all the same.
            found = bytearray(head if response.status_code == _PARTIAL else b"")
            for piece in response.iter_bytes():
                found += piece
                if len(found) >= count:
                    break
        return bytes(found[:count])

    def _verify(self, names: Iterable[str], progress: Progress | None) -> None:
        """Have the files here and their bytes checked; a wrong copy is fetched once more, then an error."""
        files = [self._commit.file(name) for name in names if name not in self._seen]
        for attempt in range(2):
            seen = see(self._download_all(files, progress), self._digester, self._option)
            compared = in_threads(_compare, list(zip(files, seen, strict=True)), ignore_bytes)
            wrong = []
            for file, sighting, (wanted, found) in zip(files, seen, compared, strict=True):
                if wanted == found:
                    self._seen[file.name] = sighting
                    continue
                _discard(sighting.path)
                wrong.append(file)
                if attempt:
                    raise self._differs(file.name, wanted, found)
            files = wrong

    def _download_all(self, files: Sequence[HubFile], progress: Progress | None) -> list[Path]:
        if progress is not None:  # one after the other: a large file fills the line, and has a bar of its own
            return [self._download(file, progress) for file in files]
        # Those of a plan are small: what they take is a few round trips each.
        return in_threads(
            lambda file, on_bytes: self._download(file, lambda _what, _done, _total: on_bytes(0)),
            files,
            ignore_bytes,
        )

    def _download(self, file: HubFile, progress: Progress) -> Path:
        def call() -> str:
            bar = bar_class(file.name, file.size, progress)
            return hf_hub_download(
                self._location.repo,
                file.name,
                repo_type=self._location.kind,
                revision=self._commit.sha,
                tqdm_class=bar,
            )

        path = Path(self._try(call))
        progress(file.name, file.size, file.size)
        return path

    def _differs(self, name: str, wanted: str, found: str) -> InputError:
        return InputError(
            f"{name} of {self.describe()} was downloaded with other bytes: "
            f"{wanted} is published, {found} came",
            option=self._option,
            hint=f"the wrong copy was removed; a proxy or the mirror {constants.ENDPOINT} (HF_ENDPOINT) "
            "may alter downloads: try another",
        )

    def _try(self, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except FAILURES as failure:
            known = latest(self._memory, self._location.repo)
            raise explain(failure, self._location, self._option, known) from None


def _row(sibling: RepoSibling) -> dict[str, Json]:
    """One file of the Hub's listing; git's id is of the file itself only where the Hub keeps it in git."""
    large = sibling.lfs
    return {
        "name": sibling.rfilename,
        "size": large.size if large else sibling.size,
        "sha256": large.sha256 if large else None,
        "blob_id": None if large else sibling.blob_id,
    }


def _compare(file: tuple[HubFile, Sighting], on_bytes: OnBytes) -> tuple[str, str]:
    """What identifies the file's bytes, as the commit states it and as it is."""
    stated, seen = file
    if stated.sha256 is not None:
        return f"sha256 {stated.sha256}", f"sha256 {seen.sha256}"
    if stated.blob_id is None:  # a mirror that gives none
        return f"{stated.size} bytes", f"{seen.size} bytes"
    return f"git blob {stated.blob_id}", f"git blob {_blob_id(seen, on_bytes)}"


def _blob_id(file: Sighting, on_bytes: OnBytes) -> str:
    """Git's name of a file's bytes: sha1 over "blob <size>\\0" and them."""
    hasher = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with file.path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            hasher.update(piece)
            on_bytes(len(piece))
    return hasher.hexdigest()


def _discard(path: Path) -> None:
    """Remove a file of the cache and every link on the way to it: the client takes what is there."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)
