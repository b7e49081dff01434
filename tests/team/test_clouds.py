"""Google Cloud Storage and Azure: the promises of any place, and the commands with an identity of each kind.

Azure is Azurite, Microsoft's own emulator. Google is a stand-in of ours (tests/support/gcs.py): it has none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.store.support import KEY, OTHER
from tests.support.azurite import Azurite, NotInstalled
from tests.support.gcs import Gcs
from tests.team.support import Place, User, as_ci, believer, make, user, writer

# The same words about other places: they ask for `place`, which is another one here.
from tests.team.test_leases import test_of_many_at_once_one_builds_and_the_others_have_what_it_made  # noqa: F401
from tests.team.test_objects import (  # noqa: F401
    test_a_listing_has_what_is_below_a_prefix_and_nothing_else,
    test_a_name_is_taken_once_and_its_bytes_stay,
    test_an_empty_object_is_one,
    test_an_honest_place_passes_the_probe_again_and_again,
    test_an_upload_that_fails_on_its_way_leaves_nothing,
    test_large_objects_travel_in_parts_and_come_back_the_same,
    test_of_many_who_want_a_name_one_gets_it,
    test_what_is_longer_than_it_may_be_is_not_read,
    test_what_is_not_there_is_told_when_it_is_opened,
)
from trtstore.errors import NotReadable, NotWritable, Unreachable
from trtstore.format.digest import hash_bytes
from trtstore.remote import clouds
from trtstore.remote.bucket import PART
from trtstore.remote.connect import connect
from trtstore.remote.remote import blob_name, record_name
from trtstore.team.signing import Signer

pytestmark = pytest.mark.xdist_group("team-clouds")  # with servers of their own
BUCKET = "team"
LARGE = os.urandom(1 << 20) * 40
FILES = {"engine.bin": LARGE, "config.json": b"{}"}


@dataclass(frozen=True)
class Cloud:
    """A server of one of them: who is who there, and its objects past the client."""

    scheme: str
    credentials: Callable[[str], dict[str, str]]
    place: Callable[[str], Place]
    elsewhere: dict[str, str]  # an environment in which nobody answers
    bare: dict[str, str]  # one without credentials, on a machine that has none


@pytest.fixture(scope="session")
def az(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    try:
        with Azurite(tmp_path_factory.mktemp("azurite")) as server:
            server.container(BUCKET)
            account = {"AZURE_STORAGE_ACCOUNT_NAME": "acme"}
            yield Cloud(
                "az",
                server.credentials,
                lambda prefix: Place(f"az://{BUCKET}/{prefix}", server, f"{BUCKET}/{prefix}"),
                {**server.credentials("writer"), "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:9/acme"},
                {
                    **account,
                    "AZURE_STORAGE_ENDPOINT": server.url,
                    "AZURE_MSI_ENDPOINT": "http://127.0.0.1:9/metadata/identity/oauth2/token",
                },
            )
    except NotInstalled as reason:
        if os.environ.get("CI"):
            raise  # where it has to run
        pytest.skip(f"{reason}")


def google(server: Gcs) -> Cloud:
    dead = {
        "GCE_METADATA_HOST": "127.0.0.1:9",
        "GCE_METADATA_ROOT": "127.0.0.1:9",
        "GCE_METADATA_IP": "127.0.0.1:9",
    }
    return Cloud(
        "gs",
        server.credentials,
        lambda prefix: Place(f"gs://{BUCKET}/{prefix}", folder=server.bucket / prefix),
        {**server.credentials("writer"), "GOOGLE_BASE_URL": "http://127.0.0.1:9"},
        {"GOOGLE_BASE_URL": server.credentials("writer")["GOOGLE_BASE_URL"], **dead},
    )


@pytest.fixture(scope="session")
def gs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with Gcs(tmp_path_factory.mktemp("gcs"), BUCKET, "--page", "3") as server:
        yield google(server)


@pytest.fixture(params=["az", "gs"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    found: Cloud = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Take an identity, and leave the one before."""

    def take(environment: dict[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith(("AZURE_", "GOOGLE_", "GCE_"))]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return take


@pytest.fixture
def place(cloud: Cloud, become, request: pytest.FixtureRequest) -> Place:
    """A prefix of its own, with the writer's credentials in the environment."""
    become(cloud.credentials("writer"))
    return cloud.place("".join(c if c.isalnum() else "-" for c in request.node.name))


@pytest.fixture
def signer() -> Signer:
    return writer("ci")


@pytest.fixture
def ci(place: Place, tmp_path: Path, signer: Signer) -> User:
    return believer(tmp_path / "ci", place, signer, **as_ci())


def reader(folder: Path, cloud: Cloud, place: Place, signer: Signer) -> User:
    made = user(folder, place)
    for name in cloud.credentials("writer"):
        made.environment.pop(name)
    made.environment.update(cloud.credentials("reader"))
    assert made.trtstore("trust", "add", signer.public, "name=ci", "role=publish,gc").code == 0
    return made


def test_what_ci_builds_a_reader_has(cloud, place, ci: User, tmp_path, tiny_llama, signer) -> None:
    words = [f"model.source={tiny_llama}", "quant=int8", "check=none", "output=json"]
    words.append(f"store.trusted=['{signer.public} name=ci']")
    built = ci.trtbuild(*words, "store.write=true")
    assert built.code == 0, built.err
    assert "engine   shared" in built.err
    dev = reader(tmp_path / "dev", cloud, place, signer)
    fetched = dev.trtbuild("fetch", *words)
    assert fetched.code == 0, fetched.err
    assert (fetched.json["outcome"], fetched.json["digest"]) == ("hit-team", built.json["digest"])
    assert f"from {place.url}, signed by ci, every byte verified" in fetched.err
    early = dev.trtbuild(*words, "quant=none", "store.write=true", **signing(ci))
    assert early.code == 4
    assert "refuses to be written to" in early.err
    assert "building" not in early.err


def signing(made: User) -> dict[str, str]:
    return {"TRTSTORE_SIGNING_KEY": made.environment["TRTSTORE_SIGNING_KEY"]}


def test_the_commands_from_a_push_to_its_end(cloud, place, ci: User, tmp_path, signer) -> None:
    """Large enough for parts both ways; what was changed there is refused, and what was revoked is."""
    make(ci.store, tmp_path / "in", files=FILES)
    make(ci.store, tmp_path / "in2", OTHER, {"other.bin": b"other"})
    assert len(LARGE) > 4 * PART
    pushed = ci.trtstore("push", "--all")
    assert pushed.code == 0, pushed.err
    assert ci.trtstore("push", KEY).out.endswith("was there\n")

    dev = reader(tmp_path / "dev", cloud, place, signer)
    assert KEY[:12] in dev.trtstore("ls", "--team").out
    verified = dev.trtstore("verify", "--team")
    assert verified.out.startswith("nothing wrong with 2 artifacts"), verified.err
    assert dev.trtstore("pull", KEY[:8]).out == f"{KEY} new\n"
    assert dev.store.materialise(dev.store.lookup(KEY)).path.joinpath("engine.bin").read_bytes() == LARGE

    blob = blob_name(hash_bytes(LARGE))
    place.put(blob, LARGE[:-1] + bytes([LARGE[-1] ^ 1]))
    other = reader(tmp_path / "other", cloud, place, signer)
    bad = other.trtstore("pull", KEY)
    assert (bad.code, "not what its name says" in bad.err) == (4, True), bad.err
    assert dev.trtstore("verify", "--team").code == 4

    refused = dev.trtstore("revoke", KEY, "--reason", "mine", **signing(ci))
    assert (refused.code, "refuses to be written to" in refused.err) == (4, True), refused.err
    assert ci.trtstore("revoke", KEY, "--reason", "wrong scales").code == 0
    gone = dev.trtstore("pull", KEY)
    assert (gone.code, "wrong scales" in gone.err) == (4, True), gone.err

    assert ci.trtstore("policy", "--max-size", "10", "--keep", "90d").code == 0
    assert dev.trtstore("gc", "--team").code == 4
    assert place.has(record_name(OTHER))
    done = ci.trtstore("gc", "--team", "--json")
    assert [one["name"] for one in done.json["gone"]] == [OTHER], done.err
    assert not place.has(record_name(OTHER))
    assert place.has(record_name(KEY))  # what was revoked is left for a day, as what a push may be on its way with


def test_a_reader_may_change_nothing(cloud: Cloud, place: Place, become) -> None:
    connect(place.url).create("v1/a", b"a")
    become(cloud.credentials("reader"))
    found = connect(place.url)
    assert found.read("v1/a", 10) == b"a"
    for refused in (
        lambda: found.create("v1/b", b""),
        lambda: found.replace("v1/a", b""),
        lambda: found.upload("v1/b", iter([LARGE]), len(LARGE)),
        lambda: found.delete("v1/a"),
    ):
        with pytest.raises(NotWritable, match="refuses to be written to"):
            refused()
    assert [one.name for one in found.listed("v1/")] == ["v1/a"]


@pytest.mark.parametrize(
    ("who", "kind", "says"),
    [
        ("nobody", NotReadable, "refuses to be read: Authenti|refuses to be read: Authoriz"),
        ("elsewhere", Unreachable, "does not answer"),
        ("bare", Unreachable, "the environment has no credentials, nor has this machine"),
    ],
)
def test_what_is_wrong_with_the_environment_is_said_at_once(cloud, place, become, who, kind, says) -> None:
    become(cloud.credentials(who) if who == "nobody" else getattr(cloud, who))
    asks = [lambda: connect(place.url).read("v1/a", 1), lambda: list(connect(place.url).listed("v1/"))]
    for asked in asks if who == "nobody" else asks[:1]:
        with pytest.raises(kind, match=says) as caught:
            asked()
        said = f"{caught.value} {caught.value.hint}"
        assert len(str(caught.value).splitlines()) == 1
        assert "hunter2" not in said
    if who == "bare":
        assert ("AZURE_" if cloud.scheme == "az" else "GOOGLE_") in said
        assert "AWS_" not in said


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "Account must be specified"),
        ({"AZURE_STORAGE_ACCOUNT_NAME": "acme", "AZURE_STORAGE_ACCOUNT_KEY": "hunter2 hunter2"}, "Invalid Access Key"),
        ({"AZURE_STORAGE_ACCOUNT_NAME": "acme", "AZURE_STORAGE_SAS_TOKEN": "hunter2"}, "SAS"),
        ({"GOOGLE_SERVICE_ACCOUNT_KEY": "hunter2-hunter2"}, "service account"),
        ({"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/it.json"}, "/nowhere/it.json"),
    ],
)  # fmt: skip
def test_credentials_that_cannot_be_read_are_one_error(environment, says, tmp_path) -> None:
    scheme = "gs" if any(name.startswith("GOOGLE_") for name in environment) else "az"
    me = user(tmp_path / "me", Place(f"{scheme}://{BUCKET}/x"), **environment)
    done = me.trtstore("ls", "--team")
    assert done.code == 4, done.err
    assert done.err.startswith(f"error: {scheme}://{BUCKET}/x cannot be asked: ")
    assert says in done.err
    assert f"hint: {clouds.CLOUDS[scheme].credentials}" in done.err.replace("\n      ", " ")
    assert "hunter2" not in done.err


