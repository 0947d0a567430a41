"""Findings are read strictly: whatever is wrong is told by file, line and column."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from decisions import MASS, fit
from hypothesis import given
from hypothesis import strategies as st

from nearcase.decide import places as toml
from nearcase.decide.finding import Code, Finding, Floors, Prompt, Scope, Scorer
from nearcase.decide.findings import read_finding, read_findings
from nearcase.decide.fitted import write_fitted
from nearcase.errors import InvalidInput
from nearcase.types import CaseFacts

WHOLE = """\
# A finding with every key.
name = "melanoma"
version = "2026-11"
display_name = "Melanoma"
label = "melanoma"
positive_values = ["1", "in situ"]
negative_values = ["0"]
fitted = "melanoma.json"
default_operating_point = "sensitivity-90"
codes = [
  { scheme = "SCT", value = "372244006", meaning = "Malignant melanoma" }, # its code
  { scheme = "RADLEX", value = "RID34617", meaning = "melanoma" },
]

[scope]
filter = "source = isic or source = here"
modality = ["XC", "GM"]
body_part = ["SKIN"]
age_years = [18, 90.5]

[scorer]
kind = "blend"
k = 25
temperature = 50
vote = "plain"
templates = ["a photograph of {}"]
[scorer.class_weights]
1 = 2.0
"in situ" = 0.5
[scorer.blend]
neighbours = 1
prompt = 3
[[scorer.prompts]]
value = "1"
names = ["melanoma", "a skin cancer"]
[[scorer.prompts]]
value = "0"
names = ["a harmless mole"]

