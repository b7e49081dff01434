"""The verbs `trtstore keys` and `trtstore trust`: what signs, and whose signature counts here."""

from __future__ import annotations

import argparse
import getpass
import os

from trtstore.cli.arguments import AddVerb
from trtstore.cli.output import Output
from trtstore.errors import Invalid
from trtstore.format import trust
from trtstore.store import Store
from trtstore.team import keyring, open, trust_list
from trtstore.upkeep import query


def add(command: AddVerb) -> None:
    """Add the two verbs."""
    keys = command("keys", _keys, "manage signing keys: `keys new NAME` prints the public key, `keys ls` lists all")
    keys.add_argument("action", choices=["new", "ls"])
    keys.add_argument("name", nargs="?", metavar="NAME")
    keys.add_argument("--passphrase", action="store_true", help=f"ask for a passphrase (or set ${keyring.PASSPHRASE})")
    trusted = command(
        "trust",
        _trust,
        "manage trusted keys: `trust add PUBLIC_KEY`, `trust ls`, `trust rm NAME`",
    )
    trusted.add_argument("action", choices=["add", "ls", "rm"])
    trusted.add_argument(
        "key",
        nargs="*",
        metavar="PUBLIC_KEY",
        help="may be followed by what it may do: name=ci role=publish,revoke,gc model=Llama-3.1-* target=h100_sxm",
    )


def _keys(_store: Store, args: argparse.Namespace, output: Output) -> int:
    if args.action == "ls":
        keys = keyring.found()
        here = {one.public: [each for each in trust_list.listed() if each.key == one.public] for one in keys}
        lines = []
        for one in keys:
            lines.append(f"{one.public} name={one.name}")
            lines += [f"  trusted here: {each.words()}" for each in here[one.public]]
        document = [
            {
                "name": one.name,
                "public": one.public,
                "trusted": [_about(each) for each in here[one.public]],
            }
            for one in keys
        ]
        output.say({"keys": document}, lines)
        return 0
    if args.name is None:
        raise Invalid("a new key needs a name", "trtstore keys new ci")
    passphrase = os.environ.get(keyring.PASSPHRASE)
    if args.passphrase and not passphrase:
        passphrase = getpass.getpass("passphrase: ")
        if not passphrase or getpass.getpass("again: ") != passphrase:
            raise Invalid("the two were not the same, or empty: no key was made")
    public = open.new_key(args.name, passphrase)
    output.say({"name": args.name, "public": public}, [f"{public} name={args.name}"])
    return 0


def _trust(_store: Store, args: argparse.Namespace, output: Output) -> int:
    lines = trust_list.listed()
    if args.action == "add":
        one = trust.parse(" ".join(args.key))
        lines = [each for each in lines if each.key != one.key] + [one]
        trust_list.save(lines)
    elif args.action == "rm":
        wanted = " ".join(args.key)
        gone = [each for each in lines if wanted in (each.key, each.name)]
        if not gone:
            raise query.NotThere(f"no trusted key is called {wanted!r}", "`trtstore trust ls` shows them")
        lines = [each for each in lines if each not in gone]
        trust_list.save(lines)
    output.say({"trusted": [_about(each) for each in lines]}, [each.line() for each in lines])
    return 0


def _about(one: trust.Trusted) -> dict[str, object]:
    roles = [role.value for role in one.roles]
    return {"key": one.key, "name": one.name, "scope": dict(one.scope), "roles": roles}
