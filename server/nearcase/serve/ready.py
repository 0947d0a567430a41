"""What a stream of answers has ready, together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast


async def ready_in(responses: AsyncIterator[Any], most: int) -> AsyncGenerator[list[Any], None]:
    """Yields what is ready, at most so many at once, in order; never waits to have more.

    An error comes after what was ready before it. Closing this closes the stream.
    """
    following = asyncio.ensure_future(anext(responses, None))
    try:
        while (first := await following) is not None:
            found = [first]
            following = asyncio.ensure_future(anext(responses, None))
            while len(found) < most:
                await asyncio.sleep(0)
                if not following.done() or following.exception() or following.result() is None:
                    break
                found.append(following.result())
                following = asyncio.ensure_future(anext(responses, None))
            yield found
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await cast(Any, responses).aclose()
