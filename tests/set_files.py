"""Small trees that are laid out like public data sets, with pictures of nothing."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from nearcase_eval.recipes.chest import CHEXPERT_14, NIH_LT
from nearcase_eval.recipes.skin import ISIC_CLASSES


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PillowImage.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path)


def table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(rows)


def sheet(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl writes the Excel file: pip install nearcase[recipes]")
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for row in (columns, *rows):
        book.active.append(list(row))
    book.save(path)


NIH_COLUMNS = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Sex",
    "View Position",
    "OriginalImage[Width",
    "Height]",
    "OriginalImagePixelSpacing[x",
    "y]",
)
NIH_ROWS = (
    ("00000001_000.png", "Cardiomegaly|Effusion", 0, 1, 58, "M", "PA"),
    ("00000001_001.png", "No Finding", 1, 1, 58, "M", "PA"),
    ("00000002_000.png", "No Finding", 0, 2, 414, "F", "AP"),
    ("00000003_000.png", "Effusion", 0, 3, 81, "F", "PA"),
    ("00000004_000.png", "No Finding", 0, 4, 30, "M", "PA"),
)


def nih(root: Path) -> None:
    table(root / "Data_Entry_2017_v2020.csv", NIH_COLUMNS, [(*row, 2682, 2749, 0.143, 0.143) for row in NIH_ROWS])
    for number, row in enumerate(NIH_ROWS):
        picture(root / f"images_00{1 + number // 3}" / "images" / row[0])
    (root / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000002_000.png\n")
    (root / "test_list.txt").write_text("00000003_000.png\n00000004_000.png\n")


def nih_lt(root: Path) -> None:
    nih(root)
    for part, names in (
        ("train", ("00000001_000.png", "00000002_000.png")),
        ("test", ("00000003_000.png", "00000004_000.png")),
    ):
        rows = [
            (name, *(int(finding == ("Effusion" if n == 0 else "No Finding")) for finding in NIH_LT))
            for n, name in enumerate(names)
        ]
        table(root / "LongTailCXR" / f"nih-cxr-lt_single-label_{part}.csv", ("id", *NIH_LT), rows)


def chexpert(root: Path) -> None:
    columns = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_14)

    def row(part: str, patient: int, edema: str) -> list[str]:
        path = f"CheXpert-v1.0-small/{part}/patient{patient:05}/study1/view1_frontal.jpg"
        picture(root / path)
        marks = {"Edema": edema, "No Finding": {"1.0": "0.0", "0.0": "1.0"}.get(edema, "")}
        return [path, "Female", "68", "Frontal", "AP", *(marks.get(name, "") for name in CHEXPERT_14)]

    small = root / "CheXpert-v1.0-small"
    table(small / "train.csv", columns, [row("train", 1, "1.0"), row("train", 2, "-1.0"), row("train", 3, "0.0")])
    table(small / "valid.csv", columns, [row("valid", 64541, "1.0"), row("valid", 64542, "0.0")])


def bone_age(root: Path) -> None:
    table(root / "train.csv", ("id", "boneage", "male"), [(1377, 180, False), (1378, 12, True), (1379, 94, False)])
    validation = root / "Bone Age Validation Set"
    rows = [(1386, "TRUE", 168.93), (10018, "FALSE", 30.0)]
    table(validation / "Validation Dataset.csv", ("Image ID", "male", "Bone Age (months)"), rows)
    test = [(4360, "M", 168.9), (4361, "F", 40.0)]
    sheet(root / "Bone age ground truth.xlsx", ("Case ID", "Sex", "Ground truth bone age (months)"), test)
    for number in (1377, 1378, 1379):
        picture(root / "boneage-training-dataset" / f"{number}.png")
    picture(validation / "boneage-validation-dataset-1" / "1386.png")
    picture(validation / "boneage-validation-dataset-2" / "10018.png")
    for number in (4360, 4361):
        picture(root / "Bone Age Test Set" / "Test Set Images" / f"{number}.png")


def isic(root: Path) -> None:
    classes = (*ISIC_CLASSES, "UNK")

    def truths(names: Sequence[str]) -> list[list[object]]:
        return [[name, *(float(kind == ("MEL", "NV")[n % 2]) for kind in classes)] for n, name in enumerate(names)]

    train, test = ("ISIC_0000000", "ISIC_0000001", "ISIC_0000002"), ("ISIC_0034321", "ISIC_0034322")
    table(root / "ISIC_2019_Training_GroundTruth.csv", ("image", *classes), truths(train))
    meta = [
        (train[0], 55.0, "anterior torso", "MSK4_0000001", "female"),
        (train[1], "", "", "", ""),
        (train[2], 30.0, "", "MSK4_0000001", "male"),
    ]
    table(
        root / "ISIC_2019_Training_Metadata.csv",
        ("image", "age_approx", "anatom_site_general", "lesion_id", "sex"),
        meta,
    )
    weighted = [[*row, 1.0, 0.0] for row in truths(test)]
    table(root / "ISIC_2019_Test_GroundTruth.csv", ("image", *classes, "score_weight", "validation_weight"), weighted)
    tested = [(name, 40.0, "", "male") for name in test]
    table(root / "ISIC_2019_Test_Metadata.csv", ("image", "age_approx", "anatom_site_general", "sex"), tested)
    for part, names in (("Training", train), ("Test", test)):
        for name in names:
            picture(root / f"ISIC_2019_{part}_Input" / f"{name}.jpg")


def pad(root: Path) -> None:
    columns = ("patient_id", "lesion_id", "age", "gender", "region", "fitspatrick", "diagnostic", "img_id", "biopsed")
    rows = [
        ("PAT_1516", "1765", 8, "", "ARM", "", "NEV", "PAT_1516_1765_530.png", "False"),
        ("PAT_46", "881", 55, "FEMALE", "NECK", "3.0", "BCC", "PAT_46_881_939.png", "True"),
        ("PAT_46", "882", 55, "FEMALE", "NECK", "3.0", "MEL", "PAT_46_882_940.png", "True"),
    ]
    table(root / "metadata.csv", columns, rows)
    for number, row in enumerate(rows, 1):
        picture(root / "images" / f"imgs_part_{number}" / str(row[7]))


def pcam(root: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py writes the HDF5 file: pip install nearcase[recipes]")
    rng = np.random.default_rng(0)
    for part, slide, count in (("train", "tumor_016", 4), ("test", "test_001", 3)):
        stem = root / f"camelyonpatch_level_2_split_{part}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(f"{stem}_x.h5", "w") as file:
            file["x"] = rng.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
        with h5py.File(f"{stem}_y.h5", "w") as file:
            file["y"] = (np.arange(count) % 2).astype(np.uint8).reshape(count, 1, 1, 1)
        rows = [(n, 100, 200, "True", "False", f"camelyon16_{part}_{slide}") for n in range(count)]
        table(Path(f"{stem}_meta.csv"), ("", "coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi"), rows)


def oct2017(root: Path) -> None:
    for name in (
        "train/CNV/CNV-1016042-1.jpeg",
        "train/CNV/CNV-81630-1.jpeg",  # this person is in the test part too
        "train/NORMAL/NORMAL-1017237-1.jpeg",
        "train/DME/DME-2001-1.jpeg",
        "val/DRUSEN/DRUSEN-95633-1.jpeg",
        "test/CNV/CNV-81630-33.jpeg",
        "test/NORMAL/NORMAL-1025847-1.jpeg",
    ):
        picture(root / "OCT2017 " / name)


ODIR_COLUMNS = (
    "ID",
    "Patient Age",
    "Patient Sex",
    "Left-Fundus",
    "Right-Fundus",
    "Left-Diagnostic Keywords",
    "Right-Diagnostic Keywords",
    *"NDGCAHMO",
)


def odir(root: Path) -> None:
    parts = {
        "Training Set": [
            (0, 69, "Female", "cataract", "normal fundus"),
            (1, 57, "Male", "lens dust，moderate non proliferative retinopathy", "no fundus image"),
        ],
        "Off-site Test Set": [(2, 42, "Male", "normal fundus", "suspected glaucoma")],
        "On-site Test Set": [
            (3, 66, "Male", "normal fundus", "glaucoma，hypertensive retinopathy"),
            (4, 53, "Male", "low image quality", "cataract"),
        ],
    }
    for part, people in parts.items():
        rows = [
            (i, age, sex, f"{i}_left.jpg", f"{i}_right.jpg", left, right, *[0] * 8)
            for i, age, sex, left, right in people
        ]
        word = part.removesuffix(" Set").lower()
        sheet(root / part / "Annotation" / f"{word} annotation (English).xlsx", ODIR_COLUMNS, rows)
        for person in people:
            for eye in ("left", "right"):
                picture(root / part / "Images" / f"{person[0]}_{eye}.jpg")


def mammography(root: Path) -> None:
    columns = (
        *("site_id", "patient_id", "image_id", "laterality", "view", "age", "cancer", "biopsy", "invasive", "BIRADS"),
        *("implant", "density", "machine_id", "difficult_negative_case"),
    )
    rows = [
        (2, 10006, 462822612, "L", "CC", 61.0, 0, 0, 0, "", 0, "", 29, False),
        (2, 10011, 220375232, "L", "MLO", 55.0, 1, 1, 1, 0.0, 0, "B", 21, False),
        (1, 10025, 562340703, "R", "CC", 75.0, 0, 0, 0, "", 0, "C", 49, True),
    ]
    table(root / "train.csv", columns, rows)
    for row in rows:
        picture_as(root / "train_images" / str(row[1]) / f"{row[2]}.dcm")


def picture_as(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a file that the recipe does not open")


def irma(root: Path) -> None:
    columns = ("image_id", "irma_code", "05_class", "06_class", "07_class", "08_class")
    rows = [
        (1877, "1121-127-500-000", 12, 5, r"\N", "1121-127-500-000"),
        (1880, "1121-4a0-918-700", 3, r"\N", r"\N", r"\N"),
        (1881, "broken", 3, r"\N", r"\N", r"\N"),
    ]
    table(root / "ImageCLEFmed2009_train_codes.02.csv", columns, rows, ";")
    for row in rows:
        picture(root / "ImageCLEFmed2009_train.02" / f"{row[0]}.png")


def reading(*nodules: tuple[int, str, int]) -> str:
    """A reader's session of nodules (malignancy, slice, left edge); each outline is 10 px wide."""
    found = ""
    for number, (malignancy, uid, left) in enumerate(nodules):
        edges = "".join(
            f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x in (left, left + 10) for y in (40, 50)
        )
        found += (
            f"<unblindedReadNodule><noduleID>N{number}</noduleID><characteristics><subtlety>5</subtlety>"
            f"<malignancy>{malignancy}</malignancy></characteristics><roi><imageZposition>-10.0</imageZposition>"
            f"<imageSOP_UID>{uid}</imageSOP_UID><inclusion>TRUE</inclusion>{edges}</roi></unblindedReadNodule>"
        )
    return f"<readingSession><annotationVersion>3.12</annotationVersion>{found}</readingSession>"


