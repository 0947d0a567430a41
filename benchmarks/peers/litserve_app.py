"""LitServe with one worker process for each core; started as `python litserve_app.py PORT WORKERS`.

LitServe looks at the annotations themselves, so that they are not postponed here.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import litserve
from fastapi import Request

from peers import reading


class Embed(litserve.LitAPI):
    """A multipart file in, an embedding out."""

    def setup(self, device: str) -> None:
        """Runs once in each worker."""
        self.recipe, self.session = reading.recipe(), reading.session()

    def decode_request(self, request: Request) -> Any:
        """From the form to the network's input."""
        return reading.read(request["image"].file.read(), self.recipe)

    def predict(self, x: Any) -> Any:
        """Runs the network."""
        return self.session.run(None, {"image": x})[0]

    def encode_response(self, output: Any) -> Any:
        """From the network's output to JSON."""
        return {"embedding": output[0].tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Embed(), accelerator="cpu", workers_per_device=int(sys.argv[2]), timeout=30)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
