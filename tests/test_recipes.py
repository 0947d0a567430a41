"""Each recipe on a small tree laid out as the set's providers lay it out; each cohort is read as a run reads it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image as PillowImage
from set_files import TREES, nih, oct2017, pcam, picture, table

from nearcase.errors import InvalidInput, NotFound, Unready, Unsupported
from nearcase_eval.cohort import LEAVE_ONE_PATIENT_OUT, LIBRARY_TEST, Cohort, CohortImage, read_cohort
from nearcase_eval.recipes.catalogue import RECIPES, recipe_of
from nearcase_eval.recipes.labels import at_least, flag, listed, one_of
from nearcase_eval.recipes.lidc_xml import Outline, merged
from nearcase_eval.recipes.odir import findings, keywords
from nearcase_eval.recipes.recipe import Built, Entry, Recipe
from nearcase_eval.recipes.tables import optional
from nearcase_eval.recipes.writing import write_cohort
from nearcase_eval.recipes_cli import recipe as command


def told(stage: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def made(name: str, folder: Path) -> Cohort:
    """The cohort of a set's tree, through its files."""
    root = folder / "set"
    root.mkdir(exist_ok=True)
    TREES[name](root)
    return written(name, root, folder / "cohorts" / "cohort.toml")


def written(name: str, root: Path, toml: Path) -> Cohort:
    chosen = recipe_of(name)
    write_cohort(chosen, chosen.build(root, toml.parent / "converted", told), toml)
    return read_cohort(toml)


def image(cohort: Cohort, ending: str) -> CohortImage:
    [found] = [each for each in cohort.images if each.name.endswith(ending)]
    return found


def test_every_recipe_that_is_not_refused_has_a_tree() -> None:
    assert set(TREES) == {each.name for each in RECIPES if not each.refused}


@pytest.mark.parametrize("name", TREES)
def test_the_cohort_is_read_and_its_images_are_there(name: str, tmp_path: Path) -> None:
    cohort = made(name, tmp_path)
    assert cohort.images
    assert all(cohort.files.read(each.name) for each in cohort.images)
    assert recipe_of(name).terms in cohort.note
    assert all(caution[1:] in cohort.note for caution in recipe_of(name).cautions)
    assert all(each in cohort.note for each in recipe_of(name).unconfirmed)


@pytest.mark.parametrize("name", TREES)
def test_no_patient_is_in_both_parts(name: str, tmp_path: Path) -> None:
    cohort = made(name, tmp_path)
    if cohort.protocol == LIBRARY_TEST:
        library = {each.patient for each in cohort.images if each.is_library}
        assert library
        assert not library & {each.patient for each in cohort.images if each.is_query}


@pytest.mark.parametrize("name", TREES)
def test_an_empty_folder_is_told_in_one_line_what_was_expected(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"expected .* found none") as refused:
        recipe_of(name).build(tmp_path, tmp_path / "converted", told)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", sorted(set(TREES) - {"oct2017", "lidc-idri"}))