def reading_file(series: str, *sessions: str) -> str:
    header = f"<ResponseHeader><SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>"
    return f'<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov">{header}{"".join(sessions)}</LidcReadMessage>'


def lidc(root: Path) -> None:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    def slice_file(patient: int, uid: str) -> None:
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID(uid)
        data.SeriesInstanceUID, data.PatientID = f"1.2.{patient}", f"LIDC-IDRI-{patient:04}"
        data.PatientSex, data.PatientAge = "F", "061Y"
        path = root / "LIDC-IDRI" / str(data.PatientID) / "study" / "series" / f"{uid}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(path, data, enforce_file_format=True)

    for patient in (1, 2):
        for number in (1, 2, 3):
            slice_file(patient, f"1.2.{patient}.{number}")
    (root / "tcia-lidc-xml").mkdir()
    first = [reading((m, "1.2.1.2", 100), (1, "1.2.1.3", 300)) for m in (5, 4, 2)]
    second = [reading((2, "1.2.2.1", 50)), reading((1, "1.2.2.1", 55)), reading((1, "1.2.2.1", 45)), reading()]
    (root / "tcia-lidc-xml" / "158.xml").write_text(reading_file("1.2.1", *first))
    (root / "tcia-lidc-xml" / "159.xml").write_text(reading_file("1.2.2", *second))
    (root / "tcia-lidc-xml" / "cxr.xml").write_text('<IdriReadMessage xmlns="http://www.nih.gov"></IdriReadMessage>')


TREES: dict[str, Callable[[Path], Any]] = {
    "nih-chestxray14": nih,
    "nih-lt-cxr": nih_lt,
    "chexpert": chexpert,
    "rsna-bone-age": bone_age,
    "isic2019": isic,
    "pad-ufes-20": pad,
    "pcam": pcam,
    "oct2017": oct2017,
    "odir-5k": odir,
    "lidc-idri": lidc,
    "rsna-mammography": mammography,
    "irma": irma,
}
