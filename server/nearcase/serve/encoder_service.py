"""EncoderService: embeddings, and what made them."""

from __future__ import annotations

import asyncio

from google.rpc import code_pb2

from nearcase.convert import encoder_to_proto
from nearcase.encode.preprocess import Recipe
from nearcase.errors import InvalidInput, NearcaseError
from nearcase.serve.context import Context
from nearcase.serve.engine import Engine, to_case
from nearcase.serve.notes import notes
from nearcase.v1 import encoder_pb2, encoder_pb2_grpc
from nearcase.v1.types_pb2 import ItemError

MAX_IMAGES = 64
MAX_TEXTS = 256


class EncoderService(encoder_pb2_grpc.EncoderServiceServicer):
    """Gives embeddings and describes the encoder."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def DescribeEncoder(
        self, request: encoder_pb2.DescribeEncoderRequest, context: Context
    ) -> encoder_pb2.DescribeEncoderResponse:
        """Returns the encoder's card."""
        recipe = self._engine.card.recipe
        return encoder_pb2.DescribeEncoderResponse(
            encoder=encoder_to_proto(self._engine.summary),
            card_toml=(self._engine.card.folder / "card.toml").read_text("utf-8"),
            input_size_px=recipe.size_px if isinstance(recipe, Recipe) else 0,  # a block of voxels is no square
            embeds_text=self._engine.texts.are_served,
        )

    async def EmbedImages(
        self, request: encoder_pb2.EmbedImagesRequest, context: Context
    ) -> encoder_pb2.EmbedImagesResponse:
        """Embeds each image; one that can not be read fails alone."""
        if not 1 <= len(request.images) <= MAX_IMAGES:
            raise InvalidInput(f"expected 1 to {MAX_IMAGES} images, got {len(request.images)}", field="images")
        deadline_s = self._engine.deadline_s(context)
        async with self._engine.line.turn():
            results = await asyncio.gather(*(self._embed(image, deadline_s) for image in request.images))
        return encoder_pb2.EmbedImagesResponse(results=results, encoder=encoder_to_proto(self._engine.summary))

    async def EmbedTexts(
        self, request: encoder_pb2.EmbedTextsRequest, context: Context
    ) -> encoder_pb2.EmbedTextsResponse:
        """Embeds each text; one that is too long fails alone."""
        if not 1 <= len(request.texts) <= MAX_TEXTS:
            raise InvalidInput(f"expected 1 to {MAX_TEXTS} texts, got {len(request.texts)}", field="texts")
        deadline_s = self._engine.deadline_s(context)
        # One after the other: a request holds one place in the queue, however many texts it has.
        results = [await self._embed_text(text, deadline_s) for text in request.texts]
        return encoder_pb2.EmbedTextsResponse(results=results, encoder=encoder_to_proto(self._engine.summary))

    async def _embed(self, image: encoder_pb2.ImageInput, deadline_s: float | None) -> encoder_pb2.EmbedResult:
        frame_number = image.frame_number if image.HasField("frame_number") else None
        try:
            embedding = await self._engine.embed(image.image, frame_number, deadline_s=deadline_s, with_thumbnail=False)
        except NearcaseError as error:
            return encoder_pb2.EmbedResult(error=item_error(error))
        notes().asked_about([self._engine.privacy.case(to_case(embedding.prepared))])
        values = embedding.embedded.embedding.tolist()
        return encoder_pb2.EmbedResult(embedding=encoder_pb2.Embedding(values=values))

    async def _embed_text(self, text: str, deadline_s: float | None) -> encoder_pb2.EmbedResult:
        try:
            vector = await self._engine.texts.embed(text, deadline_s=deadline_s)
        except InvalidInput as error:
            return encoder_pb2.EmbedResult(error=item_error(error))
        return encoder_pb2.EmbedResult(embedding=encoder_pb2.Embedding(values=vector.tolist()))


def item_error(error: NearcaseError) -> ItemError:
    """Returns a refusal of one item of many."""
    return ItemError(code=code_pb2.Code.Value(error.code), reason=error.reason, message=str(error))
