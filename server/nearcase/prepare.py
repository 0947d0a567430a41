"""Bytes -> what the encoder and the library need, made in a child process that hostile bytes can only kill.

A decode child reads the file, resizes the frame for the encoder and makes the thumbnail; what travels back is small:
facts, a (size, size, 3) picture and a JPEG.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nearcase.encode.preprocess import Recipe, resize
from nearcase.intake.files import read_image
from nearcase.intake.render import encode_png, encode_thumbnail
from nearcase.types import CaseFacts, Image, QueryImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nearcase.intake.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class Prepared:
    """One frame, ready for the encoder, and what is known of it."""

    image: QueryImage
    content_sha256: str
    media_type: str
    pixels: NDArray[np.uint8]  # (size, size, 3)


def prepare_job(data: bytes, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Runs in the child: reads, resizes, makes the thumbnail."""
    image = read_image(data, frame_number=options["frame_number"])
    recipe = Recipe(**options["recipe"] | {key: tuple(options["recipe"][key]) for key in ("mean", "std")})
    return _header(image), [resize(image.pixels, recipe).tobytes(), encode_thumbnail(image)]


def describe_job(data: bytes, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Runs in the child: reads, and draws the frame as the encoder sees it before resizing if `png` is asked for."""
    image = read_image(data, frame_number=options["frame_number"])
    pixel_facts = {
        "rows": image.pixels.shape[0],
        "columns": image.pixels.shape[1],
        "color": image.is_color,
        "spacing_mm": image.spacing_mm,
        "transfer_syntax_uid": image.transfer_syntax_uid,
    }
    return _header(image) | {"pixels": pixel_facts}, [encode_png(image)] if options["png"] else []


def _header(image: Image) -> dict[str, Any]:
    return {
        "facts": dataclasses.asdict(image.facts),
        "frame_number": image.frame_number,
        "frame_count": image.frame_count,
        "rules": list(image.rules),
        "content_sha256": image.content_sha256,
        "media_type": image.media_type,
    }


class Preparer:
    """Prepares files for one recipe; as many at once as the sandbox has workers, the others wait."""

    def __init__(self, sandbox: Sandbox, recipe: Recipe, *, workers: int) -> None:
        self._sandbox, self._recipe = sandbox, recipe
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="prepare")

    async def prepare(self, data: bytes, frame_number: int | None = None) -> Prepared:
        """Returns the frame for the encoder; a caller that goes away while it waits costs nothing.

        Raises:
            InvalidInput, Unsupported: The file can not be read.
            Overloaded: Its child ran into a limit.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.prepare_now, data, frame_number)

    def prepare_now(self, data: bytes, frame_number: int | None = None) -> Prepared:
        """The same, blocking."""
        options = {"frame_number": frame_number, "recipe": dataclasses.asdict(self._recipe)}
        header, (pixels, thumbnail) = self._sandbox.run(data, options)
        side = self._recipe.size_px
        image = QueryImage(
            facts=CaseFacts(**header["facts"]),
            frame_number=header["frame_number"],
            frame_count=header["frame_count"],
            rules=tuple(header["rules"]),
            thumbnail_jpeg=thumbnail,
        )
        frame = np.frombuffer(pixels, np.uint8).reshape(side, side, 3)
        return Prepared(image, header["content_sha256"], header["media_type"], frame)

    def wait_ready(self) -> None:
        """Blocks until every child has started; raises Unready when one can not."""
        self._sandbox.wait_ready()

    def close(self) -> None:
        """Ends the threads and the children."""
        self._sandbox.close()
        self._threads.shutdown(cancel_futures=True)
