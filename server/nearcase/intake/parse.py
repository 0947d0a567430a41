"""Bytes -> dataset: meta information, bounded inflate, and only the elements that anything here reads.

pydicom parses; it neither decodes pixels nor sees a byte that was inflated without a bound (PS3.10 7, PS3.5 annex A).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from nearcase.errors import InvalidInput, Unsupported
from nearcase.intake.elements import text

MAX_INFLATED_BYTES = 1 << 28
"""Of a deflated data set; deflate reaches 1 : 1000, so 1 MB could become a gigabyte."""

MAX_READS = 500_000
"""Of elements and items: 2000 frames with 60 elements each need two thirds of it, 8 MB of empty items six times it."""

_PREAMBLE_BYTES = 128
_EXECUTABLES = (b"MZ", b"\x7fELF", b"#!", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_KEYWORDS = """
    SpecificCharacterSet SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID PatientID IssuerOfPatientID
    PatientAge PatientSex PatientBirthDate StudyDate SeriesDate AcquisitionDate Modality Manufacturer
    ManufacturerModelName StudyDescription SeriesDescription BodyPartExamined AnatomicRegionSequence ViewPosition
    Laterality ImageLaterality PixelSpacing NumberOfFrames Rows Columns SamplesPerPixel PhotometricInterpretation
    PlanarConfiguration BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit
    RescaleSlope RescaleIntercept ModalityLUTSequence WindowCenter WindowWidth VOILUTFunction VOILUTSequence
    RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor
    BluePaletteColorLookupTableDescriptor RedPaletteColorLookupTableData GreenPaletteColorLookupTableData
    BluePaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData
    SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence ExtendedOffsetTable ExtendedOffsetTableLengths
    PixelData FloatPixelData DoubleFloatPixelData BurnedInAnnotation ConversionType SequenceOfUltrasoundRegions
    ImagePositionPatient ImageOrientationPatient ImageType InstanceNumber FrameOfReferenceUID RescaleType
    Units SUVType CorrectedImage DecayCorrection PatientWeight SeriesTime AcquisitionTime TimezoneOffsetFromUTC
    RadiopharmaceuticalInformationSequence
"""
# Scan time of GE's PET and scale factors of Philips', wherever their private blocks lie (PS3.5 7.8.1).
_PRIVATE = [
    group << 16 | (block if element is None else block << 8 | element)
    for group, elements in ((0x0009, (None, 0x0D)), (0x7053, (None, 0x00, 0x09)))
    for block in range(0x10, 0x20)
    for element in elements
]
_PUBLIC = [tag for tag in (tag_for_keyword(keyword) for keyword in _KEYWORDS.split()) if tag is not None]
_TAGS = _PUBLIC + _PRIVATE


@dataclass(frozen=True, slots=True)
class Parsed:
    """A dataset and how it was written."""

    dataset: Dataset
    transfer_syntax: UID
    sop_class_uid: str  # of the meta information

    @property
    def byte_order(self) -> str:
        """ "<" or ">" as numpy writes it."""
        return "<" if self.transfer_syntax.is_little_endian else ">"


class _Counted(BytesIO):
    """Ends a parse that would go on for much too long: each empty item costs pydicom a Dataset."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads as any file does, so often and no more."""
        self._reads_left -= 1
        if self._reads_left < 0:
            raise InvalidInput(f"expected at most {MAX_READS} elements and items, got more", reason="DECODE_LIMIT")
        return super().read(size)


def is_dicom(data: bytes) -> bool:
    """True for a preamble and DICM, or for meta information (group 0002) without them."""
    return _meta_offset(data) is not None


def parse(data: bytes) -> Parsed:
    """Returns the elements of a DICOM file that this package reads.

    Raises:
        InvalidInput: The bytes are no DICOM file, hide a program, name no transfer syntax, inflate beyond
            MAX_INFLATED_BYTES, or need more than MAX_READS.
        Unsupported: The transfer syntax is private or unknown.
    """
    offset = _meta_offset(data)
    if offset is None:
        raise InvalidInput("expected a DICOM file, got other bytes", reason="NOT_DICOM")
    if offset and data.startswith(_EXECUTABLES):
        raise InvalidInput("expected a DICOM preamble, got the beginning of a program", reason="EXECUTABLE_PREAMBLE")
    file = _Counted(data)
    file.seek(offset)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    syntax = _transfer_syntax(meta)
    if syntax == DeflatedExplicitVRLittleEndian:
        file = _Counted(_inflated(memoryview(data)[file.tell() :]))
    dataset = read_dataset(file, syntax.is_implicit_VR, syntax.is_little_endian, specific_tags=_TAGS)
    return Parsed(dataset, syntax, text(meta, "MediaStorageSOPClassUID"))


def _meta_offset(data: bytes) -> int | None:
    if data[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM":
        return _PREAMBLE_BYTES + 4
    return 0 if data[:2] == b"\x02\x00" and data[4:6] in (b"UL", b"OB", b"UI") else None


def _transfer_syntax(meta: Dataset) -> UID:
    words = text(meta, "TransferSyntaxUID")
    if not words:
        raise InvalidInput("expected a transfer syntax, found none", reason="NO_TRANSFER_SYNTAX")
    syntax = UID(words)
    if syntax.is_private or not syntax.is_transfer_syntax:
        raise Unsupported("files of a private or unknown transfer syntax can not be read", reason="TRANSFER_SYNTAX")
    return syntax


def _inflated(deflated: memoryview) -> bytes:
    """The data set of PS3.5 A.5, which is deflated without a zlib header."""
    inflator = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflator.decompress(deflated, MAX_INFLATED_BYTES)
    if inflator.unconsumed_tail:
        raise InvalidInput(f"expected at most {MAX_INFLATED_BYTES} inflated bytes, got more", reason="IMAGE_TOO_LARGE")
    return inflated
