"""Tables are read as they come, columns are guessed and shown, and doubt is an error that names the option."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from audit_tables import Command, cohort, write

from nearcase.errors import InvalidInput, NotFound
from nearcase_eval.audit.roles import assign
from nearcase_eval.audit.source import open_source


@pytest.fixture
def audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


# Reading


@pytest.mark.parametrize(("encoding", "delimiter"), [("utf-8", ","), ("utf-8-sig", ";"), ("utf-16", "\t")])
def test_encodings_and_separators_give_the_same_columns(tmp_path: Path, encoding: str, delimiter: str) -> None:
    columns: dict[str, list[object]] = {
        "label": [1, 0, ""],
        "score": ["0.5", "1e-3", "NaN"],
        "sité": ["Zürich", " a ", "N/A"],
    }
    source = open_source(write(tmp_path / "t.csv", columns, encoding=encoding, delimiter=delimiter))
    table = source.read(["score"], ["label", "sité"])
    assert source.columns == ("label", "score", "sité")
    np.testing.assert_array_equal(table.numbers["score"], [0.5, 1e-3, np.nan])
    assert table.texts["sité"].cells().tolist() == ["Zürich", "a", ""]
    assert table.texts["label"].missing == 1


def test_gzip_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"label,score\n1,0.25\n"))
    assert open_source(tmp_path / "t.csv.gz").read(["score"], []).numbers["score"].tolist() == [0.25]


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow: pip install nearcase[parquet]")
    from pyarrow import parquet

    columns = cohort(40)
    columns["age"][3] = columns["score"][5] = None
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    blank = {name: ["" if cell is None else cell for cell in cells] for name, cells in columns.items()}
    names = ["image_id", "patient_id", "sex", "age", "label"]
    first = open_source(tmp_path / "t.parquet").read(["score"], names)
    second = open_source(write(tmp_path / "t.csv", blank)).read(["score"], names)
    np.testing.assert_array_equal(first.numbers["score"], second.numbers["score"])
    for name in names:
        assert first.texts[name].cells().tolist() == second.texts[name].cells().tolist()


def test_blocks_join_into_one_column(tmp_path: Path) -> None:
    n = 45_000  # more than two blocks
    path = write(tmp_path / "t.csv", {"score": range(n), "word": [f"w{row % 7}" for row in range(n)]})
    table = open_source(path).read(["score"], ["word"])
    np.testing.assert_array_equal(table.numbers["score"], np.arange(n))
    assert table.texts["word"].cells().tolist() == [f"w{row % 7}" for row in range(n)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"a,a\n1,2\n", "is there 2 times"),
        (b"label,score\n1\n", "expected 2 cells in each line, got 1"),
        (b"label,score\n1,0;5\n", "row 1 is none"),
        (b"label;score\n1;0,5\n", "a decimal comma"),
        (b"label,score,name\n1,0.5,M\xfcller\n", "line 2: expected utf-8"),
    ],
)
def test_what_can_not_be_read_says_why(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InvalidInput, match=said):
        open_source(tmp_path / "t.csv").read(["score"], ["label"])


def test_a_named_encoding_is_used(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("site\nMünchen\n".encode("windows-1252"))
    table = open_source(tmp_path / "t.csv", encoding="windows-1252").read([], ["site"])
    assert table.texts["site"].values == ("München",)


def test_a_missing_file_and_a_false_parquet(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        open_source(tmp_path / "none.csv")
    pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow: pip install nearcase[parquet]")
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(InvalidInput, match="no Parquet"):
        open_source(tmp_path / "t.parquet")


# Roles


def test_the_columns_of_nih_are_understood() -> None:
    roles = assign(["Image Index", "Patient ID", "Patient Age", "Patient Gender", "y_true", "y_score"])
    assert (roles.image, roles.patient, roles.age, roles.sex) == (
        "Image Index",
        "Patient ID",
        "Patient Age",
        "Patient Gender",
    )
    assert {"patient", "label", "score"} <= roles.guessed


def test_patterns_pair_labels_with_scores_whatever_the_order() -> None:
    columns = ["y_b", "y_a", "A_a", "A_b", "B_b", "B_a"]
    roles = assign(columns, label="y_*", score="A_*", compare="B_*")
    assert [(each.name, each.label, each.score, each.compared) for each in roles.findings] == [
        ("b", "y_b", "A_b", "B_b"),
        ("a", "y_a", "A_a", "B_a"),
    ]


def test_a_guessed_label_pattern_does_not_take_the_scores() -> None:
    roles = assign(["y_edema", "y_mass", "y_score_edema", "y_score_mass"])
    assert [(each.label, each.score) for each in roles.findings] == [
        ("y_edema", "y_score_edema"),
        ("y_mass", "y_score_mass"),
    ]


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        (["patient_id", "subject_id", "label", "score"], {}, "--patient"),
        (["label", "truth", "score"], {}, "--label"),
        (["label", "score", "prob"], {}, "--score"),
        (["label", "sex", "gender", "score"], {}, "sex"),
        (["outcome_x", "thing"], {}, "--label"),
        (["label_a", "label_b", "score_a"], {}, "finding 'b'"),
        (["label", "score"], {"patient": "who"}, "--patient: there is no column 'who'"),
        (["y_a", "s_a"], {"label": "y_*", "score": "*_*"}, "at most one"),
    ],
)
def test_doubt_names_the_option(columns: list[str], options: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said.replace("*", r"\*")):
        assign(columns, **options)


def test_what_was_guessed_is_shown(audit: Command, tmp_path: Path) -> None:
    found = audit.run(write(tmp_path / "t.csv", cohort(200)))
    for line in ("patient: patient_id (guessed)", "sex: sex (guessed)", "finding score: label label, score score"):
        assert line.replace("finding score", "finding label") in found.err


def test_metadata_is_joined_and_what_it_lacks_is_counted(audit: Command, tmp_path: Path) -> None:
    columns = cohort(300)
    people = {name: columns.pop(name)[:-5] for name in ("sex", "age")}
    people["image_id"] = columns["image_id"][:-5]
    order = np.random.default_rng(0).permutation(295)
    people = {name: [cells[place] for place in order] for name, cells in people.items()}
    metadata = write(tmp_path / "people.csv", people)
    joined = audit.run(write(tmp_path / "t.csv", columns), "--metadata", metadata, "--on", "image_id").report
    assert {"what": "kept, but without a line in the metadata", "rows": 5} in joined["flow"]["steps"]
    assert {"what": "sex", "rows": 5} in joined["flow"]["missing"]
    whole = cohort(300)
    for name in ("sex", "age"):
        whole[name][-5:] = [""] * 5
    direct = audit.run(write(tmp_path / "w.csv", whole)).report
    assert joined["groups"] == direct["groups"]


def test_metadata_with_two_lines_for_an_image_is_refused(audit: Command, tmp_path: Path) -> None:
    columns = cohort(50)
    people = {"image_id": ["img1", "img1"], "site": ["a", "b"]}
    found = audit.run(write(tmp_path / "t.csv", columns), "--metadata", write(tmp_path / "m.csv", people))
    assert found.code == 2
    assert "several lines" in found.err
