"""Words through the server: one lane, bounded; EmbedTexts; and a search by words."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from serving import picture, serving

from nearcase.client import AddItem, Client
from nearcase.clock import SystemClock
from nearcase.encode.card import read_card
from nearcase.encode.text import open_text
from nearcase.errors import InvalidInput, Overloaded, Unsupported
from nearcase.serve.texts import Texts
from nearcase.v1 import encoder_pb2, encoder_pb2_grpc, search_pb2, search_pb2_grpc


class Gate:
    """A text tower that waits to be let through, and counts how many are in it."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.inside = self.most = self.calls = 0

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.opened.wait(10)
        self.inside -= 1
        return np.full((len(texts), 4), 0.5, np.float32)


def texts_of(gate: Gate | None, max_waiting: int = 100) -> Texts:
    return Texts(gate, "tiny", SystemClock(), max_waiting=max_waiting)


async def test_texts_run_one_at_a_time() -> None:
    gate = Gate()
    texts = texts_of(gate)
    tasks = [asyncio.create_task(texts.embed("a", deadline_s=None)) for _ in range(9)]
    await asyncio.sleep(0.05)
    gate.opened.set()
    assert len(await asyncio.gather(*tasks)) == 9
    assert gate.most == 1
    texts.close()


async def test_one_too_many_is_refused_and_the_others_are_unhurt() -> None:
    gate = Gate()
    texts = texts_of(gate, max_waiting=2)
    tasks = [asyncio.create_task(texts.embed("a", deadline_s=None)) for _ in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded, match="2 texts wait"):
        await texts.embed("a", deadline_s=None)
    gate.opened.set()
    await asyncio.gather(*tasks)
    assert (await texts.embed("a", deadline_s=None)).shape == (4,)
    texts.close()


async def test_callers_who_went_away_and_late_ones_cost_nothing() -> None:
    gate = Gate()
    texts = texts_of(gate)
    clock = SystemClock()
    first = asyncio.create_task(texts.embed("a", deadline_s=None))
    await asyncio.sleep(0.05)
    gone = asyncio.create_task(texts.embed("b", deadline_s=None))
    late = asyncio.create_task(texts.embed("c", deadline_s=clock.monotonic_s() + 0.05))
    await asyncio.sleep(0.1)
    gone.cancel()
    gate.opened.set()
    await first
    with pytest.raises(TimeoutError):
        await late
    assert gate.calls == 1
    texts.close()


async def test_an_encoder_of_images_alone_says_so() -> None:
    texts = texts_of(None)
    assert not texts.are_served
    with pytest.raises(Unsupported, match="no text tower"):
        await texts.embed("a", deadline_s=None)


@pytest.mark.system
def test_a_server_embeds_words_and_searches_with_them(words_encoder_folder: Path, tmp_path: Path) -> None:
    encoder = open_text(read_card(words_encoder_folder))
    given = ["x-ray chest anteroposterior Pneumonia", "", "X-RAY CHEST ANTEROPOSTERIOR PNEUMONIA", "ct " * 300]
    files = [picture(seed) for seed in range(6)]
    with (
        serving(tmp_path / "data", "--encoder", str(words_encoder_folder)) as server,
        Client(server.address) as client,
        grpc.insecure_channel(server.address) as channel,
    ):
        embedding = encoder_pb2_grpc.EncoderServiceStub(channel)
        assert embedding.DescribeEncoder(encoder_pb2.DescribeEncoderRequest()).embeds_text
        *found, refused = client.embed_texts([*given, "x" * 20_001])
        words = np.array(found, np.float32)
        np.testing.assert_array_equal(words, encoder.embed_texts(given))
        assert isinstance(refused, InvalidInput)
        with pytest.raises(grpc.RpcError, match="1 to 256 texts"):
            embedding.EmbedTexts(encoder_pb2.EmbedTextsRequest())

        assert all(added.error is None for added in client.add(AddItem(str(n), file) for n, file in enumerate(files)))
        images = np.array(client.embed(files), np.float32)
        request = search_pb2.SearchRequest(examples=[search_pb2.Example(text=given[0])])
        hits = search_pb2_grpc.SearchServiceStub(channel).Search(request).hits
        np.testing.assert_allclose([hit.similarity for hit in hits], np.sort(images @ words[0])[::-1], atol=1e-5)
