"""The text tower of an encoder's folder: words -> tokens -> unit embeddings, on onnxruntime's CPU.

Texts run one by one and unpadded: padding is masked, so it would change nothing and cost most of the time. What was
asked before is remembered, by its tokens: prompts come again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from nearcase.encode.card import Card
from nearcase.encode.card_tables import TextTower
from nearcase.encode.golden import GOLDEN_LIMIT
from nearcase.encode.golden_text import verify_golden_text
from nearcase.encode.onnx_file import refuse_external_data
from nearcase.encode.session import CPU, brief, onnxruntime_version, session_options
from nearcase.errors import InvalidInput, Unready, Unsupported

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

MAX_CHARACTERS = 20_000
"""Longer texts are refused: tokens beyond the context are cut off, but all of a text is read to find them."""

REMEMBERED = 4096
"""Embeddings that are kept: 16 MB at 1024 dimensions."""

_INPUTS = [("ids", "tensor(int64)"), ("mask", "tensor(int64)")]
_LENGTH_TOLERANCE = 1e-3


class OnnxText:
    """The text tower of a card's folder; `embed_texts` may be called from many threads at once.

    Args:
        card: The encoder's.
        threads: Cores that one text may use.

    Raises:
        Unsupported: The encoder has no text tower.
        Unready: Its files are not what the card says, or a package is absent.
    """

    def __init__(self, card: Card, *, threads: int = 1) -> None:
        self._card = card
        tower = tower_of(card)
        refuse_external_data(card.text_path)
        self._tokenizer = _open_tokenizer(card, tower)
        network = _Network(_open_session(card, threads), card)
        self._remembered = lru_cache(REMEMBERED)(network.run)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns (N, D) unit embeddings of N texts; empty ones too, and of long ones as much as the context holds.

        Raises:
            InvalidInput: A text is longer than 20,000 characters or no valid Unicode.
            Unready: The network gave values that are no embeddings.
        """
        vectors = [self._remembered(self.tokens(text)) for text in texts]
        return np.stack(vectors) if vectors else np.empty((0, self._card.dimension), np.float32)

    def tokens(self, text: str) -> tuple[int, ...]:
        """Returns the token ids of a text with its begin and its end, cut to the context.

        Raises:
            InvalidInput: The text is longer than 20,000 characters or no valid Unicode.
        """
        if len(text) > MAX_CHARACTERS:
            raise InvalidInput(f"Expected at most {MAX_CHARACTERS} characters, got {len(text)}", field="text")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidInput("Expected valid Unicode, got half of a surrogate pair", field="text") from None
        return tuple(self._tokenizer.encode(text).ids)


class _Network:
    """The session of a text tower; apart from what remembers its answers, so that both are freed together."""

    def __init__(self, session: onnxruntime.InferenceSession, card: Card) -> None:
        self._session, self._card = session, card

    def run(self, tokens: tuple[int, ...]) -> NDArray[np.float32]:
        """Returns the unit embedding of one text's tokens."""
        ids = np.asarray([tokens], np.int64)
        try:
            (found,) = self._session.run(["embedding"], {"ids": ids, "mask": np.ones_like(ids)})
        except Exception as error:  # onnxruntime's own error types share no base class
            raise Unready(
                f"Expected the text tower of {self._card.name} to run, got: {brief(error)}", reason="ENCODER_FAILED"
            ) from error
        vector: NDArray[np.float32] = found[0]
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if vector.shape != (self._card.dimension,) or not abs(length - 1.0) <= _LENGTH_TOLERANCE:  # true for NaN
            raise Unready(
                f"Expected a text embedding of length 1, got {length:.4g} of {vector.shape}", reason="ENCODER_FAILED"
            )
        vector.setflags(write=False)  # it is shared by all who ask again
        return vector


def open_text(card: Card, *, threads: int = 1) -> OnnxText:
    """Returns the text tower of a card's folder, once it reproduces its golden embeddings.

    Raises:
        Unsupported: The encoder has no text tower.
        Unready: It can not be loaded, or its embeddings are off; the message says how far.
    """
    encoder = OnnxText(card, threads=threads)
    cosine = verify_golden_text(encoder, card)
    if not cosine >= GOLDEN_LIMIT:  # true for NaN
        raise Unready(
            f"Expected the text tower of {card.name} to reproduce its golden embeddings with cosine >= {GOLDEN_LIMIT}, "
            f"got {cosine:.6f}",
            reason="GOLDEN_MISMATCH",
        )
    return encoder


def tower_of(card: Card) -> TextTower:
    """Returns what the card says of its text tower.

    Raises:
        Unsupported: The encoder has none.
    """
    if card.text is None:
        raise Unsupported(f"UNIMPLEMENTED: the encoder {card.name} has no text tower", reason="UNIMPLEMENTED")
    return card.text


def _open_tokenizer(card: Card, tower: TextTower) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise Unready(
            f"Expected the package tokenizers for the text tower of {card.name}: pip install nearcase[text]",
            reason="RUNTIME_PACKAGES",
        ) from None
    try:
        tokenizer = Tokenizer.from_file(str(card.tokenizer_path))
        tokenizer.enable_truncation(tower.context)
        tokenizer.no_padding()
    except Exception as error:  # the library raises bare Exceptions
        raise Unready(
            f"Expected a tokenizer in {card.tokenizer_path.name}, got: {brief(error)}", reason="ONNX_INVALID"
        ) from error
    return tokenizer


def _open_session(card: Card, threads: int) -> onnxruntime.InferenceSession:
    onnxruntime_version()
    try:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(card.text_path), session_options(threads, CPU), providers=[CPU])
    except Exception as error:  # its error types share no base class; or a broken install
        raise Unready(
            f"Expected onnxruntime to load the text tower of {card.name}, got: {brief(error)}", reason="ONNX_INVALID"
        ) from error
    inputs = [(end.name, end.type) for end in session.get_inputs()]
    outputs = [(end.name, end.type, list(end.shape[1:])) for end in session.get_outputs()]
    if inputs != _INPUTS or outputs != [("embedding", "tensor(float)", [card.dimension])]:
        raise Unready(
            f"Expected a text tower from {_INPUTS} to embeddings, got {inputs} to {outputs}", reason="ONNX_INVALID"
        )
    return session
