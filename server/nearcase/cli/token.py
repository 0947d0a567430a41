"""nearcase token: keys and tokens for a site without a provider of its own."""

from __future__ import annotations

from pathlib import Path

import click

from nearcase.clock import SystemClock
from nearcase.serve import signing
from nearcase.serve.caller import is_tenant
from nearcase.serve.roles import ROLES


@click.group()
def token() -> None:
    """Make a signing key, and tokens that say who may do what."""


@token.command("new-key")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File of the private key.")
def new_key(out: Path) -> None:
    """Make a key pair: the private key for whoever makes tokens, and FILE.pub for the server.

    Only the owner can read the private key. It is not needed where the server runs, and should not lie there.
    """
    public_file = signing.new_key(out)
    click.echo(f"{out} signs tokens: keep it to yourself. {public_file} goes into [tokens] keys of the callers file.")


@token.command("issue")
@click.option("--key", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="Private key.")
@click.option("--name", required=True, help="Whose token it is; it stands in records.")
@click.option(
    "--role", "roles", multiple=True, required=True, type=click.Choice(sorted(ROLES)), help="May be repeated."
)
@click.option("--tenant", default="", metavar="NAME", help="Whose cases, where the server has several tenants.")
@click.option("--days", default=30.0, show_default=True, help="How long it is valid; it can not be called back.")
@click.option("--issuer", default=signing.LOCAL_ISSUER, show_default=True, help="As in the callers file.")
@click.option("--audience", default=signing.AUDIENCE, show_default=True, help="As in the callers file.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File for it; default stdout.")
def issue(
    key: Path, name: str, roles: tuple[str, ...], tenant: str, days: float, issuer: str, audience: str, out: Path | None
) -> None:
    """Sign a token."""
    if tenant and not is_tenant(tenant):
        raise click.BadParameter("expected 1 to 64 letters a-z, digits and hyphens", param_hint="--tenant")
    grant = signing.Grant(name, roles, tenant, days, issuer, audience)
    text = signing.issue(key, grant, SystemClock().now_s())
    if out:
        signing.write_new(out, text.encode() + b"\n", mode=0o600)
    else:
        click.echo(text)
