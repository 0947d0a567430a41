"""CPU time from a file's bytes to its pixels, and to an encoder's input: nearcase, pydicom, and a copy of the bytes.

One process, one thread; medians of processor time, which a busy machine disturbs less than wall time. Each image is
coded in every syntax; pydicom decodes with the plug-ins that are installed with nearcase's tests and, with
--pydicom-python, with those of another environment, for example one with pylibjpeg. "Textbook" preprocessing is
pydicom's modality and VOI functions in float64, the range stretched to 0 to 255, and Pillow's bicubic resize.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

SIDES_PX = (224, 480)
LIMIT_S = 600.0
Row = dict[str, float | None]
Rows = dict[str, Row]


def cpu_ms(work: Callable[[], object], runs: int) -> float:
    """Median over runs, after one that nobody counts."""
    work()
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append((time.process_time() - start) * 1e3)
    return statistics.median(times)


# What is measured


def write_files(folder: Path) -> None:
    """Writes the CT slice and the film in each syntax."""
    from films import film

    for name, coded in codings(film(1), bits=12, attributes={"WindowCenter": 2050, "WindowWidth": 3000}).items():
        (folder / f"film {name}.dcm").write_bytes(coded)
    slice_px, attributes = ct_slice()
    for name, coded in codings(slice_px, bits=16, attributes=attributes).items():
        (folder / f"CT {name}.dcm").write_bytes(coded)


def ct_slice() -> tuple[Any, dict[str, Any]]:
    """A real slice of 512 x 512 from pydicom-data, in Hounsfield units + 1024 like those of most scanners."""
    import numpy as np
    import pydicom

    spec = importlib.util.find_spec("data_store")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("expected pydicom-data, which holds the CT slice: pip install 'nearcase[demo]'")
    file = Path(spec.submodule_search_locations[0]) / "data" / "693_UNCI.dcm"
    values = pydicom.dcmread(file).pixel_array.astype(np.int32)
    stored = np.clip(values - values.min(), 0, 4095).astype(np.uint16)
    return stored, {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}


def codings(pixels: Any, bits: int, attributes: dict[str, Any]) -> dict[str, bytes]:
    """One DICOM file for each syntax, by name."""
    import imagecodecs
    import numpy as np
    import pydicom
    from dicom_files import dicom_file
    from pydicom import uid

    stated = {"BitsStored": bits, "HighBit": bits - 1, "Modality": "CT" if bits == 16 else "DX", **attributes}
    jpeg_2000 = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", bitspersample=bits, reversible=True)
    lossless = imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=bits, predictor=1)
    frames = {
        "JPEG-LS": (uid.JPEGLSLossless, imagecodecs.jpegls_encode(pixels)),
        "JPEG lossless": (uid.JPEGLosslessSV1, lossless),
        "JPEG 2000": (uid.JPEG2000Lossless, jpeg_2000),
        "HTJ2K": (uid.HTJ2KLossless, imagecodecs.htj2k_encode(pixels, reversible=True)),
    }
    files = {"raw": dicom_file(pixels, **stated)}
    dataset = pydicom.dcmread(BytesIO(files["raw"]))
    dataset.compress(uid.RLELossless, encoding_plugin="pydicom")
    out = BytesIO()
    dataset.save_as(out)
    files["RLE"] = out.getvalue()
    for name, (syntax, frame) in frames.items():
        files[name] = dicom_file(pixels, syntax=syntax, compressed=[bytes(frame)], **stated)
    levels = (pixels >> 4).astype(np.uint8)
    shown = {"Modality": stated["Modality"], "WindowCenter": 128, "WindowWidth": 190}
    jpeg = bytes(imagecodecs.jpeg8_encode(levels, level=90))
    files["JPEG 8-bit"] = dicom_file(levels, syntax=uid.JPEGBaseline8Bit, compressed=[jpeg], **shown)
    return files


# Who measures


def measure_nearcase(folder: Path, runs: int) -> Rows:
    """Decoding, everything up to the encoder's input, and the preprocessing alone; and a copy of the bytes."""
    from nearcase.encode.preprocess import Recipe, resize
    from nearcase.intake.files import read_image
    from nearcase.intake.grey import apply_grey_rules, read_grey_rules
    from nearcase.intake.header import read_header
    from nearcase.intake.parse import parse
    from nearcase.intake.reduction import frame_box, reduction_for

    def decode(data: bytes) -> Any:
        from nearcase.intake.frames import encapsulated_frame, native_frame
        from nearcase.intake.pixels import decode_encapsulated, decode_native

        parsed = parse(data)
        header = read_header(parsed.dataset)
        pixel_data = parsed.dataset.PixelData
        if not parsed.transfer_syntax.is_compressed:
            return decode_native(*native_frame(pixel_data, header, 1), header, parsed.byte_order)
        frame = encapsulated_frame(pixel_data, parsed.dataset, header, 1)
        return decode_encapsulated(frame, header, parsed.transfer_syntax)

    def prepare(data: bytes, recipe: Recipe) -> object:
        image = read_image(data, needed_px=recipe.size_px)
        return resize(image.pixels, recipe, image.frame_box)

    def preprocess(values: Any, rules: Any, recipe: Recipe) -> object:
        rows, columns = values.shape
        side = reduction_for(rows, columns, recipe.size_px)
        pixels, _ = apply_grey_rules(values, rules, side)
        return resize(pixels, recipe, frame_box(rows, columns, 0, side))

    rows: Rows = {}
    for name, data in files_in(folder):
        row: Row = {"bytes": len(data), "copy": cpu_ms(partial(bytearray, data), runs)}
        row["decode"] = cpu_ms(partial(decode, data), runs)
        stored, parsed = decode(data).values, parse(data)
        rules = read_grey_rules(parsed.dataset, read_header(parsed.dataset), 1, None, is_little_endian=True)
        for side_px in SIDES_PX:
            recipe = Recipe("stretch", 1, side_px, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
            row[f"to {side_px}"] = cpu_ms(partial(prepare, data, recipe), runs)
            row[f"preprocess {side_px}"] = cpu_ms(partial(preprocess, stored, rules, recipe), runs)
        rows[name] = row
    return rows


def measure_pydicom(folder: Path, runs: int) -> Rows:
    """The same with pydicom; None where no plug-in decodes. Needs pydicom, numpy and Pillow only."""
    import numpy as np
    import PIL.Image
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    def textbook(dataset: Any, values: Any, side_px: int) -> object:
        shown = np.asarray(apply_voi_lut(apply_modality_lut(values, dataset), dataset), np.float64)
        levels = ((shown - shown.min()) / (shown.max() - shown.min()) * 255.0).astype(np.uint8)
        picture = PIL.Image.fromarray(levels)
        return np.asarray(picture.resize((side_px, side_px), PIL.Image.Resampling.BICUBIC))

    def decode(data: bytes) -> Any:
        return pydicom.dcmread(BytesIO(data)).pixel_array

    rows: Rows = {}
    for name, data in files_in(folder):
        rows[name] = row = {}
        try:
            values = decode(data)
        except Exception as error:  # whatever its plug-ins raise
            print(f"{name} is not decoded: {type(error).__name__}", file=sys.stderr)
            continue
        decode_ms = row["decode"] = cpu_ms(partial(decode, data), runs)
        dataset = pydicom.dcmread(BytesIO(data))
        for side_px in SIDES_PX:
            preprocess_ms = cpu_ms(partial(textbook, dataset, values, side_px), runs)
            row[f"preprocess {side_px}"], row[f"to {side_px}"] = preprocess_ms, decode_ms + preprocess_ms
    return rows


def files_in(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes, in the order of their names."""
    return ((file.stem, file.read_bytes()) for file in sorted(folder.glob("*.dcm")))


def elsewhere(python: str, folder: Path, runs: int) -> Rows:
    """What measure_pydicom says in another interpreter, with the plug-ins that are installed there."""
    command = [python, __file__, "--measure-pydicom", str(folder), "--runs", str(runs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{python} failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    rows: Rows = json.loads(done.stdout)
    return rows


# What is printed


def print_table(results: dict[str, Rows]) -> None:
    """CPU milliseconds for each file, then how many times less than pydicom."""
    ours = results["nearcase"]
    others = [who for who in results if who != "nearcase"]
    columns = ("copy", "decode", "to 224", "to 480")
    heads = [*columns, *(f"{who}: {what}" for who in others for what in columns[1:])]
    print(f"CPU ms, median{'':10}" + "".join(f"{head:>20}" for head in heads))
    for name, row in ours.items():
        values = [row.get(what) for what in columns]
        values += [results[who].get(name, {}).get(what) for who in others for what in columns[1:]]
        print(f"{name:<24}" + "".join(f"{'-' if value is None else f'{value:.1f}':>20}" for value in values))
    for who in others:
        print(f"\ntimes less CPU than {who}: decode / to 224 / to 480 / preprocess to 224 / to 480")
        for name, row in ours.items():
            whats = ("decode", "to 224", "to 480", "preprocess 224", "preprocess 480")
            ratios = [ratio(results[who].get(name, {}).get(what), row.get(what)) for what in whats]
            print(f"{name:<24}" + "".join(f"{value:>10}" for value in ratios))


def ratio(theirs: float | None, ours: float | None) -> str:
    """How many times less, in words."""
    return "-" if not theirs or not ours else f"{theirs / ours:.1f} x"


def main() -> None:
    """Measures, prints the table, and writes it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5, help="runs of each, of which the median counts (default 5)")
    parser.add_argument("--pydicom-python", metavar="PATH", help="another Python with pydicom, its plug-ins and Pillow")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    parser.add_argument("--measure-pydicom", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    warnings.simplefilter("ignore")
    if options.measure_pydicom:
        print(json.dumps(measure_pydicom(options.measure_pydicom, options.runs)))
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # films and files are made as tests make them
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder)
        results = {"nearcase": measure_nearcase(folder, options.runs)}
        results["pydicom"] = elsewhere(sys.executable, folder, options.runs)
        if options.pydicom_python:
            results["other pydicom"] = elsewhere(options.pydicom_python, folder, options.runs)
    print_table(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
