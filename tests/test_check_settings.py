"""`nearcase check --settings` says no to what a server would refuse before it opens anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from auth_files import TLS, TOKENS, authority, callers_file, jwk, rsa_key, write_tls
from click.testing import CliRunner

from nearcase.cli.check import check
from nearcase.clock import SystemClock
from nearcase.errors import InvalidInput
from nearcase.serve.app import start
from nearcase.serve.security import open_security
from nearcase.settings_file import read_settings

KEY = rsa_key()
OPEN = 'listen = "0.0.0.0:0"\n'
BY_HTTP = '[tokens]\nissuer = "x"\nkeys = "http://login.example/keys"\n'
BY_CERTIFICATE = '[[certificate]]\nidentity = "dns:a"\nroles = ["search"]\n'


def written(folder: Path, settings: str, callers: str | None) -> Path:
    (folder / "keys").write_text(json.dumps({"keys": [jwk(KEY, "k1")]}))
    write_tls(folder, authority("ca"))
    lines = [f"data = {json.dumps(str(folder / 'data'))}\n", settings]
    if callers is not None:
        lines.append(f"callers = {json.dumps(str(callers_file(folder, callers)))}\n")
    file = folder / "nearcase.toml"
    file.write_text("".join(lines))
    return file


def asked(file: Path) -> tuple[int, str]:
    """The exit code of the check, and what it says."""
    told = CliRunner().invoke(check, ["--settings", str(file), "--json"])
    return told.exit_code, json.loads(told.stdout)["settings"]["message"]


@pytest.mark.parametrize(
    ("settings", "callers"),
    [
        (OPEN, None),
        (OPEN, TOKENS),
        ('tenants = "caller"\n', None),
        ('tenants = "metadata"\n', TOKENS),
        ("", BY_HTTP),
        ("", TLS + BY_HTTP),
        ("", TLS + BY_CERTIFICATE),
        ("", "bytes_in_flight = 1\n" + TOKENS),
        ("", "requests_per_s = 100\n"),
    ],
)
async def test_what_a_server_refuses_is_refused_in_the_same_words(
    tmp_path: Path, settings: str, callers: str | None
) -> None:
    file = written(tmp_path, settings, callers)
    with pytest.raises(InvalidInput) as refused:
        await start(read_settings(file))
    assert asked(file) == (1, str(refused.value))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("settings", "callers"),
    [
        ("", None),
        ('tenants = "metadata"\n', None),
        (OPEN + "insecure = true\n", None),
        (OPEN + "insecure = true\n", TOKENS),
        (OPEN, TLS + TOKENS),
        ('tenants = "caller"\n', TOKENS),
    ],
)
async def test_what_a_server_takes_is_taken_and_said(tmp_path: Path, settings: str, callers: str | None) -> None:
    file = written(tmp_path, settings, callers)
    security = await open_security(read_settings(file), SystemClock())
    code, says = asked(file)
    assert code == 0
    assert says.endswith(security.says)


def test_files_of_secrets_are_not_opened(tmp_path: Path) -> None:
    """Before an upgrade there are none."""
    file = written(tmp_path, OPEN, TLS + TOKENS)
    for name in ("keys", "tls.crt", "tls.key"):
        (tmp_path / name).unlink()
    assert asked(file)[0] == 0
