"""The table of labels: what each row says, and wrong tables told by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearcase.cli.labels import read_labels
from nearcase.errors import InvalidInput


def write(folder: Path, text: str) -> Path:
    file = folder / "labels.csv"
    file.write_bytes(text.encode("utf-8"))
    return file


def test_rows_hold_labels_and_facts(tmp_path: Path) -> None:
    columns = "\ufeffimage,patient_id,sex,age,label_mass,label_side,source,licence"
    text = f"{columns}\r\na/1.png,P1,f,45,1,,here,CC0\r\n2.png,,,,0,L,,\r\n"
    table = read_labels(write(tmp_path, text))
    assert table.ignored_columns == ("licence",)
    one, two = table.row(Path("/x/a/1.png")), table.row(Path("deep/down/2.png"))
    assert one is not None
    assert two is not None
    assert (one.labels, one.facts.patient_id, one.facts.sex, one.facts.age_years, one.source) == (
        {"mass": "1"}, "P1", "F", 45.0, "here"
    )  # fmt: skip
    assert (two.labels, two.facts.age_years) == ({"mass": "0", "side": "L"}, None)
    assert table.row(Path("b/1.png")) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no header"),
        ("file,label_x\na,1\n", "column 'image'"),
        ("image,image\na,b\n", "each column once"),
        ("image,age\na,old\n", "line 2"),
        ("image,age\na,1\na,2\n", "line 3"),
        ("image,age\na\n", "line 2"),
        ("image,age\na,1,2\n", "line 2"),
        ("image,age\n,1\n", "line 2"),
        ('image,age\n"a,1\n', "CSV"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        read_labels(write(tmp_path, text))


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes("image,source\na,Zürich\n".encode("latin-1"))
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_labels(file)