[abstain]
minimum_evidence = 20
least_agreement = 0.6
least_similarity = 0.3
library_change = 0.1
groups = ["sex", "age"]
"""


def test_the_example_of_the_guide_is_read() -> None:
    text = (Path(__file__).parents[1] / "docs" / "findings.md").read_text("utf-8")
    assert read_finding(text.split("```toml\n")[1].split("```")[0], "melanoma.toml").name == "melanoma"


def test_every_key_is_read() -> None:
    finding = read_finding(WHOLE, "melanoma.toml")
    assert finding == Finding(
        name="melanoma",
        version="2026-11",
        label="melanoma",
        display_name="Melanoma",
        positive_values=("1", "in situ"),
        negative_values=("0",),
        codes=(Code("SCT", "372244006", "Malignant melanoma"), Code("RADLEX", "RID34617", "melanoma")),
        scope=Scope("source = isic or source = here", ("XC", "GM"), ("SKIN",), 18.0, 90.5),
        scorer=Scorer(
            kind="blend",
            k=25,
            temperature=50.0,
            is_weighted=False,
            class_weights=(("1", 2.0), ("in situ", 0.5)),
            blend=(("neighbours", 1.0), ("prompt", 3.0)),
            templates=("a photograph of {}",),
            prompts=(Prompt("1", ("melanoma", "a skin cancer")), Prompt("0", ("a harmless mole",))),
        ),
        floors=Floors(20, 0.6, 0.3, 0.1, ("sex", "age")),
        fitted="melanoma.json",
        default_operating_point="sensitivity-90",
    )
    assert finding.scorer.parts == (("neighbours", 0.25), ("prompt", 0.75))
    assert finding.scorer.texts()[0] == ("1", ("a photograph of melanoma", "a photograph of a skin cancer"))
    assert finding.scope.takes(CaseFacts(modality="XC", age_years=18.0))
    assert finding.scope.takes(CaseFacts())
    assert not finding.scope.takes(CaseFacts(body_part="CHEST"))
    assert not finding.scope.takes(CaseFacts(age_years=90.5))


SHORT = 'name = "mass"\nversion = "1"\nlabel = "mass"\npositive_values = ["1"]\n'

WRONG = [
    ('nme = "x"\n', "", 5, 1, "nme", "no such key"),
    ('display_name = "Mass\\u202E"\n', "", 5, 1, "display_name", "format characters, got 'Mass\\u202e'"),
    ('display_name = "Ma\\u0007ss"\n', "", 5, 1, "display_name", "one printable line"),
    (f'display_name = "{"M" * 201}"\n', "", 5, 1, "display_name", "at most 200 characters, got 201"),
    ('[[codes]]\nscheme = "SCT"\nvalue = "1"\nmeaning = "x\\u200b"\n', "", 8, 1, "codes[0].meaning", "printable"),
    ("", 'version = "1"\n', 1, 1, "version", "no such key"),
    ("  [scorer]\n  k = 0\n", "", 6, 3, "scorer.k", "whole number from 1"),
    ("[scorer]\n\n k =  true", "", 7, 2, "scorer.k", "True"),
    ("[scorer]\ntemperature = nan\n", "", 6, 1, "scorer.temperature", "nan"),
    ("[scorer]\nkind='knn'\n", "", 6, 1, "scorer.kind", "neighbours or probe"),
    ("[scorer]\nkind = 'probe'\n", "", 6, 1, "scorer.kind", "neighbours"),
    ("[scorer.class_weights]\n'1' = 2\n'0' = -1\n", "", 7, 1, "scorer.class_weights.0", "-1"),
    ("[scorer.class_weights]\n'1' = 2\n'l' = 3\n", "", 7, 1, "scorer.class_weights.l", "of one of positive_values"),
    ("[scorer]\nclass_weights = {'1' = 2, '0' = 3}\n", "", 6, 27, "scorer.class_weights.0", "negative_values"),
    ("[scorer]\nblend = {neighbours = 1}\n", "", 6, 1, "scorer.blend", "exactly where"),
    ("[scorer]\nblend = {neighbours = 1, knn = 2}\n", "", 6, 26, "scorer.blend.knn", "no such key"),
    ("scope.filter = 'modality ='\n", "", 5, 7, "scope.filter", "column 11"),
    ("scope = { age_years = [90, 18] }\n", "", 5, 11, "scope.age_years", "first below the second"),
    ("scope = { age_years = [1, -1] }\n", "", 5, 27, "scope.age_years[1]", "-1"),
    ('scope.modality = ["CT", "ct"]\n', "", 5, 25, "scope.modality[1]", "ct"),
    ('negative_values = [\n  "0",\n  "1"]\n', "", 7, 3, "negative_values[1]", "not among"),
    ('negative_values = ["0", "0"]\n', "", 5, 25, "negative_values[1]", "different"),
    ('[[codes]]\nscheme = "SCT"\nvalue = 1\n', "", 7, 1, "codes[0].value", "one line"),
    ('[[codes]]\nscheme = "SCT"\n[[codes]]\n', "", 5, 3, "codes[0].value", "no such key"),
    ("codes = 3\n", "", 5, 1, "codes", "a list"),
    ("abstain = []\n", "", 5, 1, "abstain", "a table"),
    ("abstain.groups = ['race']\n", "", 5, 19, "abstain.groups[0]", "race"),
    ('fitted = "../x.json"\n', "", 5, 1, "fitted", "text like"),
    ('default_operating_point = "x"\n', "", 5, 1, "default_operating_point", "absent"),
    ('answer = "number"\n', "", 4, 1, "positive_values", "absent"),
    ("", 'positive_values = ["1"]\n', 1, 1, "positive_values", "at least one"),
    ('name = "again"\n', "", 5, 15, "", "Cannot overwrite"),
    ("scope = {", "", 5, 10, "", ""),
    (f"[scorer]\nk = 1{'0' * 5000}\n", "", 1, 1, "", "sane size"),
    (f"scope = {'[' * 5000}", "", 1, 1, "", "sane size"),
    (f"scope = {'{a=' * 800}", "", 1, 1, "", "sane size"),
]


@pytest.mark.parametrize(("added", "removed", "line", "column", "field", "message"), WRONG)
def test_what_is_wrong_is_told_by_line_and_column(
    added: str, removed: str, line: int, column: int, field: str, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_finding(SHORT.replace(removed, "") + added, "mass.toml")
    error = caught.value
    assert str(error).startswith(f"mass.toml, line {line}, column {column}: "), error
    assert message in str(error)
    assert (error.reason, error.field) == ("FINDING_INVALID", field)


def test_the_shortest_finding_votes_as_published() -> None:
    finding = read_finding(SHORT, "mass.toml")
    assert finding.scorer == Scorer("neighbours", 10, 100.0, True)
    assert finding.floors == Floors()
    assert finding.scope.text == ""


def test_a_number_needs_no_positive_values() -> None:
    text = 'name = "age"\nversion = "1"\nlabel = "age"\nanswer = "number"\nunit = "months"\n'
    assert read_finding(text, "age.toml").is_number


# Folders


def folder_with(tmp_path: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return tmp_path


FITTED_TEXT = SHORT + 'negative_values = ["0"]\nfitted = "mass.json"\ndefault_operating_point = "middle"\n'


def test_a_folder_is_its_findings_with_their_fits(tmp_path: Path) -> None:
    fitted = fit(MASS)
    folder = folder_with(
        tmp_path,
        {"a.toml": FITTED_TEXT, "b.toml": SHORT.replace('"mass"', '"node"'), "mass.json": write_fitted(fitted)},
    )
    found = read_findings(folder)
    assert sorted(found) == ["mass", "node"]
    assert found["mass"][1] == fitted
    assert found["node"][1] is None


def edited(data: bytes) -> bytes:
    whole = json.loads(data)
    whole["body"]["points"][0]["threshold"] = 0.1
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    ("files", "start"),
    [
        ({"a.toml": SHORT, "b.toml": SHORT}, "b.toml, line 1, column 1: expected name to be the name of one finding"),
        ({"a.toml": FITTED_TEXT}, "a.toml, line 6, column 1: expected fitted to be a readable file"),
        (
            {"a.toml": FITTED_TEXT, "mass.json": edited(write_fitted(fit(MASS)))},
            "a.toml, line 6, column 1: expected the body of the nearcase-fitted/5 that was hashed, got an edited one",
        ),
        (
            {"a.toml": FITTED_TEXT.replace('name = "mass"', 'name = "node"'), "mass.json": write_fitted(fit(MASS))},
            "a.toml, line 6, column 1: expected fitted to be the fit of node, got that of mass",
        ),
        (
            {"a.toml": FITTED_TEXT.replace("middle", "high"), "mass.json": write_fitted(fit(MASS))},
            "a.toml, line 7, column 1: expected default_operating_point to be lax or middle or strict or both",
        ),
        (
            {
                "a.toml": FITTED_TEXT + "scorer.kind = 'probe'",
                "mass.json": write_fitted(fit(MASS)),
            },
            "a.toml, line 6, column 1: expected fitted to be a fit with the weights of the probe, got one without",
        ),
        ({"a.toml": b"name = '\xff'"}, "a.toml: expected a readable UTF-8 file"),
    ],
)
def test_a_folder_with_a_fault_is_refused(tmp_path: Path, files: dict[str, bytes | str], start: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_findings(folder_with(tmp_path, files))
    assert str(caught.value).startswith(start)
    assert caught.value.reason == "FINDING_INVALID"


# Places, against tomllib: every key and item that it reads has a place, and the text there is that key or item


keys = st.sampled_from(["a", "b-1", '"c d"', "'e.#'", '"\\u00e9"'])
scalars = st.sampled_from(
    [
        "1",
        "-2.5e3",
        "true",
        "1979-05-27 07:32:00",
        '"x # ] } , \\" y"',
        "'[a]'",
        '"""\nm " "" = [\n\\""""',
        "'''\n'a''''",
    ]
)
blanks = st.sampled_from(["", " ", "\t"])
breaks = st.sampled_from(["", " ", "\n", " # c ] \n  "])


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.integers(0, 2)) if depth else 0
    if kind == 1:
        items = draw(st.lists(values(depth - 1), max_size=3))
        return (
            "["
            + ",".join(draw(breaks) + item + draw(breaks) for item in items)
            + draw(st.sampled_from(["", "\n"]))
            + "]"
        )
    if kind == 2:
        names = draw(st.lists(keys, max_size=3, unique=True))
        return "{" + ", ".join(f"{name}{draw(blanks)}={draw(blanks)}{draw(inline(depth - 1))}" for name in names) + "}"
    return draw(scalars)


def inline(depth: int) -> st.SearchStrategy[str]:
    """Inline tables stand on one line, but for strings in them."""
    return values(depth).filter(lambda text: "#" not in text or depth == 0)


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        header = draw(st.sampled_from(["", "[t.u]", "[ 'x y' . b]", "[[l]]", "[[l]]\n[l.sub]", "[[l.deep]]"]))
        lines.append(draw(blanks) + header + draw(st.sampled_from(["", " # [z]"])))
        for name in draw(st.lists(keys, max_size=3, unique=True)):
            dotted = draw(st.sampled_from(["", "p .q. "]))
            lines.append(f"{draw(blanks)}{dotted}{name} = {draw(values())}{draw(blanks)}")
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines)


def every_path(value: object, path: toml.Path = ()) -> dict[toml.Path, object]:
    found: dict[toml.Path, object] = {path: value} if path else {}
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        found |= every_path(each, (*path, key))
    return found


@given(documents())
def test_every_key_and_item_has_its_place(text: str) -> None:
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    found = toml.places(text)
    expected = every_path(read)
    assert set(found) == set(expected)
    lines = text.split("\n")
    for path, place in found.items():
        rest = lines[place.line - 1][place.column - 1 :]
        if isinstance(path[-1], str):
            quoted_or_bare = {path[-1], f'"{path[-1]}"', f"'{path[-1]}'", '"\\u00e9"' if path[-1] == "é" else path[-1]}
            assert rest.startswith(tuple(quoted_or_bare)), (path, rest)
        elif isinstance(expected[path], bool | int) and not isinstance(expected[path], dict):
            assert rest.startswith(str(expected[path]).lower())
    in_order = [found[path] for path in expected if isinstance(path[-1], str)]
    assert len(set(in_order)) == len(in_order)  # no two keys stand at one place
