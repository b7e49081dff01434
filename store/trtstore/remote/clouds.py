"""What the clouds name differently, and what their answers mean: variables, refusals, a bucket that is not there."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import unescape
from urllib.parse import unquote, urlsplit

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

#: Of variables whose values are in no message. (GOOGLE_APPLICATION_CREDENTIALS is a path, which helps.)
_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|_KEY$|SAS|(?<!APPLICATION_)CREDENTIALS", re.IGNORECASE)
_MISSING = re.compile(r"NoSuchBucket|ContainerNotFound")  # S3 and Google; Azure
_REFUSED = re.compile(r"status code: 40[13]\b|token request: .*status code: 400\b|\(code: (?:40[13]|AccessDenied)\)")
#: Where a machine in a cloud asks for its own credentials, which is the last resort of all three clients.
_MACHINE = re.compile(r"//169\.254\.|//metadata\.google\.internal|/metadata/identity/|/computeMetadata/")
_SKEWED = re.compile(r"RequestTimeTooSkewed|Request date header too old")
#: AWS and most others; MinIO. (InvalidDigest is about the form of one.)
_WRONG_SUM = re.compile(r"<Code>(?:BadDigest|XAmzContentChecksumMismatch)</Code>")
_UNUSABLE = re.compile(r"redential|service account|Account must be|Access Key|SAS")


@dataclass(frozen=True)
class Cloud:
    """`bucket` is what it calls one; `endpoint` are the variables that name another server, the first one counts."""

    bucket: str
    endpoint: tuple[str, ...]
    credentials: str

    def another(self, environment: Mapping[str, str]) -> str:
        """The server that the environment names, or nothing for the cloud's own."""
        return next((environment[name] for name in self.endpoint if environment.get(name)), "")


CLOUDS = {
    "s3": Cloud(
        "bucket",
        ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "gs": Cloud(
        "bucket",
        ("GOOGLE_BASE_URL",),
        "set GOOGLE_APPLICATION_CREDENTIALS to a service account's file, or GOOGLE_SERVICE_ACCOUNT_KEY to its text",
    ),
    "az": Cloud(
        "container",
        ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
        "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_ACCOUNT_KEY, or "
        "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET",
    ),
}


def of(url: str) -> Cloud:
    """The cloud of a URL that `objects.checked` has passed."""
    return CLOUDS[urlsplit(url).scheme]


def is_missing(error: Exception) -> bool:
    """Whether it says that there is no such bucket."""
    return _MISSING.search(_said(error)) is not None


def is_refused(error: Exception) -> bool:
    """Whether the request was denied. (Of a listing obstore knows only the answer's text.)"""
    known = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    return known or (not has_no_credentials(error) and _REFUSED.search(_said(error)) is not None)


def has_no_credentials(error: Exception) -> bool:
    """Whether it failed to get the machine's own credentials, since the environment has none."""
    return _MACHINE.search(_said(error)) is not None


def are_unusable(error: Exception) -> bool:
    """Whether the credentials of the environment could not even be read."""
    return _UNUSABLE.search(_said(error)) is not None


def is_skewed(error: Exception) -> bool:
    """Whether the server finds that this machine's clock is wrong."""
    return _SKEWED.search(_said(error)) is not None


def is_wrong_sum(error: Exception) -> bool:
    """Whether the server found other bytes than those of the checksum that came with them."""
    return _WRONG_SUM.search(_said(error)) is not None


#: What another attempt would not fix.
FINAL: tuple[Callable[[Exception], bool], ...] = (is_refused, has_no_credentials, is_missing, is_skewed)


def is_amazon(endpoint: str) -> bool:
    """Whether that is the cloud itself, of which its documentation is true: no endpoint is named, or one of its own."""
    host = urlsplit(endpoint).hostname or ""
    return not endpoint or host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def reason(error: Exception) -> str:
    """What the server or the connection said, in a line: no address with its query, no secret of the environment."""
    said = str(error).strip() or type(error).__name__
    code = re.search(r"<Code>([^<]{1,60})</Code>(?:\s*<Message>([^<\n]{1,200}))?", said)
    status = re.search(r"status code: (\d{3}[^:\n<]{0,40})", said)
    if code is not None:
        line = code[1] + (f", {unescape(code[2]).rstrip('.')}" if code[2] else "")
    elif status is not None:
        line = f"it answers {status[1].strip()}"
    else:
        line = said.splitlines()[0].rpartition(" - ")[2].removeprefix("Generic ")[:300]
    line = "it does not answer" if "error sending request" in line else re.sub(r"\?\S*", "", line)
    return "".join(character for character in _hidden(line) if character.isprintable())


def _hidden(line: str) -> str:
    """Without what the environment has under a name that says secret, as it stands there or as a query has it."""
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET.search(name):
            signatures = re.findall(r"sig=([^&\s]{6,})", value)
            for secret in (value, unquote(value), *signatures, *map(unquote, signatures)):
                line = line.replace(secret, "***")
    return re.sub(r"\bsig=[^&\s]+", "sig=***", line)


def _said(error: Exception) -> str:
    """The sentence without the dump of structures that obstore puts below it."""
    return str(error).partition("\nDebug source:")[0]
