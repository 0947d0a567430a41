"""Bytes -> what the encoder and the library need, made in a child process that hostile bytes can only kill.

A decode child reads the file, resizes the frame for the encoder and makes the thumbnail; what travels back is small:
facts, a (size, size, 3) picture and a JPEG. For an encoder of volumes the file is a whole series, and what travels is a
block of voxels.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import heapq
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nearcase.encode.inputs import AnyRecipe, recipe_from_words, unpack_frame
from nearcase.encode.preprocess import resize
from nearcase.encode.volume import VolumeRecipe, fit_volume, window_plane
from nearcase.errors import InvalidInput, Overloaded
from nearcase.intake.burned_in import KEEP_TEXT, TextPolicy
from nearcase.intake.files import read_image
from nearcase.intake.presets import FIRST
from nearcase.intake.render import THUMBNAIL_PX, encode_png, encode_thumbnail
from nearcase.intake.sandbox import Sandbox
from nearcase.intake.series_file import read_series
from nearcase.intake.view import read_view
from nearcase.types import CaseFacts, Image, QueryImage

if TYPE_CHECKING:
    from nearcase.encode.inputs import Frame

SERIES_TIMES = 6
"""How much longer a whole series may take than one file: 300 plain slices of 512 x 512 take 2.5 s of CPU."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One frame or one series, ready for the encoder, and what is known of it."""

    image: QueryImage
    content_sha256: str
    media_type: str
    pixels: Frame  # (size, size, 3) uint8, or (X, Y, Z) float32 from 0 to 1
    is_series: bool = False


