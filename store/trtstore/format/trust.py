"""Whose word counts for what: trusted public keys, each with roles and a scope, as one line of text.

    ed25519:MCowBQ…= name=ci role=publish,revoke model=Llama-3.1-*,SmolLM2-* target=h100_sxm

A word after the key that is neither `name=` nor `role=` is a scope: the record's label of that name must match one of
the patterns. A scope limits what a key may publish. Each line stands for itself, also where a key has several.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from types import MappingProxyType

from trtstore.errors import Invalid
from trtstore.units import shown

ALGORITHM = "ed25519"
KEY_BYTES = 32
MAX_PATTERN = 256  # characters of a pattern, or of a name
MAX_PATTERNS = 256  # of one line

#: Labels -> patterns. All that it names must be there and match; an empty one holds everything.
Scope = Mapping[str, tuple[str, ...]]
EVERYTHING: Scope = MappingProxyType({})

#: The points of small order, with the sign bit cleared: under such a key anybody can make a signature that counts.
_SMALL_ORDER = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)


class Role(Enum):
    """What a key may do. Who may publish may also revoke what lies in its scope."""

    publish = "publish"  # sign records within the scope
    revoke = "revoke"  # revoke anything, and sign the list of revocations
    gc = "gc"  # sign the policy by which collectors go


class TrustPolicy(Enum):
    """What a record from elsewhere needs: a trusted signature, or else a warning to the user, or nothing."""

    require = "require"
    warn = "warn"
    off = "off"


@dataclass(frozen=True)
class Trusted:
    """A public key as "ed25519:<base64 of 32 bytes>", with a name for people, a scope, and roles."""

    key: str
    name: str = ""
    scope: Scope = field(default_factory=dict)
    roles: tuple[Role, ...] = (Role.publish,)

    def __str__(self) -> str:
        """The name, else the beginning of the key."""
        return self.name or f"{self.key[:18]}…"

    def line(self) -> str:
        """What `parse` reads."""
        words = [self.key] + ([f"name={self.name}"] if self.name else [])
        return " ".join(words if self.roles == (Role.publish,) and not self.scope else [*words, self.words()])

    def words(self) -> str:
        """Its roles, where these are not what is meant without a word, and its scope."""
        default = self.roles == (Role.publish,) and self.scope
        roles = [] if default else [f"role={','.join(role.value for role in self.roles)}"]
        return " ".join([*roles, *(f"{label}={','.join(some)}" for label, some in sorted(self.scope.items()))])

    def beyond(self, labels: Mapping[str, str]) -> str | None:
        """As `beyond`, for the role `publish`."""
        if Role.publish not in self.roles:
            return "records (its line has no role=publish)"
        return beyond(self.scope, labels)

    def revokes(self) -> Scope | None:
        """The scope of the records that a revocation of this key counts for; None where it counts for nothing."""
        if Role.revoke in self.roles:
            return EVERYTHING
        return self.scope if Role.publish in self.roles else None


def beyond(scope: Scope, labels: Mapping[str, str]) -> str | None:
    """Which label is not in `scope`, in words; None where all are. A label that is not there is in no pattern."""
    for label, patterns in scope.items():
        value = labels.get(label)
        if value is None:
            return f"what has no label {label}"
        if not any(fnmatchcase(value, pattern) for pattern in patterns):
            return f"{label}={shown(value)}"
    return None


def holds(scope: Scope, labels: Mapping[str, str] | None) -> bool:
    """Whether `scope` holds these labels. What is not known lies in the scope of everything alone."""
    return not scope or (labels is not None and beyond(scope, labels) is None)


def trusted_lines(public: str, trusted: Iterable[Trusted]) -> list[Trusted]:
    """Those of `trusted` that are about the key `public`: a key may have several lines.

    >>> [line.name for line in trusted_lines(signer.public, team.trusted)]
    ['ci']
    """
    return [one for one in trusted if one.key == public]


def raw(key: str) -> bytes:
    """The 32 bytes of "ed25519:<base64>". Raises Invalid."""
    algorithm, _, text = key.partition(":")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    spelling = base64.b64encode(data).decode("ascii")  # one only, as keys are compared as text
    if algorithm != ALGORITHM or len(data) != KEY_BYTES or spelling != text:
        raise Invalid(
            f"{key[:80]!r} is no public key: one is {ALGORITHM}: and 44 characters of base64",
            "`trtstore keys new NAME` prints one, and `trtstore keys ls` those that there are",
        )
    if data[:31] + bytes([data[31] & 0x7F]) in _SMALL_ORDER:
        raise Invalid(f"the public key {key} is weak: anybody can sign for it", "`trtstore keys new NAME` makes a key")
    return data


def parse(line: str) -> Trusted:
    """The key and scope of one line. Raises Invalid."""
    words = line.split()
    if not words:
        raise Invalid("an empty line is no public key")
    raw(words[0])
    options: dict[str, tuple[str, ...]] = {}
    for word in words[1:]:
        label, equals, patterns = word.partition("=")
        if not equals or not label or not all(patterns.split(",")):
            raise Invalid(
                f"{word[:80]!r} is no scope", "write label=pattern, such as model=Llama-3.1-* or target=h100_sxm"
            )
        if label in options:
            raise Invalid(f"{label}= is given twice for one key", f"write {label}=one,two")
        options[label] = tuple(patterns.split(","))
        if len(options[label]) > MAX_PATTERNS or any(len(one) > MAX_PATTERN for one in options[label]):
            raise Invalid(
                f"{label}= is too long for a trusted key",
                f"at most {MAX_PATTERNS} patterns of {MAX_PATTERN} characters each",
            )
    roles = _roles(options.pop("role", ()))
    return Trusted(words[0], _name(options.pop("name", ())), options, roles)


def _name(words: tuple[str, ...]) -> str:
    name = ",".join(words)
    # Of these a terminal shows nothing, or shows the rest of the line in another order.
    if any(unicodedata.category(c).startswith("C") for c in name):
        raise Invalid(f"{name[:80]!a} is no name for a key", "letters and digits, such as name=ci")
    return name


def _roles(words: tuple[str, ...]) -> tuple[Role, ...]:
    known = {role.value: role for role in Role}
    for word in words:
        if word not in known:
            raise Invalid(f"{word[:80]!r} is no role of a key", f"roles are {', '.join(known)}: role=publish,revoke")
    return tuple(role for role in Role if role.value in words) or (Role.publish,)