def test_a_missing_column_is_named(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    for path in [*tmp_path.rglob("*.csv"), *tmp_path.rglob("*.xlsx")]:
        table(path.with_suffix(".csv"), ["something", "else"], [["1", "2"]], ";" if name == "irma" else ",")
        if path.suffix == ".xlsx":
            path.unlink()
            path.with_suffix(".csv").rename(path.with_suffix(".xlsx"))  # no Excel file
    with pytest.raises(InvalidInput, match=r"expected the column|expected an Excel file"):
        recipe_of(name).build(tmp_path, tmp_path / "converted", told)


# Sets


def test_chestxray14_lists_findings_and_splits_by_its_lists(tmp_path: Path) -> None:
    cohort = made("nih-chestxray14", tmp_path)
    effusion, nothing = image(cohort, "00000003_000.png"), image(cohort, "00000004_000.png")
    assert cohort.protocol == LIBRARY_TEST
    assert effusion.name == "images_002/images/00000003_000.png"
    assert (effusion.patient, effusion.sex, effusion.age, effusion.columns["view"]) == ("3", "F", "81", "PA")
    assert effusion.truths == {"effusion": True, "no_finding": False}  # others have no positive in the test part
    assert nothing.truths == {"effusion": False, "no_finding": True}
    assert [each.is_library for each in cohort.images] == [True, True, True, False, False]
    assert "cardiomegaly" in cohort.note


def test_chestxray14_of_2017_says_gender_and_years(tmp_path: Path) -> None:
    nih(tmp_path)
    newer = tmp_path / "Data_Entry_2017_v2020.csv"
    text = newer.read_text().replace("Patient Sex", "Patient Gender").replace(",58,", ",058Y,")
    (tmp_path / "Data_Entry_2017.csv").write_text(text)
    newer.unlink()
    cohort = written("nih-chestxray14", tmp_path, tmp_path / "cohort.toml")
    assert {(each.sex, each.age) for each in cohort.images if each.patient == "1"} == {("M", "058Y")}


def test_long_tailed_takes_age_and_sex_from_the_first_table(tmp_path: Path) -> None:
    cohort = made("nih-lt-cxr", tmp_path)
    assert [(each.patient, each.sex, each.is_query) for each in cohort.images] == [
        ("1", "M", False),
        ("2", "F", False),
        ("3", "F", True),
        ("4", "M", True),
    ]


def test_chexpert_counts_uncertain_and_blank_as_unknown(tmp_path: Path) -> None:
    cohort = made("chexpert", tmp_path)
    assert [finding.name for finding in cohort.findings] == ["no_finding", "edema"]
    assert image(cohort, "patient00002/study1/view1_frontal.jpg").truths == {}
    assert image(cohort, "patient00001/study1/view1_frontal.jpg").truths == {"no_finding": False, "edema": True}
    assert {each.patient for each in cohort.images if each.is_query} == {"patient64541", "patient64542"}


def test_bone_age_is_the_outcome_and_never_the_age(tmp_path: Path) -> None:
    cohort = made("rsna-bone-age", tmp_path)
    assert {each.age for each in cohort.images} == {""}
    assert image(cohort, "/1378.png").sex == "M"
    assert image(cohort, "/1379.png").truths == {"bone_age_60_months": True, "bone_age_120_months": False}
    assert {each.name.split("/")[-1] for each in cohort.images if each.is_query} == {"4360.png", "4361.png"}
    assert image(cohort, "/10018.png").is_library


def test_without_the_test_part_the_validation_part_is_tested(tmp_path: Path) -> None:
    TREES["rsna-bone-age"](tmp_path)
    (tmp_path / "Bone age ground truth.xlsx").unlink()
    cohort = written("rsna-bone-age", tmp_path, tmp_path / "cohort.toml")
    assert {each.patient for each in cohort.images if each.is_query} == {"1386", "10018"}


def test_isic_takes_the_lesion_for_the_patient_and_says_where_there_is_none(tmp_path: Path) -> None:
    cohort = made("isic2019", tmp_path)
    assert image(cohort, "ISIC_0000000.jpg").patient == image(cohort, "ISIC_0000002.jpg").patient == "MSK4_0000001"
    assert image(cohort, "ISIC_0000001.jpg").patient == "ISIC_0000001"
    assert image(cohort, "ISIC_0034321.jpg").truths == {"melanoma": True, "nevus": False}
    assert "3 images state no patient" in cohort.note


def test_pad_is_left_out_by_patient(tmp_path: Path) -> None:
    cohort = made("pad-ufes-20", tmp_path)
    assert cohort.protocol == LEAVE_ONE_PATIENT_OUT
    assert image(cohort, "PAT_46_881_939.png").sex == "F"
    assert image(cohort, "PAT_1516_1765_530.png").truths == {
        "basal_cell_carcinoma": False,
        "melanoma": False,
        "nevus": True,
    }


def test_pcam_patches_are_written_as_they_are_and_once(tmp_path: Path) -> None:
    cohort = made("pcam", tmp_path)
    assert [each.patient for each in cohort.images if each.is_query] == ["camelyon16_test_test_001"] * 3
    assert [each.truths["metastasis"] for each in cohort.images if each.is_query] == [False, True, False]
    h5py = pytest.importorskip("h5py", reason="h5py reads the HDF5 file: pip install nearcase[recipes]")
    with h5py.File(tmp_path / "set" / "camelyonpatch_level_2_split_test_x.h5") as file:
        expected = file["x"][2]
    written_patch = tmp_path / "cohorts" / "converted" / "test" / "0000" / "000002.png"
    assert np.array_equal(np.asarray(PillowImage.open(written_patch)), expected)
    before = written_patch.stat().st_mtime_ns
    (tmp_path / "cohorts" / "converted" / "test" / "0000" / "000001.png").unlink()
    again = made("pcam", tmp_path)
    assert all(again.files.read(each.name) for each in again.images)
    assert written_patch.stat().st_mtime_ns == before


def test_pcam_files_of_different_lengths_are_refused(tmp_path: Path) -> None:
    pcam(tmp_path)
    meta = tmp_path / "camelyonpatch_level_2_split_test_meta.csv"
    meta.write_text("".join(meta.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InvalidInput, match="got 3, 3 and 2"):
        recipe_of("pcam").build(tmp_path, tmp_path / "converted", told)


def test_oct_patients_of_the_test_part_leave_the_library(tmp_path: Path) -> None:
    cohort = made("oct2017", tmp_path)
    assert "1 patients in both parts; 1 images" in cohort.note
    assert not any("train/CNV/CNV-81630" in each.name for each in cohort.images)
    assert image(cohort, "CNV-81630-33.jpeg").is_query
    assert image(cohort, "DRUSEN-95633-1.jpeg").is_library  # validation images are library too


def test_oct_without_its_library_is_left_out_by_patient(tmp_path: Path) -> None:
    oct2017(tmp_path)
    shutil.rmtree(tmp_path / "OCT2017 " / "val")
    for name in ("CNV/CNV-1016042-1.jpeg", "NORMAL/NORMAL-1017237-1.jpeg", "DME/DME-2001-1.jpeg"):
        (tmp_path / "OCT2017 " / "train" / name).unlink()
    cohort = written("oct2017", tmp_path, tmp_path / "cohort.toml")
    assert cohort.protocol == LEAVE_ONE_PATIENT_OUT
    assert "nothing stays in the library" in cohort.note.lower()


def test_odir_eyes_have_their_own_findings(tmp_path: Path) -> None:
    cohort = made("odir-5k", tmp_path)
    left, right = image(cohort, "/3_left.jpg"), image(cohort, "/3_right.jpg")
    assert left.patient == right.patient == "3"
    assert (left.truths["normal"], left.truths["glaucoma"]) == (True, False)
    assert (right.truths["normal"], right.truths["glaucoma"]) == (False, True)
    assert (left.columns["laterality"], right.columns["laterality"]) == ("L", "R")
    assert image(cohort, "/4_left.jpg").truths == {}  # a bad picture says nothing of the eye
    assert not any(each.name.endswith("/1_right.jpg") for each in cohort.images)  # no fundus in it
    assert {each.patient for each in cohort.images if each.is_query} == {"3", "4"}


@pytest.mark.parametrize(
    ("text", "finding", "expected"),
    [
        ("moderate non proliferative retinopathy", "diabetic_retinopathy", "1"),
        ("severe nonproliferative retinopathy，laser spot", "diabetic_retinopathy", "1"),
        ("hypertensive retinopathy", "diabetic_retinopathy", "0"),
        ("suspected glaucoma", "glaucoma", ""),
        ("suspected glaucoma，glaucoma", "glaucoma", "1"),
        ("wet age-related macular degeneration", "age_related_macular_degeneration", "1"),
        ("myopia retinopathy", "pathological_myopia", "1"),
        ("pathological myopia", "pathological_myopia", "1"),
        ("lens dust，normal fundus", "normal", "1"),
        ("normal fundus，cataract", "normal", "0"),
        ("low image quality", "normal", ""),
    ],
)
def test_odir_keywords(text: str, finding: str, expected: str) -> None:
    assert findings(keywords(text))[finding] == expected


def test_lidc_malignancy_is_the_median_of_three_readers(tmp_path: Path) -> None:
    cohort = made("lidc-idri", tmp_path)
    outcomes = {each.name.rpartition("/")[2]: each.truths.get("malignant") for each in cohort.images}
    assert outcomes == {"1.2.1.2.dcm": True, "1.2.1.3.dcm": False, "1.2.2.1.dcm": False}
    worst = image(cohort, "1.2.1.2.dcm")
    assert (worst.patient, worst.sex, worst.age) == ("LIDC-IDRI-0001", "F", "061Y")
    assert (worst.columns["malignancy_median"], worst.columns["readers"]) == ("4", "3")


def outline(reader: int, left: float, *, slices: tuple[str, ...] = ("a",)) -> Outline:
    return Outline(reader, 3, dict.fromkeys(slices, (left, 0.0, left + 10.0, 10.0)))


def test_lidc_outlines_are_one_nodule_when_they_meet_directly_or_through_others() -> None:
    nodules = merged([outline(0, 0), outline(1, 16), outline(2, 8), outline(3, 100), outline(3, 8, slices=("b",))])
    assert sorted(nodule.readers for nodule in nodules) == [1, 1, 3]


def test_lidc_damaged_xml_is_refused_in_one_line(tmp_path: Path) -> None:
    TREES["lidc-idri"](tmp_path)
    (tmp_path / "tcia-lidc-xml" / "159.xml").write_text("<LidcReadMessage")
    with pytest.raises(InvalidInput, match=r"159\.xml: expected LIDC's XML"):
        recipe_of("lidc-idri").build(tmp_path, tmp_path, told)


def test_mammography_states_no_sex_and_unknown_density_is_unknown(tmp_path: Path) -> None:
    cohort = made("rsna-mammography", tmp_path)
    assert image(cohort, "10006/462822612.dcm").truths == {"cancer": False}
    assert image(cohort, "10011/220375232.dcm").truths == {"cancer": True, "density_b": True, "density_c": False}
    assert {each.sex for each in cohort.images} == {""}


def test_irma_region_is_the_third_axis(tmp_path: Path) -> None:
    cohort = made("irma", tmp_path)
    assert image(cohort, "1877.png").truths == {"chest": True, "lower_extremity": False}
    assert image(cohort, "1880.png").truths == {"chest": False, "lower_extremity": True}
    assert image(cohort, "1881.png").truths == {}


# What all share


def test_images_that_are_not_there_are_left_out_and_counted(tmp_path: Path) -> None:
    nih(tmp_path)
    (tmp_path / "images_001" / "images" / "00000001_001.png").unlink()
    cohort = written("nih-chestxray14", tmp_path, tmp_path / "cohort.toml")
    assert len(cohort.images) == 4
    assert "1 images of the tables are not in the folder" in cohort.note


def test_an_image_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    nih(tmp_path)
    picture(tmp_path / "copy" / "00000001_000.png")
    with pytest.raises(InvalidInput, match="expected each image once"):
        recipe_of("nih-chestxray14").build(tmp_path, tmp_path, told)


def test_two_tables_of_one_name_are_refused(tmp_path: Path) -> None:
    nih(tmp_path)
    (tmp_path / "old").mkdir()
    shutil.copy(tmp_path / "test_list.txt", tmp_path / "old" / "test_list.txt")
    with pytest.raises(InvalidInput, match="expected one"):
        recipe_of("nih-chestxray14").build(tmp_path, tmp_path, told)


def test_a_cohort_that_no_finding_can_test_is_refused(tmp_path: Path) -> None:
    entries = tuple(Entry(f"{n}.png", str(n), "", "", "", {"sick": "1"}) for n in range(3))
    with pytest.raises(InvalidInput, match="expected a finding"):
        write_cohort(RECIPES[0], Built(tmp_path, entries), tmp_path / "cohort.toml")


def test_names_with_quotes_and_backslashes_survive(tmp_path: Path) -> None:
    odd = replace(RECIPES[0], title='a "quoted" \\ title', cautions=("a tab\tand é, 中",))
    picture(tmp_path / "a b" / "1.png")
    entries = tuple(Entry("1.png", "p", "", "", "", {'x"y': value}) for value in ("1",))
    entries += tuple(replace(each, image="2.png", labels={'x"y': "0"}) for each in entries)
    write_cohort(odd, Built(tmp_path / "a b", entries), tmp_path / "deep" / "cohort.toml")
    cohort = read_cohort(tmp_path / "deep" / "cohort.toml")
    assert cohort.name == odd.title
    assert [finding.name for finding in cohort.findings] == ['x"y']
    assert "A tab\tand é, 中." in cohort.note
    assert cohort.files.read("1.png")


@pytest.mark.parametrize(
    ("text", "expected"), [("1", "1"), ("1.0", "1"), ("0", "0"), ("0.0", "0"), ("", ""), ("-1.0", ""), ("nan", "")]
)
def test_flags(text: str, expected: str) -> None:
    assert flag("a", "a").of({"a": text}) == expected


def test_labels_of_other_kinds() -> None:
    [mass, nodule] = listed("x", ["Mass", "Nodule"], "|")
    assert [mass.of({"x": text}) for text in ("Mass|Edema", "Massive", "")] == ["1", "0", ""]
    assert nodule.name == "nodule"
    [a, _] = one_of("x", {"A": "a", "B": "b"})
    assert [a.of({"x": text}) for text in "ABC"] == ["1", "0", ""]
    limit = at_least("old", "x", 120)
    assert [limit.of({"x": text}) for text in ("120", "119.9", "", "ten")] == ["1", "0", "", ""]


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(Unready, match=r"reading X needs no_such_module: pip install 'nearcase\[recipes\]'"):
        optional("no_such_module", "reading X")


# Command


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(command, [str(each) for each in arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_the_list_names_all_with_their_terms_and_what_is_refused() -> None:
    listing = invoke("list")
    assert all(each.name in listing for each in RECIPES)
    machine = json.loads(invoke("list", "--json"))
    assert [each["name"] for each in machine] == [each.name for each in RECIPES]
    assert [each["name"] for each in machine if each["refused"]] == ["msd-3d-mir"]
    assert all(each["terms"] and each["source"] for each in machine)


def test_the_command_writes_and_counts(tmp_path: Path) -> None:
    root, out = tmp_path / "set", tmp_path / "out" / "oct.toml"
    root.mkdir()
    oct2017(root)
    counted = json.loads(invoke("oct2017", root, "--out", out, "--json"))
    assert counted["findings"] == {"cnv": {"positives": 1, "negatives": 1}, "normal": {"positives": 1, "negatives": 1}}
    assert (counted["images"], counted["queries"], counted["protocol"]) == (6, 2, LIBRARY_TEST)
    printed = invoke("oct2017", root, "--out", out)
    assert "6 images of 6 patients" in printed
    assert re.search(r"note: the official split has 1 patients in both parts", printed)


@pytest.mark.parametrize(
    ("name", "error"), [("no-such-set", NotFound), ("msd-3d-mir", Unsupported), ("oct2017", InvalidInput)]
)
def test_the_command_refuses(name: str, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        invoke(name, tmp_path, "--out", tmp_path / "cohort.toml")
    assert not (tmp_path / "cohort.toml").exists()


def test_the_command_is_a_click_command() -> None:
    assert isinstance(command, click.Command)
    assert isinstance(RECIPES[0], Recipe)
