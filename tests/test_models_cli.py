"""nearcase-models as a user meets it: what it prints, what it refuses in one line, and its exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_encoders import SIDE_PX, tiny_encoder
from volumes import tiny_checkpoint, tiny_volume_encoder

from nearcase.encode.card import read_card

cli = pytest.importorskip("nearcase_models.cli")


def invoke(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(each) for each in arguments])
    out = capsys.readouterr()
    return int(ended.value.code or 0), out.out, out.err


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    tiny_encoder(folder / "flat", "flat", seed=1)
    tiny_volume_encoder(folder / "deep")
    return folder


def test_the_list_tells_what_each_folder_is(encoders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = invoke(capsys, "list", encoders, "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert set(rows) == {"efficientnet-lite0", "flat", "astra-chest-ct"}
    assert rows["astra-chest-ct"]["recipe"] == "chest-ct-1-32x32x32"
    assert rows["flat"]["is_medical"] is False
    code, out, _ = invoke(capsys, "list", encoders / "flat")
    assert code == 0
    assert "not medical" in out


def test_a_damaged_folder_is_listed_with_the_reason(
    encoders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = Path(shutil.copytree(encoders / "flat", tmp_path / "damaged"))
    with (damaged / "encoder.onnx").open("ab") as stream:
        stream.write(b"more")
    code, out, _ = invoke(capsys, "list", tmp_path, "--json")
    assert code == 2
    assert "sha256" in json.loads(out)[-1]["error"]


def test_what_a_broken_import_left_is_no_encoder(
    encoders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(encoders / "flat", tmp_path / ".flat.0a1b2c3d")
    _, out, _ = invoke(capsys, "list", tmp_path, "--json")
    assert [row["name"] for row in json.loads(out)] == ["efficientnet-lite0"]


@pytest.mark.parametrize("name", ["flat", "deep"])
def test_sound_encoders_verify(encoders: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = invoke(capsys, "verify", encoders / name)
    assert code == 0
    assert out.count("ok  ") == 6
    assert "FAIL" not in out


def test_verify_names_the_check_that_fails(encoders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(encoders / "flat", tmp_path / "off"))
    with np.load(folder / "golden.npz") as stored:
        arrays = dict(stored)
    arrays["embeddings"] = arrays["embeddings"][::-1]
    np.savez(folder / "golden.npz", **arrays)
    code, out, _ = invoke(capsys, "verify", folder, "--json")
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == 2
    assert not checks["golden embeddings"]["is_good"]
    assert "got 0." in checks["golden embeddings"]["told"] or "got -0." in checks["golden embeddings"]["told"]
    assert checks["card and SHA-256"]["is_good"]


def test_bench_tells_medians_by_batch(encoders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = invoke(capsys, "bench", encoders / "flat", "--batch", "1", "--batch", "3", "--json")
    told = json.loads(out)
    assert code == 0
    assert [row["batch"] for row in told["batches"]] == [1, 3]
    assert all(0 < row["cpu_ms"] < 1000 and row["calls"] >= 5 for row in told["batches"])
    assert told["encoder"].startswith("flat:")


def test_a_bare_file_is_imported_and_called_not_medical(
    encoders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("import", "onnx", encoders / "flat" / "encoder.onnx", "--out", out, "--size", SIDE_PX)
    code, told, _ = invoke(capsys, *map(str, words), "--name", "My Net!")
    assert code == 0
    assert "not medical, not validated" in told
    card = read_card(out)
    assert (card.name, card.licence, card.is_medical) == ("my-net", "not stated", False)
    code, _, error = invoke(capsys, *map(str, words))
    assert (code, error) == (2, "nearcase-models: expected a new folder, got out, which is there already\n")


def test_medical_needs_a_licence_and_a_sentence(
    encoders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, out = encoders / "flat" / "encoder.onnx", tmp_path / "out"
    words: list[str | Path] = ["import", "onnx", network, "--out", out, "--size", str(SIDE_PX)]
    sentence = "For chest radiographs, validated at one site."
    code, _, error = invoke(capsys, *words, "--medical", sentence)
    assert code == 2
    assert "--licence" in error
    code, _, _ = invoke(capsys, *words, "--medical", sentence, "--licence", "MIT")
    assert code == 0
    card = read_card(out)
    assert (card.is_medical, card.statement, card.licence) == (True, sentence, "MIT")


def test_refusals_are_one_line_and_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tmp_path / "words.pt"
    words.write_text("words")
    for arguments in (
        ("import", "astra", "--checkpoint", words, "--out", tmp_path / "out"),
        ("import", "onnx", words, "--out", tmp_path / "out"),
        ("verify", tmp_path / "absent"),
    ):
        code, out, error = invoke(capsys, *arguments)
        assert code == 2
        assert out == ""
        assert error.strip()
    assert [path.name for path in tmp_path.iterdir()] == ["words.pt"]


def test_a_network_of_another_size_is_not_astra(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "tiny.pt")
    code, _, error = invoke(capsys, "import", "astra", "--checkpoint", checkpoint, "--out", tmp_path / "out")
    assert code == 2
    assert error.startswith("nearcase-models: expected 930 tensors, found no layer1.1.")


def test_text_needs_a_text_tower(encoders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = invoke(capsys, "embed-text", "--encoder", encoders / "flat", "chest x-ray")
    assert code == 2
    assert "text" in error


@pytest.mark.parametrize("command", [[], ["list"], ["import"], ["export"], ["verify"], ["bench"], ["embed-text"]])
def test_help_teaches(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = invoke(capsys, *command, "--help")
    assert code == 0
    assert len(out.splitlines()) > 6
