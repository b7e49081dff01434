"""Asks the Hub which files a commit holds, and believes no more of the answer than a Hub says."""

from __future__ import annotations

from urllib.parse import quote

from huggingface_hub import constants, get_session, hf_raise_for_status
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, but not in its __all__

from trtbuild import untrusted
from trtbuild.sources.base import Json
from trtbuild.sources.hub.commit import MOST_BYTES, MOST_FILES, Commit, Wrong, checked, is_git_id
from trtbuild.sources.hub.guard import Guard, Unsound, check_encoding, shown
from trtbuild.sources.hub.location import Location
from trtbuild.sources.hub.pace import listing, within


def ask(location: Location) -> Commit:
    """The files at the revision of `location`. Raises one of the client's errors, or Unsound."""
    return parsed(location, within(listing(), Guard(MOST_BYTES), lambda: _answer(location)))


def parsed(location: Location, answer: bytes) -> Commit:
    """The commit that `answer` describes. Raises Unsound, or ValueError for what no Hub's answer looks like at all."""
    value = _value(answer)
    sha, rows = value.get("sha"), value.get("siblings")
    if not isinstance(sha, str) or not isinstance(rows, list):
        raise ValueError("no repository in the answer")
    if not is_git_id(sha):
        raise Unsound(f"its commit is {shown(sha)}")
    if location.commit not in (None, sha):
        raise Unsound(f"it answers for the commit {sha}, and not for {location.commit}")
    if len(rows) > MOST_FILES:
        raise Unsound(f"it lists {len(rows)} files, and {MOST_FILES} are the most that are read")
    try:
        return checked(location.repo, sha, map(_row, rows))
    except Wrong as wrong:
        raise Unsound(str(wrong)) from None
    except (KeyError, TypeError, AttributeError):  # JSON, but another service's
        raise ValueError("no files in the answer") from None


def _answer(location: Location) -> bytes:
    url = f"{constants.ENDPOINT}/api/{location.kind}s/{location.repo}"
    if location.revision is not None:
        url += f"/revision/{quote(location.revision, safe='')}"
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    wait = constants.HF_HUB_ETAG_TIMEOUT
    with get_session().stream("GET", url, params={"blobs": True}, headers=headers, timeout=wait) as response:
        hf_raise_for_status(response)
        check_encoding(response)
        return b"".join(response.iter_raw())


def _value(answer: bytes) -> dict[str, Json]:
    try:
        return untrusted.parse_object(answer, limit=MOST_BYTES)
    except untrusted.MalformedJson as trouble:
        if answer.lstrip()[:1] in (b"{", b"["):
            raise Unsound(f"its list of files {trouble}") from None
        raise


def _row(sibling: Json) -> dict[str, Json]:
    """One file of the Hub's listing; git's id is of the file itself only where the Hub keeps it in git."""
    large = sibling.get("lfs")
    return {
        "name": sibling["rfilename"],
        "size": large["size"] if large else sibling["size"],
        "sha256": large["sha256"] if large else None,
        "blob_id": None if large else sibling.get("blobId"),
    }
