"""nearcase library label, flag, merge: what people correct in cases after they were added."""

from __future__ import annotations

import click

from nearcase.cli.cases import case_json
from nearcase.cli.options import connected, print_json, server_option
from nearcase.errors import InvalidInput

FLAGS = ("excluded", "no-consent")
by_option = click.option("--by", default="", metavar="NAME", help="Who says so; kept in the history.")


@click.command()
@click.argument("case_id")
@click.argument("labels", nargs=-1, required=True, metavar="NAME=VALUE...")
@by_option
@server_option
def label(case_id: str, labels: tuple[str, ...], by: str, server: str) -> None:
    """Correct labels of a case, and print it. "NAME=" removes a label; what it was stays in the case's history."""
    pairs = [text.partition("=") for text in labels]
    if not all(separator for _, separator, _ in pairs):
        raise InvalidInput('expected labels as NAME=VALUE, or NAME= to remove one, got one without "="')
    with connected(server) as client:
        changed = {name: value for name, _, value in pairs}
        case, _ = client.library.update(case_id=case_id, labels=changed, changed_by=by)
    print_json(case_json(case))


@click.command()
@click.argument("case_id")
@click.argument("flags", nargs=-1, required=True, type=click.Choice(FLAGS))
@click.option("--clear", is_flag=True, help="Take the flags away instead.")
@server_option
def flag(case_id: str, flags: tuple[str, ...], clear: bool, server: str) -> None:
    """Set flags of a case, and print it: a case with a flag is kept, and is never found nor evidence."""
    with connected(server) as client:
        case, _ = client.library.update(
            case_id=case_id, set_flags=() if clear else flags, clear_flags=flags if clear else ()
        )
    print_json(case_json(case))


@click.command()
@click.argument("gone")
@click.argument("stays")
@click.option("--gone-issuer", default="", help="Issuer of the Patient ID that goes; default none stated.")
@click.option("--stays-issuer", default="", help="Issuer of the one that stays; default none stated.")
@by_option
@server_option
def merge(gone: str, stays: str, gone_issuer: str, stays_issuer: str, by: str, server: str) -> None:
    """Give all cases of the Patient ID GONE to the Patient ID STAYS: the two are one person.

    Files that still name GONE are taken for STAYS when they are added again.
    """
    with connected(server) as client:
        count = client.library.merge(gone, stays, gone_issuer=gone_issuer, stays_issuer=stays_issuer, changed_by=by)
    click.echo(f"{count} cases changed hands")
