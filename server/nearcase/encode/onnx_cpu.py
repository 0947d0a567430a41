"""onnxruntime on the CPU behind the Encoder protocol.

One thread by default: batching and threads were measured to buy nothing for small networks on a CPU, and a session that
takes all cores fights the decoders.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nearcase.encode.card import Card, read_card
from nearcase.encode.contract import check_batch, check_embeddings
from nearcase.encode.onnx_file import refuse_external_data
from nearcase.encode.session import CPU, INPUT, OUTPUT, brief, onnxruntime_version, open_session
from nearcase.errors import Unready

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CpuEncoder:
    """An encoder's folder run by onnxruntime; `embed` may be called from many threads at once.

    Args:
        folder: The encoder: encoder.onnx, card.toml, golden.npz.
        threads: Cores that one call may use.

    Raises:
        Unready: The folder is not a valid encoder, or onnxruntime is absent, doubly installed or refuses the file.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        self._card = read_card(folder)
        refuse_external_data(self._card.onnx_path)
        self._runtime = f"onnxruntime {onnxruntime_version()} CPU"
        self._session = open_session(self._card, CPU, {}, threads=threads)

    @property
    def card(self) -> Card:
        """What this encoder is, and how its input is made."""
        return self._card

    @property
    def runtime(self) -> str:
        """What runs it now: "onnxruntime 1.32.0 CPU"."""
        return self._runtime

    def embed(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns (N, D) unit embeddings of (N, 3, size, size) normalised images; blocks, and is safe in threads.

        Raises:
            InvalidInput: The batch has another shape or type, or values that are not finite.
            Unready: The network gave values that are no embeddings.
        """
        check_batch(batch, self._card)
        vectors = self._run(np.ascontiguousarray(batch))
        check_embeddings(vectors, len(batch), self._card)
        return vectors

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            vectors: NDArray[np.float32] = self._session.run([OUTPUT], {INPUT: batch})[0]
        except Exception as error:  # onnxruntime's own error types share no base class
            raise Unready(f"Expected {self._card.name} to run, got: {brief(error)}", reason="ENCODER_FAILED") from error
        return vectors
