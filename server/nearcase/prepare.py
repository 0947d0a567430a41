"""Bytes -> what the encoder and the library need, made in a child process that hostile bytes can only kill.

A decode child reads the file, resizes the frame for the encoder and makes the thumbnail; what travels back is small:
facts, a (size, size, 3) picture and a JPEG.
"""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nearcase.encode.preprocess import Recipe, resize
from nearcase.errors import Overloaded
from nearcase.intake.burned_in import KEEP_TEXT, TextPolicy
from nearcase.intake.files import read_image
from nearcase.intake.presets import FIRST
from nearcase.intake.render import THUMBNAIL_PX, encode_png, encode_thumbnail
from nearcase.intake.view import read_view
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
    """Runs in the child: reads no more of the frame than is needed, resizes, makes the thumbnail."""
    text_policy = TextPolicy(**options["text_policy"])
    recipe = Recipe(**options["recipe"] | {key: tuple(options["recipe"][key]) for key in ("mean", "std")})
    needed_px = max(recipe.size_px, THUMBNAIL_PX)
    image = read_image(data, frame_number=options["frame_number"], text_policy=text_policy, needed_px=needed_px)
    return _header(image), [resize(image.pixels, recipe, image.frame_box).tobytes(), encode_thumbnail(image)]


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

    def __init__(self, sandbox: Sandbox, recipe: Recipe, *, workers: int, max_waiting: int = 256) -> None:
        self._sandbox, self._recipe = sandbox, recipe
        self._lanes = Lanes(workers, max_waiting)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="prepare")

    async def prepare(
        self,
        data: bytes,
        frame_number: int | None = None,
        text_policy: TextPolicy = KEEP_TEXT,
        *,
        bulk: bool = False,
    ) -> Prepared:
        """Returns the frame for the encoder; a caller that goes away while it waits costs nothing.

        Args:
            data: The file.
            frame_number: Counts from 1; the middle frame when left out.
            text_policy: What to do about text in the picture.
            bulk: Lets searches go first.

        Raises:
            InvalidInput, Unsupported: The file can not be read, ran into a limit, or the policy refuses it.
            Overloaded: Too much waits.
        """
        await self._lanes.take(bulk=bulk)
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, self.prepare_now, data, frame_number, text_policy)
        # The lane is free when the child is, which outlives a caller that goes away.
        work.add_done_callback(lambda _: self._lanes.give_back(bulk=bulk))
        return await asyncio.shield(work)

    def prepare_now(
        self, data: bytes, frame_number: int | None = None, text_policy: TextPolicy = KEEP_TEXT
    ) -> Prepared:
        """The same, blocking."""
        options = {
            "frame_number": frame_number,
            "recipe": dataclasses.asdict(self._recipe),
            "text_policy": dataclasses.asdict(text_policy),
        }
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
