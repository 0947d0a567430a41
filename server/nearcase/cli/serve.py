"""nearcase serve."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearcase.settings_file import read_settings

if TYPE_CHECKING:
    from nearcase.serve.app import App


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the library.  [default: nearcase-data]")
@click.option("--listen", metavar="HOST:PORT", help="Address; port 0 takes a free one.  [default: 127.0.0.1:50051]")
@click.option(
    "--encoder", type=click.Path(path_type=Path), help="Folder of an encoder; default the general-purpose one."
)
@click.option("--findings", type=click.Path(path_type=Path), help="Folder of the findings that can be decided.")
@click.option("--settings", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="TOML file.")
@click.option(
    "--callers",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file that says who may call; unset: anyone.",
)
@click.option("--insecure/--no-insecure", default=None, help="Let others reach a server that asks nobody who they are.")
@click.option("--reflection/--no-reflection", default=None, help="Show the API by gRPC reflection; off by default.")
@click.option(
    "--deidentify/--no-deidentify", default=None, help="Keep pseudonyms, never who a case is; off by default."
)
@click.option(
    "--pseudonym-key", type=click.Path(dir_okay=False, path_type=Path), help="File with the secret for --deidentify."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line when the server is ready.")
def serve(
    data: Path | None,
    listen: str | None,
    encoder: Path | None,
    findings: Path | None,
    file: Path | None,
    callers: Path | None,
    insecure: bool | None,
    reflection: bool | None,
    deidentify: bool | None,
    pseudonym_key: Path | None,
    as_json: bool,
) -> None:
    """Run the server until SIGTERM or Ctrl-C, then finish what is in progress.

    Without settings it listens on this machine only and asks nobody who they are. Settings come from the TOML file,
    then from NEARCASE_* variables (NEARCASE_DECODE_WORKERS=4), then from these options.
    """
    settings = read_settings(
        file,
        data=data,
        listen=listen,
        encoder=encoder,
        findings=findings,
        callers=callers,
        insecure=insecure,
        reflection=reflection,
        deidentify=deidentify,
        pseudonym_key=pseudonym_key,
    )
    import uvloop  # heavy imports, after the options were checked

    from nearcase.serve.app import serve as run
    from nearcase.serve.logs import set_up_logs

    set_up_logs(settings.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, lambda app: _announce(app, as_json)))


def _announce(app: App, as_json: bool) -> None:
    summary = app.engine.summary
    if as_json:
        ready = {
            "event": "ready",
            "address": app.address,
            "pid": os.getpid(),
            "encoder": summary.name,
            "runtime": summary.runtime,
            "medical": summary.is_medical,
            "security": app.security.says,
        }
        click.echo(json.dumps(ready))
        return
    click.echo(f"nearcase is ready on {app.address}; library in {app.engine.settings.data}")
    click.echo(f"Security: {app.security.says}")
    click.echo(f"Encoder {summary.name} {summary.version} on {summary.runtime}: {summary.statement}")
