"""Ed25519 keys and signatures over envelopes, by securesystemslib: a private key signs, public ones are checked."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib import dsse
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, SSlibKey
from securesystemslib.signer import Signature as RawSignature

from trtstore.errors import Invalid
from trtstore.format import trust
from trtstore.format.envelope import MAX_SIGNATURES, PAYLOAD_TYPE, Envelope, Signature
from trtstore.format.trust import Trusted
from trtstore.team import keyring
from trtstore.team.keyring import PASSPHRASE


@dataclass(frozen=True)
class Signer:
    """A private key that was opened, its name for people, and its public half, "ed25519:<base64>"."""

    name: str
    public: str
    key: CryptoSigner


def new(name: str, passphrase: str | None) -> str:
    """Make a key pair, keep the private half under `name`, and return the public one.

    Raises Invalid where there is a key of that name, NotWritable, StoreFailure.
    """
    private = Ed25519PrivateKey.generate()
    closed: KeySerializationEncryption = NoEncryption()
    if passphrase:
        closed = BestAvailableEncryption(passphrase.encode())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, closed)
    keyring.keep(name, pem, _public(private))
    return _public(private)


def signer(name: str | None) -> Signer:
    """The private key `name`, or the one of the environment, or the only one that there is. Raises Invalid."""
    pem, called = keyring.choose(name)
    passphrase = os.environ.get(PASSPHRASE)
    try:
        private = load_pem_private_key(pem, passphrase.encode() if passphrase else None)
    except TypeError:
        why = f"has a passphrase, and {PASSPHRASE} is not set" if not passphrase else "has no passphrase"
        raise Invalid(f"the key {called} {why}", f"set, or unset, {PASSPHRASE} in the environment") from None
    except ValueError:  # whose words may quote the key
        raise Invalid(f"the key {called} does not open", f"it is no PEM, or {PASSPHRASE} is another") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise Invalid(f"the key {called} is no Ed25519 key", "`trtstore keys new NAME` makes one")
    return Signer(called, _public(private), CryptoSigner(private))


def sign(envelope: Envelope, by: Signer) -> Envelope:
    """`envelope` with one more signature; one of the same key is replaced, and of too many the first goes: nobody
    could read it with more."""
    made = dsse.Envelope(envelope.payload, PAYLOAD_TYPE, {}).sign(by.key)
    text = base64.b64encode(bytes.fromhex(made.signature)).decode("ascii")
    others = tuple(one for one in envelope.signatures if one.keyid != made.keyid)
    return Envelope(envelope.payload, (*others[-(MAX_SIGNATURES - 1) :], Signature(made.keyid, text)))


def signed_by(envelope: Envelope, trusted: Sequence[Trusted]) -> list[Trusted]:
    """Those of `trusted` whose key signed the payload, in their order.

    A keyid says only which key to try: two signatures may claim one, and the right one counts.
    """
    payload = dsse.Envelope(envelope.payload, PAYLOAD_TYPE, {}).pae()
    signers = []
    for one in trusted:
        key = _key(one.key)
        for signature in envelope.signatures:
            if signature.keyid == key.keyid and _verifies(key, signature, payload):
                signers.append(one)
                break
    return signers


def _verifies(key: SSlibKey, signature: Signature, payload: bytes) -> bool:
    try:
        key.verify_signature(RawSignature(key.keyid, base64.b64decode(signature.sig).hex()), payload)
    except UnverifiedSignatureError:
        return False
    return True


def _key(public: str) -> SSlibKey:
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(trust.raw(public)))


def _public(private: Ed25519PrivateKey) -> str:
    data = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"{trust.ALGORITHM}:{base64.b64encode(data).decode('ascii')}"
