"""A checkpoint on the Hugging Face Hub, through its own client: its cache, its token, its endpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from huggingface_hub import constants, hf_hub_url

from trtbuild.errors import InputError
from trtbuild.formats import gguf, safetensors
from trtbuild.formats.gguf import GgufHeader
from trtbuild.formats.weight_file import HeaderReader, TensorInfo, read_file
from trtbuild.sources import refusals, select
from trtbuild.sources.base import Headers, Json, Progress, Request, SourceFile, parse_config
from trtbuild.sources.file_snapshot import recheck
from trtbuild.sources.hub import (
    guard,
    ranges,
)
from trtbuild.sources.hub import (
    headers as hub_headers,
)
from trtbuild.sources.hub import (
    listing as hub_listing,
)
from trtbuild.sources.hub import (
    location as hub_location,
)
from trtbuild.sources.hub.commit import Commit, HubFile, latest, recall, remember
from trtbuild.sources.hub.copies import Copies
from trtbuild.sources.hub.errors import FAILURES, explain
from trtbuild.sources.hub.guard import Unsound
from trtbuild.sources.hub.location import Location
from trtbuild.sources.refusals import FileListing
from trtstore import ignore_bytes, in_threads

_SMALL = 256 << 20  # bytes of a file that a plan reads: no tokenizer has a fifth of that
_WEIGHTS = (".safetensors", ".gguf")
_HEAD = 64 << 20  # bytes of one header, for some hundred thousand tensors
_HEADS = 256 << 20  # of the headers of all weight files
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
        #: by name in the repository: the first bytes of files that are not here
        self._heads: dict[str, bytes] = {}
        #: by name in the repository: what plans were told of the tensors in a file, before it was here
        self._told: dict[str, Mapping[str, TensorInfo]] = {}
        guard.install()

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
        return None if first is None else self._parsed(gguf.read_architecture, first)

    def gguf_header(self) -> GgufHeader | None:
        return gguf.joined(list(self._gguf_headers.values()))

    def gguf_metadata(self) -> Mapping[str, Json] | None:
        first = next((real for name, real in self._chosen.items() if name.endswith(".gguf")), None)
        return None if first is None else self._parsed(gguf.read_metadata, first)

    def headers(self) -> Headers | None:
        if self._gguf_headers:
            return Headers({name: header.tensors for name, header in self._gguf_headers.items()}, None)
        shards = {name: real for name, real in self._chosen.items() if name.endswith(".safetensors")}
        index = select.weight_map(self._read(select.INDEX)) if select.INDEX in self._chosen else None
        known = hub_headers.recall(self._memory, self._commit, shards.values())
        if known is None:
            try:
                known = self._shard_headers(list(shards.values()))
            except Unsound as wrong:
                raise self._explained(wrong) from None
            except FAILURES:
                return None  # no answer: the weights are examined once they are here
            hub_headers.remember(self._memory, self._commit, known)
        self._told |= known
        return Headers({name: known[real] for name, real in shards.items()}, index)

    def _shard_headers(self, names: list[str]) -> dict[str, Mapping[str, TensorInfo]]:
        read: list[Mapping[str, TensorInfo]] = in_threads(
            lambda name, _on_bytes: self._parsed(safetensors.read_header, name, self._first),
            names,
            ignore_bytes,
        )
        return dict(zip(names, read, strict=True))

    @cached_property
    def _gguf_headers(self) -> dict[str, GgufHeader]:
        parts = {name: real for name, real in self._chosen.items() if name.endswith(".gguf")}
        return {name: self._parsed(gguf.read_header, real) for name, real in parts.items()}

    def _parsed(self, reader: HeaderReader[_T], name: str, first: Callable[[HubFile, int], bytes] | None = None) -> _T:
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
        self._copies.verify(real.values(), None)
        return {name: self._copies.seen[there].path.read_bytes() for name, there in real.items()}

    def fetch(self, keep: Path, progress: Progress) -> Mapping[str, Path]:  # noqa: ARG002  # the Hub's cache keeps them
        self.recheck()  # what was here for the plan already
        self._copies.verify(self._chosen.values(), progress)
        for real in self._chosen.values():
            self._check_told(real)
        return {name: self._copies.seen[real].path for name, real in self._chosen.items()}

    def _check_told(self, name: str) -> None:
        """Raises InputError where the plan was told of other weights than those that are here now."""
        head, told, path = self._heads.get(name, b""), self._told.get(name), self._copies.seen[name].path
        with path.open("rb") as stream:
            same = stream.read(len(head)) == head
        if same and told is not None:
            here = read_file(safetensors.read_header, path, str(path), self._option)
            same = _outline(here) == _outline(told)
        if not same:
            hub_headers.forget(self._memory, self._commit)
            raise InputError(
                f"{name} of {self.describe()} begins otherwise than {constants.ENDPOINT} said for the plan",
                option=self._option,
                hint="run the command again: the plan is made from the file itself, which is here now",
            )

    def recheck(self) -> None:
        recheck(self._copies.seen.values(), self._digester, self._option)

    @property
    def _memory(self) -> Path:
        return hub_location.memory(self._location.kind)

    @cached_property
    def _copies(self) -> Copies:
        return Copies(self._location, self._commit, self._option, self._digester, self._try)

    @cached_property
    def _commit(self) -> Commit:
        wanted = self._location.commit
        known = recall(self._memory, self._location.repo, wanted) if wanted else None
        if known is not None:
            return known
        commit = self._try(lambda: hub_listing.ask(self._location))
        remember(self._memory, commit)
        return commit

    @cached_property
    def _chosen(self) -> dict[str, str]:
        """Logical name -> name in the repository, sorted by logical name."""
        location = self._location
        names = {file.name for file in self._commit.files}
        listing = FileListing(
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
        refusals.check_cases(listing, names, chosen.values())
        for name in chosen.values():
            if not name.endswith(_WEIGHTS):
                self._check_small(name)
        return dict(sorted(chosen.items()))

    def _tokenizer(self, listing: FileListing, chosen: Mapping[str, str]) -> dict[str, str]:
        """What lies beside a GGUF, and is read because its own tokenizer is not understood."""
        first = min(chosen)
        if self._understood is None or not first.endswith(".gguf"):
            return {}
        beside = select.beside_gguf(listing, chosen)
        if not beside or self._understood(self._parsed(gguf.read_header, chosen[first]).metadata):
            return {}
        return beside

    @cached_property
    def _files(self) -> dict[str, SourceFile]:
        files = {real: self._commit.file(real) for real in self._chosen.values()}
        # Stored in git itself, which knows no sha256: the bytes are needed, weights included.
        self._copies.verify([name for name, file in files.items() if file.sha256 is None], None)
        return {
            name: SourceFile(name, files[real].size, files[real].sha256 or self._copies.seen[real].sha256)
            for name, real in self._chosen.items()
        }

    def _read(self, name: str) -> bytes:
        self._check_small(name)
        self._copies.verify([name], None)
        text = self._copies.seen[name].path.read_bytes()
        refusals.check_pointer(text, f"{self._location.repo}/{name}", self._option)
        return text

    def _head(self, file: HubFile, count: int) -> bytes:
        """As `_first`. Raises InputError if the Hub does not answer."""
        return self._try(lambda: self._first(file, count))

    def _first(self, file: HubFile, count: int) -> bytes:
        """The first `count` bytes, from the cache or by a ranged request. Raises one of FAILURES."""
        head = self._heads.get(file.name, b"")
        if count > _HEAD:
            raise Unsound(f"the header of {refusals.plain(file.name)} has {count} bytes")
        if len(head) < min(count, file.size):
            cached = self._copies.here(file)
            if cached is not None:
                with cached.open("rb") as stream:
                    head = stream.read(count)
            else:
                url = hf_hub_url(self._location.repo, file.name, revision=self._commit.sha)
                head = ranges.more(url, head, count, file.size)
            if sum(map(len, self._heads.values())) + len(head) > _HEADS:
                raise Unsound(f"the headers of its weights have more than {_HEADS >> 20} MiB")
            self._heads[file.name] = head
        return head[:count]

    def _check_small(self, name: str) -> None:
        """Raises InputError for a file that a plan reads and that is as large as weights are."""
        if (size := self._commit.file(name).size) > _SMALL:
            raise InputError(
                f"{name} of {self._location.repo} has {size} bytes, and {_SMALL >> 20} MiB are the most that a "
                "plan reads",
                option=self._option,
                hint="take the checkpoint from its author again",
            )

    def _try(self, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except FAILURES as failure:
            raise self._explained(failure) from None

    def _explained(self, failure: Exception) -> InputError:
        return explain(failure, self._location, self._option, latest(self._memory, self._location.repo))


def _outline(tensors: Mapping[str, TensorInfo]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (entry.kind, tuple(entry.shape)) for name, entry in tensors.items()}