def prepare_job(data: bytes, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Runs in the child: reads no more of the frame than is needed, resizes, makes the thumbnail."""
    text_policy = TextPolicy(**options["text_policy"])
    recipe = recipe_from_words(options["recipe"])
    if isinstance(recipe, VolumeRecipe):
        return _prepare_series(data, options["frame_number"], text_policy, recipe)
    needed_px = recipe.needed_px and max(recipe.needed_px, THUMBNAIL_PX)
    image = read_image(data, frame_number=options["frame_number"], text_policy=text_policy, needed_px=needed_px)
    thumbnail = encode_thumbnail(image) if options.get("with_thumbnail", True) else b""
    return _header(image), [resize(image.pixels, recipe, image.frame_box).tobytes(), thumbnail]


def _prepare_series(
    data: bytes, frame_number: int | None, text_policy: TextPolicy, recipe: VolumeRecipe
) -> tuple[dict[str, Any], list[bytes]]:
    if frame_number is not None:
        message = "this library's encoder takes whole series, which have no frame to choose"
        raise InvalidInput(message, reason="NO_SUCH_FRAME", field="frame_number")
    planes = read_series(data, text_policy)
    if planes.facts.modality not in ("", "CT") or planes.unit not in ("", "HU"):
        raise InvalidInput(
            f"expected a CT in Hounsfield units, got {planes.facts.modality or 'values'} in {planes.unit or 'no unit'}",
            field="image",
        )
    block = fit_volume(planes.plane, planes.shape, planes.direction, recipe)
    assumed = () if planes.unit else ("values taken for Hounsfield units",)
    image = Image(
        pixels=window_plane(planes.plane(planes.shape[0] // 2)),
        facts=planes.facts,
        media_type=planes.media_type,
        rules=(*planes.findings, *assumed),
    )
    return _header(image) | {"is_series": True}, [block.tobytes(), encode_thumbnail(image)]


def describe_job(data: bytes, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Runs in the child: reads, and draws the frame as the encoder sees it before resizing if `png` is asked for."""
    image = read_view(data, frame_number=options["frame_number"], window=options.get("window", FIRST))
    pixel_facts = {
        "rows": image.pixels.shape[0],
        "columns": image.pixels.shape[1],
        "color": image.is_color,
        "spacing_mm": image.spacing_mm,
        "transfer_syntax_uid": image.transfer_syntax_uid,
    }
    header = _header(image) | {"content_sha256": hashlib.sha256(data).hexdigest(), "pixels": pixel_facts}
    return header, [encode_png(image)] if options["png"] else []


def _header(image: Image) -> dict[str, Any]:
    return {
        "facts": dataclasses.asdict(image.facts),
        "frame_number": image.frame_number,
        "frame_count": image.frame_count,
        "rules": list(image.rules),
        "media_type": image.media_type,
    }


def prepare_sandbox(recipe: AnyRecipe, *, workers: int, wall_s: float = 10.0, memory_bytes: int = 960 << 20) -> Sandbox:
    """Returns the child processes for `prepare_job`, whose limits of time fit what the recipe reads.

    Args:
        recipe: The encoder's.
        workers: Children.
        wall_s: How long one file may take; a series is hundreds of files.
        memory_bytes: Of one child.
    """
    times = SERIES_TIMES if isinstance(recipe, VolumeRecipe) else 1
    cpu_s = 10 * times
    return Sandbox(prepare_job, workers=workers, wall_s=wall_s * times, cpu_s=cpu_s, memory_bytes=memory_bytes)


class Lanes:
    """Who may use a decoding child now: searches first, and one lane that adding never takes.

    Decoding is the slowest step by far, so this is where a search would otherwise wait behind a bulk load.
    """

    def __init__(self, count: int, max_waiting: int) -> None:
        self._free, self._bulk_free, self._max_waiting = count, max(1, count - 1), max_waiting
        self._waiting: list[tuple[bool, int, asyncio.Future[None]]] = []
        self._number = 0

    async def take(self, *, bulk: bool) -> None:
        """Returns when a lane is the caller's; raises Overloaded when too many wait."""
        self._waiting = [entry for entry in self._waiting if not entry[2].done()]
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} images wait to be decoded already; try again later")
        self._number += 1
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (bulk, self._number, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(bulk=bulk)  # it was given a lane in the moment that it went away
            raise

    def give_back(self, *, bulk: bool) -> None:
        """Lets the next one in."""
        self._free += 1
        self._bulk_free += bulk
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._free:
            bulk, _, turn = self._waiting[0]
            if bulk and not self._bulk_free and not turn.done():
                return  # searches come first in the heap, so nothing but adding waits
            heapq.heappop(self._waiting)
            if not turn.done():
                self._free -= 1
                self._bulk_free -= bulk
                turn.set_result(None)


class Preparer:
    """Prepares files for one recipe; as many at once as the sandbox has workers, the others wait."""

    def __init__(self, sandbox: Sandbox, recipe: AnyRecipe, *, workers: int, max_waiting: int = 256) -> None:
        self._sandbox, self._recipe, self._recipe_words = sandbox, recipe, dataclasses.asdict(recipe)
        self._lanes = Lanes(workers, max_waiting)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
        self.ended_count = 0  # files that a child was given, whatever became of them

    @property
    def sandbox(self) -> Sandbox:
        """The children, for whoever watches them."""
        return self._sandbox

    async def prepare(
        self,
        data: bytes,
        frame_number: int | None = None,
        text_policy: TextPolicy = KEEP_TEXT,
        *,
        bulk: bool = False,
        with_thumbnail: bool = True,
    ) -> Prepared:
        """Returns the frame for the encoder; a caller that goes away while it waits costs nothing.

        Args:
            data: The file.
            frame_number: Counts from 1; the middle frame when left out.
            text_policy: What to do about text in the picture.
            bulk: Lets searches go first.
            with_thumbnail: False where nobody will see the picture; what the encoder sees is the same.

        Raises:
            InvalidInput, Unsupported: The file can not be read, ran into a limit, or the policy refuses it.
            Overloaded: Too much waits.
        """
        await self._lanes.take(bulk=bulk)
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, self.prepare_now, data, frame_number, text_policy, with_thumbnail)
        # The lane is free when the child is, which outlives a caller that goes away.
        work.add_done_callback(lambda _: self._end(bulk=bulk))
        return await asyncio.shield(work)

    def _end(self, *, bulk: bool) -> None:
        self.ended_count += 1
        self._lanes.give_back(bulk=bulk)

    def prepare_now(
        self,
        data: bytes,
        frame_number: int | None = None,
        text_policy: TextPolicy = KEEP_TEXT,
        with_thumbnail: bool = True,
    ) -> Prepared:
        """The same, blocking."""
        options = {
            "frame_number": frame_number,
            "recipe": self._recipe_words,
            "text_policy": dataclasses.asdict(text_policy),
            "with_thumbnail": with_thumbnail,
        }
        digest = hashlib.sha256()  # made here and not in the child: it reads the file meanwhile
        header, (pixels, thumbnail) = self._sandbox.run(data, options, meanwhile=lambda: digest.update(data))
        image = QueryImage(
            facts=CaseFacts(**header["facts"]),
            frame_number=header["frame_number"],
            frame_count=header["frame_count"],
            rules=tuple(header["rules"]),
            thumbnail_jpeg=thumbnail,
        )
        frame = unpack_frame(pixels, self._recipe)
        return Prepared(
            image, digest.hexdigest(), header["media_type"], frame, is_series=header.get("is_series") is True
        )

    def wait_ready(self) -> None:
        """Blocks until every child has started; raises Unready when one can not."""
        self._sandbox.wait_ready()

    def close(self) -> None:
        """Ends the threads and the children."""
        self._sandbox.close()
        self._threads.shutdown(cancel_futures=True)
