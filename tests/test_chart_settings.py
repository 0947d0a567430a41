"""The settings and callers files of the chart are those that the server reads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from nearcase.cli.library_export import export_library
from nearcase.serve.access import read_access
from nearcase.settings_file import read_settings

helm_python = pytest.importorskip("helm_python", reason="helm-python-sdk renders the chart: pip install nearcase[dev]")
pytest.importorskip("kubernetes_validate", reason="kubernetes-validate holds the schemas: pip install nearcase[dev]")

from charts import (  # noqa: E402  (after the skips)
    SHAPES,
    changed,
    file_of,
    named,
    of_shape,
    pods_in,
    rendered,
    values_of,
    whole_chart,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_chart(tmp_path_factory.mktemp("chart"))


@pytest.fixture(scope="module")
def chart(folder: Path) -> Iterator[Any]:
    with helm_python.Chart.load(folder) as chart:
        yield chart


@pytest.mark.parametrize("shape", SHAPES)
def test_the_server_reads_the_settings_of_every_shape(chart: Any, shape: str, tmp_path: Path) -> None:
    (tmp_path / "nearcase.toml").write_text(file_of(rendered(chart, of_shape(shape, True))))
    settings = read_settings(tmp_path / "nearcase.toml", environment={})
    assert settings.index == ("qdrant" if shape == "qdrant" else "edge")
    assert settings.deidentify
    assert str(settings.encoder) == "/encoder/medimageinsight/1"
    if shape == "qdrant":
        assert settings.qdrant_url == "https://release-qdrant.imaging.svc:6334"
        assert settings.qdrant_replicas == 2


def test_numbers_of_the_settings_file_keep_their_type(chart: Any) -> None:
    given = {
        "max_message_bytes": 2**31 - 1,
        "max_bytes_in_flight": 2**31,
        "retention_days": 0.25,
        "drain_s": 7,
        "qdrant_timeout_s": 1e3,
    }
    values = changed(values_of("qdrant"), ("settings",), given)
    read = tomllib.loads(file_of(rendered(chart, values)))
    assert {name: read[name] for name in given} == given
    assert isinstance(read["max_message_bytes"], int)


def test_the_callers_file_is_what_the_server_reads(chart: Any, tmp_path: Path) -> None:
    found = rendered(chart, of_shape("embedded", True))
    text = named(found, "ConfigMap", "release-nearcase")["data"]["callers.toml"]
    assert tomllib.loads(file_of(found))["callers"] == "/etc/nearcase/callers.toml"
    (tmp_path / "callers.toml").write_text(text)
    access = read_access(tmp_path / "callers.toml", with_tenants=True, largest_bytes=2**20)
    assert access.tls is not None
    assert str(access.tls.key) == "/secrets/tls/tls.key"
    assert access.tokens is not None
    assert access.tokens.keys == "https://identity.example/keys"
    assert access.certificates["dns:gateway.example"].roles == {"search", "add"}
    assert access.bytes_in_flight == 2**31


@pytest.mark.parametrize("text", ['a"b', "a'b", "{{ .Release.Name }}", "\u2028\U0001f9e0", "a\nb", "a]\n[tls]"])
def test_hostile_text_in_the_callers_file_is_a_string_or_refused(chart: Any, text: str) -> None:
    rows = [{"identity": f"cn:{text}", "roles": ["search"], "tenant": "north"}]
    values = changed(of_shape("embedded", True), ("callers", "certificates"), rows)
    values = changed(values, ("callers", "tokens", "issuer"), text)
    try:
        found = rendered(chart, values)
    except helm_python.HelmError:
        return
    told = tomllib.loads(named(found, "ConfigMap", "release-nearcase")["data"]["callers.toml"])
    assert told["certificate"][0]["identity"] == f"cn:{text}"
    assert told["tokens"]["issuer"] == text


def certificate(folder: Path) -> None:
    """A key and a certificate of this machine, signed by itself, as the secret of the chart holds them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nearcase")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = made.add_extension(names, critical=False).sign(key, hashes.SHA256())
    folder.mkdir(parents=True)
    (folder / "tls.crt").write_bytes(signed.public_bytes(Encoding.PEM))
    (folder / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.mark.system
def test_the_settings_file_starts_the_server_and_its_probe_answers(chart: Any, tmp_path: Path) -> None:
    values = changed(
        values_of("embedded"), ("callers", "tokens"), {"issuer": "us", "keys": {"secret": "k", "key": "k"}}
    )
    found = rendered(chart, values)
    health, program = "127.0.0.1:50952", str(Path(sys.executable).with_name("nearcase"))
    for name, text in named(found, "ConfigMap", "release-nearcase")["data"].items():
        text = text.replace('"/etc/nearcase', f'"{tmp_path}').replace("0.0.0.0:50052", health)
        text = re.sub(r'"/(secrets|data|erasures|audit)', rf'"{tmp_path}/\1', text).replace(
            "0.0.0.0:50051", "127.0.0.1:0"
        )
        (tmp_path / name).write_text(text)
    for volume in ("erasures", "audit"):
        (tmp_path / volume).mkdir()
    certificate(tmp_path / "secrets" / "tls")
    run([program, "token", "new-key", "--out", str(tmp_path / "private")])
    (tmp_path / "private.pub").rename(tmp_path / "secrets" / "token-keys")
    issue = ["token", "issue", "--key", str(tmp_path / "private"), "--name", "job", "--role", "admin", "--issuer", "us"]
    run([program, *issue, "--out", str(tmp_path / "token")])
    (server,) = named(found, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    arguments = [each.replace("/etc/nearcase", str(tmp_path)) for each in server["args"]]
    process = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        (probe,) = named(found, "Pod")["spec"]["containers"]
        check = [program, *(health if each.endswith("svc:50052") else each for each in probe["args"])]
        assert "4 services are ready" in run(check).stdout
        # A job of the release shows who it is by the variables that the chart sets.
        mounted = {"NEARCASE_CLIENT_CA": "secrets/tls/tls.crt", "NEARCASE_TOKEN_FILE": "token"}
        shown = {name: str(tmp_path / path) for name, path in mounted.items()}
        assert "0 cases" in run([program, "library", "info", "--server", ready["address"]], shown).stdout
        stranger = run([program, "library", "info", "--server", ready["address"]], is_done=False)
        assert stranger.returncode != 0
    finally:
        process.terminate()
        assert process.wait(30) == 0
        process.stdout.close()
    assert list((tmp_path / "audit" / "trail").glob("*.jsonl"))
    assert not (tmp_path / "data" / "nearcase" / "audit").exists()
    assert run(check, is_done=False).returncode == 1


def run(
    command: list[str], more: dict[str, str] | None = None, *, is_done: bool = True
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env=os.environ | (more or {})
    )
    assert not is_done or done.returncode == 0, done.stdout + done.stderr
    return done


def test_jobs_of_the_release_name_variables_that_the_commands_read(chart: Any) -> None:
    job = named(rendered(chart, of_shape("embedded", True)), "CronJob")
    (pod,) = pods_in(job)
    told = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    ours = {name for name in told if name.startswith("NEARCASE_")}
    assert ours == {"NEARCASE_CLIENT_CA", "NEARCASE_TOKEN_FILE", "NEARCASE_CLIENT_CERT", "NEARCASE_CLIENT_KEY"}
    read = {param.envvar for param in export_library.params if isinstance(param, click.Option)}
    assert ours <= read
    (volume,) = [each for each in pod["volumes"] if each["name"] == "client"]
    paths = {f"/client/{item['path']}" for each in volume["projected"]["sources"] for item in each["secret"]["items"]}
    assert {told[name] for name in ours} | {"/client/tenants/north"} == paths
    assert told["TENANTS"] == "north south"
