"""How like its copy is a picture, and how like it are pictures of others? Where a case is to be called a copy.

Every image of ISIC 2017 is embedded by a server; a sample of them again as PNG, as JPEG of two qualities, and at 90 %
of its size. The table shows the cosine of each copy with its original, and of each original with the nearest image of
another patient, which no limit should reach. Patients of that cohort are lesions and known copies, so that some of the
"others" are one lesion twice.

Needs `isic2017.zip` (CC0, Codella et al., arXiv 1710.05006), which nearcase does not ship.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from decide import COHORT, read_images
from numpy.typing import NDArray
from PIL import Image as PillowImage
from vectors.tables import markdown

from nearcase.client import Client
from nearcase.demo.server import running_server
from nearcase.errors import NearcaseError
from nearcase.serve.caveats import SAME

SAMPLE = 400
BATCH = 64

Pixels = PillowImage.Image


@dataclass(frozen=True, slots=True)
class Row:
    """Cosines of one kind of copy, or of the nearest image of another patient."""

    what: str
    least: float
    p5: float
    median: float
    most: float
    called_same: float  # share at or above SAME


def _saved(image: Pixels, kind: str, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _smaller(image: Pixels) -> bytes:
    side = tuple(round(0.9 * length) for length in image.size)
    return _saved(image.resize((side[0], side[1]), PillowImage.Resampling.BICUBIC), "PNG")


COPIES: dict[str, Callable[[Pixels], bytes]] = {
    "as PNG": lambda image: _saved(image, "PNG"),
    "as JPEG, quality 90": lambda image: _saved(image, "JPEG", quality=90),
    "as JPEG, quality 50": lambda image: _saved(image, "JPEG", quality=50),
    "at 90 % of its size": _smaller,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    options = parser.parse_args()
    if not COHORT.is_file():
        print("skipped: isic2017.zip is not here")
        return
    with (
        tempfile.TemporaryDirectory(prefix="nearcase-copies-") as folder,
        running_server(Path(folder)) as server,
        Client(server.address) as client,
    ):
        rows = measure(client)
    header = ["cosine of an image with", "least", "5 %", "median", "most", f"from {SAME} on"]
    cells = [
        [
            row.what,
            f"{row.least:.4f}",
            f"{row.p5:.4f}",
            f"{row.median:.4f}",
            f"{row.most:.4f}",
            f"{row.called_same:.1%}",
        ]
        for row in rows
    ]
    print(markdown(header, cells))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", "utf-8")


def measure(client: Client) -> list[Row]:
    """The nearest of other patients among all images, and the copies of a sample."""
    images = read_images()
    vectors = embedded(client, [image.data for image in images])
    patients = np.array([image.row["patient_id"] for image in images])
    similar = vectors @ vectors.T
    similar[patients[:, None] == patients[None, :]] = -1.0
    chosen = np.random.default_rng(0).permutation(len(images))[:SAMPLE]
    pictures = [PillowImage.open(io.BytesIO(images[at].data)).convert("RGB") for at in chosen]
    rows = [_row("the nearest of another patient", similar.max(axis=1))]
    for what, make in COPIES.items():
        copies = embedded(client, [make(picture) for picture in pictures])
        rows.append(_row(f"itself {what}", np.einsum("nd,nd->n", copies, vectors[chosen])))
    return rows


def embedded(client: Client, files: list[bytes]) -> NDArray[np.float64]:
    """One unit vector a file, (N, D)."""
    found: list[tuple[float, ...]] = []
    for start in range(0, len(files), BATCH):
        for each in client.embed(files[start : start + BATCH]):
            if isinstance(each, NearcaseError):
                raise SystemExit(str(each))
            found.append(each)
    return np.array(found)


def _row(what: str, cosines: NDArray[np.float64]) -> Row:
    least, p5, median, most = np.quantile(cosines, [0.0, 0.05, 0.5, 1.0])
    return Row(what, float(least), float(p5), float(median), float(most), float((cosines >= SAME).mean()))


if __name__ == "__main__":
    main()
