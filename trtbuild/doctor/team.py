"""The team store: whether it answers, and, where this machine writes to it, whether it keeps what writers rely on."""

from __future__ import annotations

from collections.abc import Iterator

from trtbuild.config import locations, schema
from trtbuild.doctor.checks import Examined, judged
from trtstore import Remote, Role, Store, StoreFailure, TrustPolicy, connect, open_signer, open_team

_NOBODYS = "0" * 64  # a key that no record has


def check(conf: schema.StoreConf) -> Iterator[Examined]:
    """Builds go on without one that does not answer, so that is a note, unless this machine is to write to it.

    With `store.write=true` it is asked as before a build: once, an object is created twice, which has to be refused.
    """
    url = locations.team(conf.team)
    if url is None:
        if conf.write:
            yield judged("team store", False, "store.write=true, and none is named: store.team=URL", required=True)
        return
    try:
        remote = Remote(connect(url, conf.patience))
        remote.find(_NOBODYS)
        if conf.write:
            remote.check_writable()
        _believed(url, conf)
    except StoreFailure as trouble:
        mend = () if trouble.hint is None else (f"# {trouble.hint}",)
        yield judged("team store", False, trouble.message, required=conf.write, mend=mend)
        return
    honest = ", takes writes and refuses to create what is there" if conf.write else ""
    yield Examined("team store", "ok", f"{remote} answers{honest}", required=conf.write)


def _believed(url: str, conf: schema.StoreConf) -> None:
    """Raises StoreFailure where this machine would refuse all that is there, or could not sign what it is to write."""
    store = Store.open(locations.root(conf.root))
    team = open_team(url, store, TrustPolicy(conf.trust.value), conf.trusted, _silent, conf.patience)
    if any(Role.revoke in one.roles for one in team.trusted):
        team.sync()
        team.revocations.refuse_stale()
    if conf.write:
        team.check_signer(open_signer(conf.key))


def _silent(_words: str) -> None:
    """What is wrong is the check's own words."""
