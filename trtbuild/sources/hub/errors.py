"""Every way in which the Hub can refuse, as one sentence and what to do about it; no token, no URL's query."""

from __future__ import annotations

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from trtbuild.errors import InputError
from trtbuild.redact import redact_urls
from trtbuild.sources.hub.guard import HTTP, Unsound
from trtbuild.sources.hub.location import Location
from trtbuild.sources.hub.pace import Stalled

# The base of the client's own network errors is httpx's in its 1.x and httpx2's in its 2.x.
_NetworkError: type[Exception] = HfHubHTTPError.__bases__[0]

#: By kind of repository: the option that names it, the one that chooses its revision, and the word for a copy.
_NAMED = {"model": "model.source", "dataset": "compiler.calib_dataset"}
_REVISED = {"model": "model.revision", "dataset": "what follows the @"}
_COPY = {"model": "checkpoint", "dataset": "text"}
#: What a call of the client may raise: ValueError when an answer is no JSON, or a file needs hf_xet; RuntimeError by
#: hf_xet; OverflowError when it is told to wait for longer than a clock counts.
FAILURES: tuple[type[Exception], ...] = (
    _NetworkError,
    OSError,
    EntryNotFoundError,
    ValueError,
    RuntimeError,
    OverflowError,
    HTTP.InvalidURL,
)

_TOKEN = "set HF_TOKEN to a token of an account that may read it (https://huggingface.co/settings/tokens)"  # noqa: S105  # words


def explain(error: Exception, location: Location, option: str, known: str | None) -> InputError:
    """`error`, met while reading `location`, in the user's words; `known` is a commit that works offline, or None."""
    cause = error.__cause__
    # The client's "not in the cache either", and its "could not be fetched again".
    if isinstance(error, (LocalEntryNotFoundError, ValueError)) and isinstance(cause, FAILURES):
        return explain(cause, location, option, known)
    message, hint = (
        _answered(error, location) if isinstance(error, HfHubHTTPError) else _unanswered(error, location, known)
    )
    # HF_ENDPOINT may hold a password, as any URL may.
    return InputError(redact_urls(message), option=option, hint=redact_urls(hint))


def _answered(error: HfHubHTTPError, location: Location) -> tuple[str, str]:
    """What the Hub said, by the client's class or else by the status."""
    repo = location.repo
    page = f"{constants.ENDPOINT}/{'datasets/' if location.kind == 'dataset' else ''}{repo}"
    if isinstance(error, GatedRepoError):
        return f"{repo} is gated, and its licence was not accepted", (
            f"accept the licence at {page}, then set HF_TOKEN to a token of that account"
        )
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no repository {repo} on {constants.ENDPOINT}, or it is private", (
            f"check the name; if it is private, {_TOKEN}"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision {location.revision}", (
            f"{_REVISED[location.kind]} takes a branch, a tag or a commit of 40 hex digits: {page}/commits/main"
        )
    if isinstance(error, DisabledRepoError):
        return f"{repo} was disabled on the Hub", "take another copy of the model"
    if isinstance(error, EntryNotFoundError):
        return f"{repo} lists a file that it does not have", "try again, or name another revision"
    status = error.response.status_code
    if status == 401:
        return f"the Hub does not know the token that was sent for {repo}", (
            "HF_TOKEN (or the token that `hf auth login` saved) is wrong or has expired: set a new one, or none"
        )
    if status == 403:
        return f"the token that was sent may not read {repo}", _TOKEN
    if status == 429:
        return "the Hub refuses further requests for now (429, rate limit)", (
            "wait some minutes; a token in HF_TOKEN has a higher limit"
        )
    return f"the Hub answered {status} for {repo}", "try again later: https://status.huggingface.co"


def _unanswered(error: Exception, location: Location, known: str | None) -> tuple[str, str]:
    """No answer of a Hub's: no network, no right to write the cache, or something else that answers."""
    repo = location.repo
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo} is needed from the Hub, and HF_HUB_OFFLINE is set", _offline(location, known)
    if isinstance(error, LocalEntryNotFoundError):
        return f"a file of {repo} is not in the cache, and the Hub cannot be asked", _offline(location, known)
    if isinstance(error, _NetworkError):
        return f"{repo}: {constants.ENDPOINT} cannot be reached ({error})", (
            f"check the network, https_proxy and HF_ENDPOINT; {_offline(location, known)}"
        )
    if isinstance(error, Stalled):
        return f"{constants.ENDPOINT} answers too slowly for {repo}: {error}", (
            "try again; for a slow network raise HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT (10 s each); "
            + _offline(location, known)
        )
    if isinstance(error, Unsound):
        return f"{constants.ENDPOINT} did not answer for {repo} as a Hub does: {error}", (
            "check HF_ENDPOINT, and that nobody on the way to it changes answers; or download the files yourself "
            "and name the folder"
        )
    if isinstance(error, OSError) and error.strerror:
        return f"a file of {repo} cannot be kept: {error.strerror}: {error.filename}", (
            "HF_HOME says where the Hub's cache is"
        )
    if isinstance(error, ValueError):
        return f"{constants.ENDPOINT} did not answer for {repo} as a Hub does", (
            "check HF_ENDPOINT, and that no proxy or log-in page answers in its place"
        )
    return f"a download from {repo} broke off: {str(error).splitlines()[0] if str(error) else error!r}", ("try again")


def _offline(location: Location, known: str | None) -> str:
    if known is not None and location.commit is None:
        return f"without a network this one is known: {_NAMED[location.kind]}={location.at(known)}"
    return f"or name a copy on this machine: {_NAMED[location.kind]}=/path/to/{_COPY[location.kind]}"
