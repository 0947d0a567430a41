"""CLIP's tokenizer, as one file that the `tokenizers` library reads: lower case, byte pair encoding, begin and end.

The vocabulary follows from the merges, which lie beside this module (NOTICE): all bytes, all bytes that end a word, one
entry for each merge, and the two marks. It is part of the published model; a fine-tuned one has the same.
"""

from __future__ import annotations

import gzip
from importlib.resources import files

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""What counts as one word before it is taken apart: English endings, letters, one digit, anything else."""


def clip_tokenizer(context: int) -> Tokenizer:
    """Returns the tokenizer; texts come as begin, words, end, cut to the context with the end kept.

    The steps are those of CLIP's tokenizer in the transformers library (its fast form).
    """
    merges = _merges()
    tokenizer = Tokenizer(
        models.BPE(
            vocab=_vocabulary(merges),
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix=_WORD_END,
            unk_token=END,
        )
    )
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in (BEGIN, END)])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in (BEGIN, END)]
    )
    tokenizer.enable_truncation(context)
    return tokenizer


def _merges() -> list[tuple[str, str]]:
    packed = files("nearcase_models.medimageinsight").joinpath("merges.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").splitlines()
    return [(first, second) for first, second in (line.split(" ") for line in lines[1:])]


def _vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    letters = _byte_letters()
    words = [*letters, *(letter + _WORD_END for letter in letters), *(first + second for first, second in merges)]
    return {word: number for number, word in enumerate([*words, BEGIN, END])}


def _byte_letters() -> list[str]:
    """One printable character for each byte: its own where it has one, else the next after the 256th."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return [chr(byte) for byte in own] + [chr(256 + number) for number in range(len(others))]
