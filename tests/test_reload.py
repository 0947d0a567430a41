"""Findings that change while a server runs: checked first, used at once, and never half."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from made_library import POINT, declare, fill, finding_text, fitted_on, made_cases, reference_of
from serving import serving, serving_here

from nearcase.client import Client
from nearcase.decide.fitted import Fitted, write_fitted
from nearcase.serve.reload import Declarations

pytestmark = pytest.mark.system
CASE = made_cases()[2][0].case_id
MASS = finding_text("mass", POINT)
WAIT_S = 20.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reloading")
    fill(folder, made_cases())
    return folder


@pytest.fixture(scope="module")
def fitted(data: Path) -> Fitted:
    return fitted_on(reference_of(data, MASS), MASS)


def names(client: Client) -> list[str]:
    return [finding.name for finding in client.findings() if finding.operating_points]


def until(client: Client, expected: list[str]) -> None:
    end_s = time.monotonic() + WAIT_S
    while names(client) != expected:
        assert time.monotonic() < end_s, names(client)
        time.sleep(0.1)


def test_a_changed_folder_is_used_and_a_wrong_one_is_not(data: Path, fitted: Fitted, tmp_path: Path) -> None:
    folder = tmp_path / "findings"
    declare(folder, MASS, fitted)
    with serving(data, "--findings", str(folder)) as server, Client(server.address) as client:
        assert names(client) == ["mass"]
        declare(folder, finding_text("nodule", POINT), fitted)
        until(client, ["mass", "nodule"])
        assert client.decide(case_id=CASE, finding="nodule").decisions[0].operating_point is not None
        (folder / "mass.toml").write_text("name = 7")
        os.kill(server.process.pid, signal.SIGHUP)
        time.sleep(3)
        assert names(client) == ["mass", "nodule"]
        assert client.decide(case_id=CASE, finding="mass").decisions[0].operating_point is not None
        (folder / "mass.toml").unlink()
        until(client, ["nodule"])


async def test_a_wrong_file_is_told_by_the_metric_and_the_log(
    data: Path, fitted: Fitted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "findings"
    declare(folder, MASS, fitted)
    async with serving_here(data, findings=folder) as app:
        before = await app.engine.tenants.of("").findings.one("mass")
        edited = write_fitted(fitted).replace(b'"made_by":"', b'"made_by":"x', 1)
        assert edited != write_fitted(fitted)
        (folder / "mass.json").write_bytes(edited)
        assert not await app.reload.now()
        assert not app.reload.is_valid
        assert "the old ones stay" in caplog.text
        assert await app.engine.tenants.of("").findings.one("mass") == before
        (folder / "mass.json").write_bytes(write_fitted(fitted))
        assert await app.reload.now()
        assert app.reload.is_valid


async def test_counts_are_of_the_finding_that_is_declared_now(data: Path, fitted: Fitted, tmp_path: Path) -> None:
    folder = tmp_path / "findings"
    declare(folder, MASS, fitted)
    async with serving_here(data, findings=folder) as app:
        findings = app.engine.tenants.of("").findings
        every = await findings.labelled_count((await findings.one("mass"))[0])
        declare(folder, finding_text("mass", POINT + '[scope]\nfilter = "sex = F"\n'), fitted)
        assert await app.reload.now()
        women = await findings.labelled_count((await findings.one("mass"))[0])
        assert (every, women) == (400, 200)


def test_a_folder_that_is_read_while_it_is_replaced_is_one_or_the_other(fitted: Fitted, tmp_path: Path) -> None:
    declare(tmp_path, MASS, fitted)
    declared = Declarations(tmp_path)
    held = dict(declared)
    declared.replace({})
    assert list(held) == ["mass"]
    assert not declared
