"""What Microsoft printed of the published weights, to tell them from others.

The one vector that needs no image: the text embedding in the notebook mi2-deploy.ipynb of Microsoft's
healthcareai-examples (29 November 2024), from the model in Azure's registry.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import torch
from tokenizers import Tokenizer

from nearcase_models.medimageinsight.model import TextEncoder

TEXT = "x-ray chest anteroposterior Pneumonia"
LIMIT = 0.9999
"""Least cosine that counts as the published weights; rounded to fp16 they stay above it, to bf16 they do not."""


def published_cosine(text: TextEncoder, tokenizer: Tokenizer) -> float:
    """Returns the cosine between the printed embedding and the one that these weights give."""
    with as_file(files("nearcase_models.medimageinsight").joinpath("published_text.npy")) as path:
        printed = np.load(path, allow_pickle=False).astype(np.float64)
    ids = torch.tensor([tokenizer.encode(TEXT).ids])
    with torch.inference_mode():
        found = text(ids, torch.ones_like(ids))[0].numpy().astype(np.float64)
    return float(printed @ found / np.linalg.norm(printed) / np.linalg.norm(found))
