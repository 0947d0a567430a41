"""Opening a network with onnxruntime: one provider, checked, and nothing silent.

onnxruntime falls back to the CPU without an error when CUDA's libraries are absent, although it lists the CUDA
provider; here the fallback is switched off, and what runs is compared with what was asked for.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from nearcase.errors import Unready

if TYPE_CHECKING:
    import onnxruntime

    from nearcase.encode.card import Card

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
INPUT, OUTPUT = "image", "embedding"
_ERRORS_ONLY = 3  # onnxruntime's severity: warnings of graph optimisation are not for an operator

Options = dict[str, str]


def open_session(card: Card, provider: str, options: Options, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """Returns the card's network on one provider.

    Args:
        card: The encoder's.
        provider: CPU or CUDA.
        options: The provider's own.
        threads: Cores that one call may use.

    Raises:
        Unready: onnxruntime is absent, doubly installed or refuses the file, or the provider can not be had.
    """
    onnxruntime_version()
    try:
        import onnxruntime

        onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
        if provider == CUDA:
            onnxruntime.preload_dlls(directory="")  # CUDA and cuDNN come as packages beside it
        session = onnxruntime.InferenceSession(
            str(card.onnx_path), session_options(threads, provider), providers=[(provider, options)]
        )
    except Exception as error:  # its error types share no base class; or a broken install
        reason = "GPU_ABSENT" if provider == CUDA else "ONNX_INVALID"
        raise Unready(f"Expected {provider} to load {card.name}, got: {brief(error)}", reason=reason) from error
    _check_provider(session, provider)
    _check_ends(session, card)
    return session


def onnxruntime_version() -> str:
    """Returns the version of the one onnxruntime package; two overwrite each other's files and then run on CPU only.

    Raises:
        Unready: There is none, or both.
    """
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)]
    if len(found) != 1:
        raise Unready(
            f"Expected one of the packages onnxruntime and onnxruntime-gpu, got {' and '.join(found) or 'none'}",
            reason="RUNTIME_PACKAGES",
        )
    return version(found[0])


def brief(error: Exception) -> str:
    """Returns the start of what onnxruntime says, which can be pages of node names."""
    return " ".join(str(error).split())[:300]


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def session_options(threads: int, provider: str) -> onnxruntime.SessionOptions:
    """Returns the options that every network here runs under."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads sleep
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _check_provider(session: onnxruntime.InferenceSession, provider: str) -> None:
    """The first provider has the network; onnxruntime adds the CPU behind every other by itself."""
    found = session.get_providers()
    if found[:1] != [provider]:
        raise Unready(f"Expected {provider}, got {', '.join(found)}", reason="RUNTIME_PROVIDER")


def _check_ends(session: onnxruntime.InferenceSession, card: Card) -> None:
    """Refuses inputs and outputs that the card does not describe."""
    ends = [(end.name, end.type, list(end.shape[1:])) for end in (*session.get_inputs(), *session.get_outputs())]
    expected = [(INPUT, "tensor(float)", list(card.recipe.input_shape)), (OUTPUT, "tensor(float)", [card.dimension])]
    if ends != expected:
        raise Unready(f"Expected a network from and to {expected}, got {ends}", reason="ONNX_INVALID")
