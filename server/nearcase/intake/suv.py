"""PET: from activity to the standardised uptake value by body weight (SUVbw), where the tags allow.

The rules are the vendor-neutral pseudo-code of the QIBA FDG-PET/CT profile. What it assumes without a tag, for example
a weight, is not assumed here: the answer is then an absence with its reason.
"""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from nearcase.errors import InvalidInput
from nearcase.intake.elements import item, number, text

_GRAMS = 1000.0
_DAY = datetime.timedelta(days=1)
# Outside of these a unit was mistaken: doses in MBq instead of Bq, weights in grams or pounds of nobody.
_DOSES_BQ = (1e5, 1e11)
_WEIGHTS_KG = (0.2, 700.0)
_HALF_LIVES_S = (60.0, 1e7)  # from 82Rb, 76 s, to beyond 89Zr, 3.3 days
_DATE_AND_TIME = re.compile(r"([0-9]{8})([0-9]{2})([0-9]{2})([0-9]{2})(?:\.([0-9]{1,6}))?([+-][0-9]{4})?")
_PHILIPS, _GE = "Philips PET Private Group", "GEMS_PETD_01"


@dataclass(frozen=True, slots=True)
class Suv:
    """SUVbw in g/ml is factor times the value after the modality transform."""

    factor: float
    rule: str  # where the factor comes from, in words


@dataclass(frozen=True, slots=True)
class NoSuv:
    """SUVbw can not be told."""

    reason: str  # one line without patient data


class _AbsentError(Exception):
    """A tag that is needed is missing or states nothing usable."""


def read_suv(dataset: Dataset) -> Suv | NoSuv:
    """Returns the factor of a PET image, or why there is none.

    Units (0054,1001) say what the values are (PS3.3 C.8.9.1): Bq/ml need dose, weight and times; counts need the
    scale factor of Philips; g/ml are SUV already, by body weight unless SUV Type (0054,1006) says another.

    Args:
        dataset: A parsed PET image.
    """
    try:
        _require_corrections(dataset)
        match text(dataset, "Units").upper():
            case "BQML":
                return _from_activity(dataset, 1.0, "Bq/ml, dose, weight and decay")
            case "CNTS":
                return _from_counts(dataset)
            case "GML":
                return _from_suv(dataset)
            case units:
                raise _AbsentError(f"Units are {units or 'not stated'}, not BQML, CNTS or GML")
    except _AbsentError as absent:
        return NoSuv(str(absent))
    except InvalidInput as error:
        return NoSuv(str(error))


def _require_corrections(dataset: Dataset) -> None:
    """Attenuation and decay must have been corrected (Corrected Image (0028,0051)), decay to a time that is known."""
    value: object = dataset.get("CorrectedImage")
    stated = {str(each).upper() for each in (value if isinstance(value, MultiValue | list) else [value])}
    missing = [name for name in ("ATTN", "DECY") if name not in stated]
    if missing:
        raise _AbsentError(f"Corrected Image does not name {' and '.join(missing)}")
    correction = text(dataset, "DecayCorrection").upper()
    if correction not in ("START", "ADMIN"):
        raise _AbsentError(f"Decay Correction is {correction or 'not stated'}, not START or ADMIN")


def _from_activity(dataset: Dataset, bq_per_ml: float, rule: str) -> Suv:
    """weight / dose left at the time that the image was corrected to: the start of the scan, or the injection."""
    drug = item(dataset, "RadiopharmaceuticalInformationSequence")
    if drug is None:
        raise _AbsentError("Radiopharmaceutical Information is not stated")
    dose_bq = _within(drug, "RadionuclideTotalDose", _DOSES_BQ, "Bq")
    weight_kg = _within(dataset, "PatientWeight", _WEIGHTS_KG, "kg")
    left = 1.0  # ADMIN: as of the injection (Decay Correction (0054,1102), PS3.3 C.8.9.1)
    if text(dataset, "DecayCorrection").upper() == "START":
        half_life_s = _within(drug, "RadionuclideHalfLife", _HALF_LIVES_S, "s")
        left = 2.0 ** (-_decay_s(dataset, drug) / half_life_s)
    if dose_bq * left < 1.0:
        raise _AbsentError("nothing is left of the dose at the time of the scan")
    return Suv(bq_per_ml * weight_kg * _GRAMS / (dose_bq * left), rule)


