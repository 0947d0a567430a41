"""What `nearcase inspect --json` prints is what docs/inspect.schema.json says, for answers and for refusals."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from dicom_files import dicom_file
from hostile import HOSTILE
from serving import picture

from nearcase.types import CaseFacts

SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "inspect.schema.json").read_text())

pytestmark = pytest.mark.system


def inspect(path: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """Returns exit code, what was printed, and stderr."""
    command = [sys.executable, "-W", "error", "-m", "nearcase", "inspect", str(path), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    told: dict[str, Any] = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    jsonschema.validate(told, SCHEMA, jsonschema.Draft202012Validator)
    return done.returncode, told, done.stderr


def test_the_schema_is_one_and_names_every_fact() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    stated = SCHEMA["$defs"]["facts"]["properties"]
    assert list(stated) == [each.name for each in dataclasses.fields(CaseFacts)]
    assert set(stated) == set(SCHEMA["$defs"]["file"]["properties"]["facts"]["required"])


@pytest.mark.parametrize("name", ["CT_small.dcm", "examples_ybr_color.dcm", "examples_palette.dcm", "liver_1frame.dcm"])
def test_real_files(pydicom_files: Path, name: str) -> None:
    path = pydicom_files / name
    code, told, stderr = inspect(path)
    assert (code, stderr) == (0, "")
    assert told["file"] == str(path)
    assert told["pixels"]["rows"] > 0


def test_plain_pictures_state_nothing(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(picture(1))
    _, told, _ = inspect(path)
    assert not any(told["facts"].values())
    assert told["pixels"]["transfer_syntax_uid"] == ""


def test_a_folder_of_series(pydicom_files: Path) -> None:
    code, told, _ = inspect(pydicom_files / "dicomdirtests" / "98892001")
    assert code == 0
    assert {"shape", "refused"} <= {name for series in told["series"] for name in series}


@pytest.mark.parametrize("kind", ["random bytes", "cut in the pixels", "video", "patient id that climbs"])
def test_refusals_are_objects_for_machines_and_a_line_for_people(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "hostile.dcm"
    path.write_bytes(HOSTILE[kind]())
    code, told, stderr = inspect(path)
    assert code == 2
    assert stderr == f"nearcase: {told['error']['message']}\n"


def test_wrong_use_is_a_refusal_too(tmp_path: Path) -> None:
    path = tmp_path / "good.dcm"
    path.write_bytes(dicom_file())
    code, told, _ = inspect(path, "--frame", "7")
    assert (code, told["error"]["reason"]) == (2, "NO_SUCH_FRAME")
    code, told, _ = inspect(tmp_path / "missing.dcm")
    assert (code, told["error"]["reason"]) == (2, "USAGE")
