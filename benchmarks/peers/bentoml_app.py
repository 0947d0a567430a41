"""BentoML; started as `bentoml serve peers.bentoml_app:Embed` with as many workers as cores."""

from __future__ import annotations

import os
from pathlib import Path

import bentoml

from peers import reading


@bentoml.service(workers=int(os.environ.get("PEER_WORKERS", "2")), traffic={"timeout": 30})
class Embed:
    """A file in, an embedding out."""

    def __init__(self) -> None:
        self.recipe, self.session = reading.recipe(), reading.session()

    @bentoml.api
    def predict(self, image: Path) -> list[float]:
        """Returns the embedding of a DICOM file."""
        batch = reading.read(image.read_bytes(), self.recipe)
        values: list[float] = self.session.run(None, {"image": batch})[0][0].tolist()
        return values
