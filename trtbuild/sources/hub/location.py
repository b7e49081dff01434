"""hf://org/name, /file.gguf and @revision: what a source on the Hub says, taken apart."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from trtbuild.errors import InputError
from trtbuild.sources.base import FORMS, Request
from trtbuild.sources.hub.commit import is_name

_HUB = "https://huggingface.co"
# As the Hub names them: no "--" and no "..", as folders are named after them.
PART = r"[A-Za-z0-9](?:(?:(?!--|\.\.)[A-Za-z0-9._-])*[A-Za-z0-9])?"
_FORM = re.compile(rf"hf://(?P<repo>{PART}/{PART})(?:/(?P<file>[^@]+))?(?:@(?P<revision>.+))?")


@dataclass(frozen=True)
class Location:
    """A repository; one of its files, or None; and a branch, tag or commit, or None for the default branch."""

    repo: str
    file: str | None
    revision: str | None
    kind: str = "model"  # or dataset: of the Hub's repositories

    @property
    def commit(self) -> str | None:
        """The revision when it is a whole commit id, which names the same bytes for ever."""
        whole = self.revision is not None and re.fullmatch(r"[0-9a-f]{40}", self.revision)
        return self.revision if whole else None

    def at(self, commit: str) -> str:
        """The source that always gives these bytes."""
        kind = "datasets/" if self.kind == "dataset" else ""
        return f"hf://{kind}{self.repo}{f'/{self.file}' if self.file else ''}@{commit}"


def memory(kind: str) -> Path:
    """Where it is remembered what the endpoint said of repositories: each apart, as one may lie."""
    kept = Path(constants.HF_HOME) / "trtbuild"
    if constants.ENDPOINT != _HUB:
        kept /= f"at-{hashlib.sha256(constants.ENDPOINT.encode()).hexdigest()[:16]}"
    return kept if kind == "model" else kept / f"{kind}s"


def parse(request: Request) -> Location:
    """Raises InputError for another form, and for two different revisions."""
    match = _FORM.fullmatch(request.source.rstrip("/"))
    if match is None:
        raise InputError(f"{request.source} is not hf://org/name", option=request.option, hint=FORMS)
    file, revision = match["file"], match["revision"]
    if revision is not None and revision.endswith(".gguf"):
        raise InputError(
            f"{request.source} has its file behind the revision",
            option=request.option,
            hint="write hf://org/name/file.gguf@revision",
        )
    if file is not None and (not file.endswith(".gguf") or not is_name(file)):
        raise InputError(
            f"{file} is not the name of a .gguf file of the repository",
            option=request.option,
            hint=f"leave it out (hf://{match['repo']}) to build from safetensors",
        )
    if revision is not None and request.revision not in (None, revision):
        raise InputError(
            f"{request.source} names the revision {revision}, and model.revision another",
            option=f"model.revision={request.revision}",
            hint="say it once",
        )
    return Location(match["repo"], file, revision or request.revision)