def _from_counts(dataset: Dataset) -> Suv:
    """Philips: SUV per count, else Bq/ml per count, of its private block (7053,xx00) and (7053,xx09)."""
    factor = _private_number(dataset, 0x7053, _PHILIPS, 0x00)
    if factor is not None:
        return Suv(factor, "Philips SUV scale factor")
    activity = _private_number(dataset, 0x7053, _PHILIPS, 0x09)
    if activity is not None:
        return _from_activity(dataset, activity, "Philips activity scale factor, dose, weight and decay")
    raise _AbsentError("Units are CNTS, and no scale factor of Philips is there")


def _from_suv(dataset: Dataset) -> Suv:
    kind = text(dataset, "SUVType").upper()
    if kind not in ("", "BW"):
        raise _AbsentError(f"the values are SUV of type {kind}, not by body weight")
    return Suv(1.0, "stored as SUV")


def _decay_s(dataset: Dataset, drug: Dataset) -> float:
    scan = _scan_start(dataset)
    stated = text(drug, "RadiopharmaceuticalStartDateTime")
    if stated:
        decay = scan - _moment(stated, text(dataset, "TimezoneOffsetFromUTC"))
    else:
        start = _at(f"{scan:%Y%m%d}", text(drug, "RadiopharmaceuticalStartTime"))
        if start is None:
            raise _AbsentError("the time of injection is not stated")
        decay = scan - start
        if decay < datetime.timedelta(0):
            decay += _DAY  # injected before midnight, scanned after it
    if decay < datetime.timedelta(0):
        raise _AbsentError("the injection is stated to be after the scan")
    return decay.total_seconds()


def _scan_start(dataset: Dataset) -> datetime.datetime:
    """Series Date and Time, unless the series was made after the acquisition; then GE's own scan time."""
    series = _at(text(dataset, "SeriesDate"), text(dataset, "SeriesTime"))
    acquired = _at(text(dataset, "AcquisitionDate"), text(dataset, "AcquisitionTime"))
    if series is not None and acquired is not None and series <= acquired:
        return series
    scanned = _private_text(dataset, 0x0009, _GE, 0x0D)
    if scanned:
        return _moment(scanned, "")
    if series is None or acquired is None:
        raise _AbsentError("the date and time of series and acquisition are not stated")
    raise _AbsentError("the series is stated to begin after its acquisition, so the time of the scan is not known")


def _at(date: str, time: str) -> datetime.datetime | None:
    """A date and a time (DA and TM of PS3.5 6.2; also with points and colons, as before 1993)."""
    digits = f"{date.replace('.', '')}{time.replace(':', '')}"
    whole = re.fullmatch(r"([0-9]{8}[0-9]{4})([0-9]{2})?(\.[0-9]{1,6})?", digits)
    if not whole:
        return None
    try:
        return _moment(f"{whole[1]}{whole[2] or '00'}{whole[3] or ''}", "")
    except _AbsentError:
        return None


def _moment(words: str, offset_of_file: str) -> datetime.datetime:
    """A DT (PS3.5 6.2) in the time zone of the file's other times (Timezone Offset From UTC (0008,0201))."""
    found = _DATE_AND_TIME.fullmatch(words)
    if not found:
        raise _AbsentError("a time is malformed or not given to the second")
    try:
        day = datetime.datetime.strptime("".join(found.groups()[:4]), "%Y%m%d%H%M%S")
    except ValueError:
        raise _AbsentError("a time is malformed or not given to the second") from None
    moment = day + datetime.timedelta(microseconds=int((found[5] or "0").ljust(6, "0")))
    if not found[6]:
        return moment
    if not re.fullmatch("[+-][0-9]{4}", offset_of_file):
        raise _AbsentError("the injection has a time zone and the scan has none")
    return moment - _offset(found[6]) + _offset(offset_of_file)


def _offset(words: str) -> datetime.timedelta:
    sign = -1 if words[0] == "-" else 1
    return sign * datetime.timedelta(hours=int(words[1:3]), minutes=int(words[3:5]))


def _within(dataset: Dataset, keyword: str, bounds: tuple[float, float], unit: str) -> float:
    value = number(dataset, keyword)
    if value is None:
        raise _AbsentError(f"{keyword} is not stated")
    if not bounds[0] <= value <= bounds[1]:  # NaN is not within either
        raise _AbsentError(f"{keyword} is not between {bounds[0]:g} and {bounds[1]:g} {unit}")
    return value


def _private_text(dataset: Dataset, group: int, creator: str, offset: int) -> str:
    try:
        value: object = dataset.private_block(group, creator)[offset].value
    except KeyError:
        return ""
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).strip("\0 ")


def _private_number(dataset: Dataset, group: int, creator: str, offset: int) -> float | None:
    """A positive number; 0 and what is no number are how a factor that was not computed is written."""
    try:
        value = float(_private_text(dataset, group, creator, offset))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0.0 else None
