"""The backup that the chart's job makes, and the drill: export, lose the folder, import, find the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from serving import scan, serving

from nearcase.client import Client
from nearcase.requests import AddItem

pytest.importorskip("pyarrow", reason="exports are Parquet files: pip install nearcase[parquet]")

SCRIPT = Path(__file__).parents[1] / "helm" / "nearcase" / "files" / "backup.sh"
PROGRAMS = Path(sys.executable).parent

pytestmark = pytest.mark.system


def back_up(
    folder: Path, server: str, name: str, *, keep: int = 2, tenants: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs what the chart's job runs."""
    own = {"FOLDER": str(folder), "SERVER": server, "NAME": name, "KEEP": str(keep), "TENANTS": tenants}
    environment = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", **own}
    command = ["sh", "-c", SCRIPT.read_text()]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=120)


def fill(server: str, count: int) -> None:
    with Client(server) as client:
        items = [AddItem(str(seed), scan(seed), {"fracture": "yes" if seed % 2 else "no"}) for seed in range(count)]
        assert {result.outcome for result in client.add(items)} == {"added"}


def answer(server: str) -> list[tuple[str, float, dict[str, str]]]:
    with Client(server) as client:
        hits = client.search(scan(3, patient="another"), k=5).hits
        return [(hit.case.case_id, hit.similarity, dict(hit.case.labels)) for hit in hits]


def snapshot(server: str) -> str:
    with Client(server) as client:
        return client.transfer.identity("").snapshot


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def test_the_drill_gives_the_same_answers_back(tmp_path: Path) -> None:
    backup, data = tmp_path / "backup", tmp_path / "data"
    backup.mkdir()
    with serving(data) as server:
        fill(server.address, 12)
        before, state = answer(server.address), snapshot(server.address)
        assert len(before) == 5
        done = back_up(backup, server.address, "nearcase-backup-1")
        assert done.returncode == 0, done.stderr
    shutil.rmtree(data)  # the volume is lost
    with serving(data) as server:
        assert answer(server.address) == []
        command = [str(PROGRAMS / "nearcase"), "library", "import", str(backup / "nearcase-backup-1"), "--json"]
        done = subprocess.run(
            [*command, "--server", server.address], check=False, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert answer(server.address) == before
        assert snapshot(server.address) == state


def test_only_the_newest_whole_exports_are_kept(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    (backup / "yesterday").mkdir()
    os.utime(backup / "yesterday", (time.time() - 90_000,) * 2)  # an export that was never ended
    (backup / "just-now").mkdir()
    with serving(tmp_path / "data") as server:
        fill(server.address, 3)
        for number in range(4):
            assert back_up(backup, server.address, f"nearcase-backup-{number}").returncode == 0
            os.utime(backup / f"nearcase-backup-{number}" / "whole", (1_000_000_000 + number,) * 2)
        assert names(backup) == {"nearcase-backup-2", "nearcase-backup-3", "just-now"}


def test_a_repeated_job_goes_on_and_a_failed_one_removes_nothing(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    with serving(tmp_path / "data") as server:
        fill(server.address, 3)
        assert back_up(backup, server.address, "nearcase-backup-1").returncode == 0
        stated = (backup / "nearcase-backup-1" / "export.json").read_bytes()
        assert back_up(backup, server.address, "nearcase-backup-1").returncode == 0
        assert (backup / "nearcase-backup-1" / "export.json").read_bytes() == stated
    done = back_up(backup, server.address, "nearcase-backup-2", keep=1)
    assert done.returncode != 0
    assert (backup / "nearcase-backup-1" / "export.json").is_file()
    assert not (backup / "nearcase-backup-2" / "whole").exists()
    assert json.loads(stated)["case_count"] == 3


def test_each_tenant_has_an_export_of_its_own(tmp_path: Path) -> None:
    settings = tmp_path / "nearcase.toml"
    settings.write_text('tenants = "metadata"\n')
    backup = tmp_path / "backup"
    backup.mkdir()
    with serving(tmp_path / "data", "--settings", str(settings)) as server:
        for tenant, count in (("north", 2), ("south", 3)):
            with Client(server.address, tenant=tenant) as client:
                list(client.add([AddItem(str(seed), scan(seed)) for seed in range(count)]))
        done = back_up(backup, server.address, "nearcase-backup-1", tenants="north south")
        assert done.returncode == 0, done.stderr
    counts = {
        each.name: json.loads((each / "export.json").read_text())["case_count"]
        for each in (backup / "nearcase-backup-1").iterdir()
        if each.is_dir()
    }
    assert counts == {"north": 2, "south": 3}
