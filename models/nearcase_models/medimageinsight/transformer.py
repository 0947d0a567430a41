"""The text tower: a CLIP-like transformer whose words all see each other.

Differences from CLIP that move embeddings: no causal mask, padding masked by the tokenizer's attention mask, and
LayerNorm with eps 1e-12.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from nearcase_models.medimageinsight.shape import TextShape

EPS = 1e-12
MLP_RATIO = 4


class TextTransformer(nn.Module):
    """Token ids and their mask (N, L), L <= context -> features (N, width) of the end token."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.positional_embedding = nn.Parameter(torch.empty(shape.context, shape.width))
        self.resblocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.layers))
        self.ln_final = nn.LayerNorm(shape.width, eps=EPS)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Returns the state at the first end token, which has the greatest id.

        Texts may be padded to any common length: what the mask leaves out is not seen.
        """
        states = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        is_hidden = (mask == 0)[:, None, None, :]
        for block in self.resblocks:
            states = block(states, is_hidden)
        end = ids.argmax(dim=1)[:, None, None].expand(-1, 1, states.shape[2])
        pooled: Tensor = self.ln_final(states).gather(1, end)[:, 0]
        return pooled


class Block(nn.Module):
    """Attention, then an MLP; each is added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width, eps=EPS)
        layers = [
            ("c_fc", nn.Linear(width, MLP_RATIO * width)),
            ("gelu", QuickGelu()),
            ("c_proj", nn.Linear(MLP_RATIO * width, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = nn.LayerNorm(width, eps=EPS)

    def forward(self, states: Tensor, is_hidden: Tensor) -> Tensor:
        """Returns states of the same size."""
        states = states + self.attn(self.ln_1(states), is_hidden)
        mixed: Tensor = states + self.mlp(self.ln_2(states))
        return mixed


class QuickGelu(nn.Module):
    """x * sigmoid(1.702 x), which the tower was trained with instead of the exact GELU."""

    def forward(self, states: Tensor) -> Tensor:
        """Returns values of the same size."""
        return states * torch.sigmoid(1.702 * states)


class Attention(nn.Module):
    """Multi-head attention with the parameter names of torch.nn.MultiheadAttention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, states: Tensor, is_hidden: Tensor) -> Tensor:
        """Returns states of the same size; no word sees one that is hidden."""
        words, width = states.shape[1:]
        qkv = nn.functional.linear(states, self.in_proj_weight, self.in_proj_bias)
        parts = qkv.reshape(-1, words, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        scores = query * (width // self.heads) ** -0.5 @ key.transpose(2, 3)
        weights = scores.masked_fill(is_hidden, float("-inf")).softmax(dim=3)
        mixed: Tensor = self.out_proj((weights @ value).transpose(1, 2).reshape(-1, words, width))
        return mixed
