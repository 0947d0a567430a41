"""onnxruntime on the CPU behind the Encoder protocol.

One thread by default: batching and threads were measured to buy nothing for small networks on a CPU, and a session that
takes all cores fights the decoders. There is no silent fallback: what runs is checked and stated.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nearcase.encode.card import Card, read_card
from nearcase.encode.golden import GOLDEN_LIMIT, verify_golden
from nearcase.encode.onnx_file import refuse_external_data
from nearcase.errors import InvalidInput, Unready

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

_PROVIDER = "CPUExecutionProvider"
_INPUT, _OUTPUT = "image", "embedding"
_ERRORS_ONLY = 3  # onnxruntime's severity: warnings of graph optimisation are not for an operator
_LENGTH_TOLERANCE = 1e-3


class OnnxEncoder:
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
        self._runtime = f"onnxruntime {_onnxruntime_version()} CPU"
        self._session = _open_session(self._card, threads)

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
        size = self._card.recipe.size_px
        if batch.dtype != np.float32 or batch.shape != (len(batch), 3, size, size) or len(batch) == 0:
            raise InvalidInput(f"Expected a float32 batch (N, 3, {size}, {size}), got {batch.dtype} {batch.shape}")
        if not np.isfinite(batch).all():
            raise InvalidInput("Expected finite values in the batch, got infinite ones or none")
        vectors = self._run(np.ascontiguousarray(batch))
        self._check(vectors, len(batch))
        return vectors

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            vectors: NDArray[np.float32] = self._session.run([_OUTPUT], {_INPUT: batch})[0]
        except Exception as error:  # onnxruntime's own error types share no base class
            raise Unready(
                f"Expected {self._card.name} to run, got: {_brief(error)}", reason="ENCODER_FAILED"
            ) from error
        return vectors

    def _check(self, vectors: NDArray[np.float32], count: int) -> None:
        expected = (count, self._card.dimension)
        if vectors.shape != expected or vectors.dtype != np.float32:
            raise Unready(
                f"Expected float32 embeddings {expected}, got {vectors.dtype} {vectors.shape}", reason="ENCODER_FAILED"
            )
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        worst = float(lengths[np.argmax(np.nan_to_num(np.abs(lengths - 1.0), nan=np.inf))])
        if not abs(worst - 1.0) <= _LENGTH_TOLERANCE:  # true for NaN
            raise Unready(f"Expected embeddings of length 1, got {worst:.4g}", reason="ENCODER_FAILED")


def open_encoder(folder: Path, *, threads: int = 1) -> OnnxEncoder:
    """Returns the encoder of a folder, once it reproduces its golden embeddings.

    Raises:
        Unready: It can not be loaded, or its embeddings are off; the message says how far.
    """
    encoder = OnnxEncoder(folder, threads=threads)
    cosine = verify_golden(encoder)
    if not cosine >= GOLDEN_LIMIT:  # true for NaN
        raise Unready(
            f"Expected {encoder.card.name} to reproduce its golden embeddings with cosine >= {GOLDEN_LIMIT}, "
            f"got {cosine:.6f} on {encoder.runtime}",
            reason="GOLDEN_MISMATCH",
        )
    return encoder


def _onnxruntime_version() -> str:
    """Returns the version of the one onnxruntime package; two overwrite each other's files and then run on CPU only."""
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(found) != 1:
        raise Unready(
            f"Expected one of the packages onnxruntime and onnxruntime-gpu, got {' and '.join(found) or 'none'}",
            reason="RUNTIME_PACKAGES",
        )
    return version(found[0])


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _open_session(card: Card, threads: int) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime

        onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
        session = onnxruntime.InferenceSession(str(card.onnx_path), _options(threads), providers=[_PROVIDER])
    except Exception as error:  # its error types share no base class; or a broken install
        raise Unready(
            f"Expected onnxruntime to load {card.name}, got: {_brief(error)}", reason="ONNX_INVALID"
        ) from error
    _check_session(session, card)
    return session


def _brief(error: Exception) -> str:
    """Returns the start of what onnxruntime says, which can be pages of node names."""
    return str(error)[:300]


def _options(threads: int) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads sleep
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _check_session(session: onnxruntime.InferenceSession, card: Card) -> None:
    """Refuses a provider that was not asked for, and inputs and outputs that the card does not describe."""
    if session.get_providers() != [_PROVIDER]:
        raise Unready(f"Expected {_PROVIDER}, got {session.get_providers()}", reason="RUNTIME_PROVIDER")
    size = card.recipe.size_px
    ends = [(end.name, end.type, list(end.shape[1:])) for end in (*session.get_inputs(), *session.get_outputs())]
    expected = [(_INPUT, "tensor(float)", [3, size, size]), (_OUTPUT, "tensor(float)", [card.dimension])]
    if ends != expected:
        raise Unready(f"Expected a network from and to {expected}, got {ends}", reason="ONNX_INVALID")