def test_a_bucket_that_is_not_there_is_named(cloud: Cloud, become, tmp_path: Path) -> None:
    become(cloud.credentials("owner" if cloud.scheme == "az" else "writer"))
    url = f"{cloud.scheme}://nowhere/x"
    says = f"there is no {'container' if cloud.scheme == 'az' else 'bucket'} for {url}"
    objects = connect(url)
    for asked in (
        lambda: objects.read("v1/a", 1),
        lambda: list(objects.listed("v1/")),
        lambda: objects.create("v1/a", b""),
        lambda: objects.upload("v1/a", iter([b"x"]), 1),
    ):
        with pytest.raises(Unreachable, match=says):
            asked()
    done = user(tmp_path / "me", Place(url)).trtstore("ls", "--team")
    assert (done.code, says in done.err) == (4, True), done.err


def test_a_server_that_ignores_conditions_is_read_and_never_written_to(tmp_path, become, signer) -> None:
    with Gcs(tmp_path / "gcs", BUCKET, "--ignore-preconditions") as server:
        dishonest = google(server)
        become(dishonest.credentials("writer"))
        there = dishonest.place("x")
        made = believer(tmp_path / "ci", there, signer, **as_ci())
        make(made.store, tmp_path / "in")
        done = made.trtstore("push", KEY)
        assert (done.code, "ignores conditional writes" in done.err) == (4, True), done.err
        assert made.trtstore("ls", "--team").code == 0
        assert not there.has(record_name(KEY))


def test_the_secrets_of_each_cloud_are_in_no_message(become) -> None:
    sas = "sv=2021-08-06&sp=rl&sig=hunter2%2Fhunter2%3D"
    become(
        {
            "AZURE_STORAGE_ACCOUNT_KEY": "hunter2key",
            "AZURE_STORAGE_SAS_TOKEN": sas,
            "GOOGLE_BEARER_TOKEN": "hunter2ya29",
        }
    )
    for said in (
        "the key hunter2key is bad",
        "bearer hunter2ya29",
        f"no such thing: {sas}",
        "the signature hunter2/hunter2= differs",
        "GET https://acme/team/x?sv=1&sig=hunter2 - failed at sig=hunter2",
    ):
        assert "hunter2" not in clouds.reason(OSError(said)), said
    azure = OSError("<Error>\n  <Code>A</Code>\n  <Message>It is so.\nRequestId:1\nTime:2</Message></Error>")
    assert clouds.reason(azure) == "A, It is so"
