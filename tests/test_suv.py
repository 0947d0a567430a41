"""SUVbw: factors computed by hand, and every reason for which there is none."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import pydicom
import pytest
from dicom_files import CANARY, dicom_file
from hypothesis import given
from hypothesis import strategies as st
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from nearcase.intake.parse import parse
from nearcase.intake.suv import NoSuv, Suv, read_suv

HALF_LIFE_S = 6586.2  # of 18F


def pet(drug: dict[str, Any] | None = None, **changes: Any) -> Dataset:
    """A PET image of 70 kg with 350 MBq of 18F, scanned one half-life after the injection; None removes a tag."""
    dataset = Dataset()
    attributes = {
        "Modality": "PT",
        "PatientName": CANARY,
        "Units": "BQML",
        "CorrectedImage": ["DECY", "ATTN", "SCAT"],
        "DecayCorrection": "START",
        "PatientWeight": "70",
        "SeriesDate": "20200102",
        "SeriesTime": "114946.2",
        "AcquisitionDate": "20200102",
        "AcquisitionTime": "115500",
    }
    injected = {
        "RadionuclideTotalDose": "350000000",
        "RadionuclideHalfLife": str(HALF_LIFE_S),
        "RadiopharmaceuticalStartTime": "100000",
    }
    item = Dataset()
    for target, values in ((dataset, attributes | changes), (item, injected | (drug or {}))):
        for keyword, value in values.items():
            if value is not None:
                target[keyword] = DataElement(keyword, dictionary_VR(keyword), value, validation_mode=IGNORE)
    dataset.RadiopharmaceuticalInformationSequence = Sequence([item])
    return dataset


def philips(offset: int, value: str, **changes: Any) -> Dataset:
    dataset = pet(Units="CNTS", **changes)
    dataset.private_block(0x7053, "Philips PET Private Group", create=True).add_new(offset, "DS", value)
    return dataset


def ge_scan_time(dataset: Dataset, moment: str) -> Dataset:
    dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", moment)
    return dataset


# 70 kg x 1000 g/kg / 350e6 Bq = 2e-4; after one half-life half of the dose is left: 4e-4.
AT_INJECTION, AT_SCAN = 2e-4, 4e-4

FACTORS = {
    "bq_per_ml": (pet(), AT_SCAN),
    "decay_to_injection": (pet(DecayCorrection="ADMIN"), AT_INJECTION),
    "decay_to_injection_needs_no_time": (
        pet({"RadiopharmaceuticalStartTime": None}, DecayCorrection="ADMIN", SeriesTime=None),
        AT_INJECTION,
    ),
    "two_half_lives": (pet(SeriesTime="133932.4", AcquisitionTime="140000"), 8e-4),
    "half_the_weight": (pet(PatientWeight="35"), AT_SCAN / 2),
    "over_midnight": (
        pet(
            {"RadiopharmaceuticalStartTime": "230000"},
            SeriesDate="20200103",
            SeriesTime="004946.2",
            AcquisitionDate="20200103",
        ),
        AT_SCAN,
    ),
    "over_midnight_by_date": (
        pet(
            {"RadiopharmaceuticalStartDateTime": "20200102230000"},
            SeriesDate="20200103",
            SeriesTime="004946.2",
            AcquisitionDate="20200103",
        ),
        AT_SCAN,
    ),
    "date_before_time_alone": (
        pet({"RadiopharmaceuticalStartDateTime": "20200102100000.000000", "RadiopharmaceuticalStartTime": "010000"}),
        AT_SCAN,
    ),
    "time_zones": (
        pet({"RadiopharmaceuticalStartDateTime": "20200102110000+0200"}, TimezoneOffsetFromUTC="+0100"),
        AT_SCAN,
    ),
    "scan_in_another_year": (
        pet(
            {"RadiopharmaceuticalStartTime": "230000"},
            SeriesDate="20200101",
            SeriesTime="004946.2",
            AcquisitionDate="20200101",
        ),
        AT_SCAN,
    ),
    "old_writing_of_times": (pet(SeriesDate="2020.01.02", SeriesTime="11:49:46.2"), AT_SCAN),
    "ge_series_made_later": (ge_scan_time(pet(SeriesTime="180000"), "20200102114946.20"), AT_SCAN),
    "grams_per_ml": (pet(Units="GML"), 1.0),
    "grams_per_ml_by_weight": (pet(Units="GML", SUVType="BW"), 1.0),
    "philips_suv": (philips(0x00, "0.000551"), 0.000551),
    "philips_activity": (philips(0x09, "2.5"), 2.5 * AT_SCAN),
    "philips_suv_without_weight": (philips(0x00, "0.5", PatientWeight=None), 0.5),
}

ABSENCES = {
    "no_attenuation": (pet(CorrectedImage=["DECY", "SCAT"]), "ATTN"),
    "no_decay": (pet(CorrectedImage="ATTN"), "DECY"),
    "nothing_corrected": (pet(CorrectedImage=None), "ATTN and DECY"),
    "decay_to_no_time": (pet(DecayCorrection="NONE"), "NONE"),
    "decay_not_stated": (pet(DecayCorrection=None, Units="GML"), "not stated"),
    "other_units": (pet(Units="PROPCPS"), "PROPCPS"),
    "no_units": (pet(Units=None), "not stated"),
    "suv_by_lean_mass": (pet(Units="GML", SUVType="LBM"), "LBM"),
    "counts_of_nobody": (pet(Units="CNTS"), "Philips"),
    "philips_factor_0": (philips(0x00, "0"), "Philips"),
    "no_weight": (pet(PatientWeight=None), "PatientWeight"),
    "weight_0": (pet(PatientWeight="0"), "PatientWeight"),
    "weight_in_grams": (pet(PatientWeight="70000"), "PatientWeight"),
    "weight_no_number": (pet(PatientWeight="nan"), "PatientWeight"),
    "no_dose": (pet({"RadionuclideTotalDose": None}), "RadionuclideTotalDose"),
    "dose_in_mbq": (pet({"RadionuclideTotalDose": "350"}), "RadionuclideTotalDose"),
    "no_half_life": (pet({"RadionuclideHalfLife": None}), "RadionuclideHalfLife"),
    "no_injection_time": (pet({"RadiopharmaceuticalStartTime": None}), "time of injection"),
    "injection_after_scan": (pet({"RadiopharmaceuticalStartDateTime": "20200103100000"}), "after the scan"),
    "injection_years_before": (pet({"RadiopharmaceuticalStartDateTime": "19990103100000"}), "nothing is left"),
    "injection_time_malformed": (pet({"RadiopharmaceuticalStartDateTime": "20200102"}), "malformed"),
    "time_zone_of_one_only": (pet({"RadiopharmaceuticalStartDateTime": "20200102100000+0100"}), "time zone"),
    "no_series_time": (pet(SeriesTime=None), "series and acquisition"),
    "no_acquisition_time": (pet(AcquisitionTime=None), "series and acquisition"),
    "series_made_later": (pet(SeriesTime="180000"), "after its acquisition"),
}


@pytest.mark.parametrize("name", FACTORS)
def test_factor_is_as_computed_by_hand(name: str) -> None:
    dataset, factor = FACTORS[name]
    found = read_suv(dataset)
    assert isinstance(found, Suv), found
    assert found.factor == pytest.approx(factor, rel=1e-9)


@pytest.mark.parametrize("name", ABSENCES)
def test_absence_says_its_reason_and_nothing_of_the_patient(name: str) -> None:
    dataset, words = ABSENCES[name]
    found = read_suv(dataset)
    assert isinstance(found, NoSuv), found
    assert words in found.reason
    assert CANARY not in found.reason
    assert "2020" not in found.reason


@given(minutes=st.integers(0, 1439), weight=st.floats(1, 300), dose_mbq=st.floats(1, 2000))
def test_later_scans_have_larger_factors_and_decay_is_by_half_lives(
    minutes: int, weight: float, dose_mbq: float
) -> None:
    drug = {"RadionuclideTotalDose": f"{dose_mbq * 1e6:.1f}", "RadiopharmaceuticalStartTime": "000000"}
    time = f"{minutes // 60:02}{minutes % 60:02}00"
    found = read_suv(pet(drug, PatientWeight=f"{weight:.4f}", SeriesTime=time, AcquisitionTime="235959"))
    if isinstance(found, Suv):
        grams_per_bq = float(f"{weight:.4f}") * 1000 / float(f"{dose_mbq * 1e6:.1f}")
        assert found.factor == pytest.approx(grams_per_bq * 2 ** (minutes * 60 / HALF_LIFE_S), rel=1e-9)


@pytest.mark.parametrize("make", [pet, lambda: philips(0x00, "0.5"), lambda: philips(0x09, "2.5")])
def test_factor_survives_the_way_through_a_file(make: Callable[[], Dataset]) -> None:
    dataset = make()
    whole = pydicom.dcmread(BytesIO(dicom_file()))
    whole.update(dataset)
    out = BytesIO()
    whole.save_as(out)
    assert read_suv(parse(out.getvalue()).dataset) == read_suv(dataset)
