"""The text tower: its tokens are CLIP's, its laws, its golden test, and what is refused."""

from __future__ import annotations

import gc
import json
import shutil
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nearcase.encode.base import TextEncoder
from nearcase.encode.card import read_card
from nearcase.encode.golden_text import read_golden_text, verify_golden_text
from nearcase.encode.text import MAX_CHARACTERS, OnnxText, open_text
from nearcase.errors import InvalidInput, Unready, Unsupported

TOKENS = json.loads((Path(__file__).parent / "data" / "clip_tokens.json").read_text("utf-8"))["texts"]
"""Texts with the ids that the slow and the fast CLIP tokenizer of transformers 4.57.3 both give them."""


@pytest.fixture(scope="module")
def encoder(words_encoder_folder: Path) -> OnnxText:
    return open_text(read_card(words_encoder_folder))


@pytest.fixture
def copy(words_encoder_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(words_encoder_folder, tmp_path / "copy"))


@pytest.mark.parametrize("known", TOKENS, ids=lambda known: known["text"][:20])
def test_tokens_are_those_of_clip(encoder: OnnxText, known: dict[str, object]) -> None:
    assert list(encoder.tokens(str(known["text"]))) == known["ids"]


def test_the_known_texts_are_long_empty_and_upper_case() -> None:
    lengths = [len(known["ids"]) for known in TOKENS]
    assert (min(lengths), max(lengths)) == (2, 77)
    assert any(known["text"].isupper() for known in TOKENS)


def test_a_text_embeds_the_same_alone_and_among_others(encoder: TextEncoder, words_encoder_folder: Path) -> None:
    texts = [known["text"] for known in TOKENS]
    together = OnnxText(read_card(words_encoder_folder)).embed_texts(texts)
    alone = np.concatenate([encoder.embed_texts([text]) for text in reversed(texts)])[::-1]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_capitals_and_spaces_make_no_difference(encoder: TextEncoder) -> None:
    one, other, another = encoder.embed_texts(["x-ray  chest", "X-RAY\nChest ", "x-ray hand"])
    np.testing.assert_array_equal(one, other)
    assert one @ another < 0.9999


def test_what_follows_the_context_is_cut_off(encoder: TextEncoder) -> None:
    long, longer = encoder.embed_texts(["ct " * 75, "ct " * 75 + "mr"])
    np.testing.assert_array_equal(long, longer)
    assert encoder.embed_texts(["ct " * 74])[0] @ long < 0.999999


def test_no_texts_give_no_embeddings(encoder: TextEncoder) -> None:
    assert encoder.embed_texts([]).shape == (0, 1024)


def test_many_threads_get_their_own_answers(encoder: TextEncoder) -> None:
    texts = [f"ct of the abdomen, {number} mm" for number in range(12)]
    expected = encoder.embed_texts(texts)
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda number: encoder.embed_texts([texts[number % 12]])[0], range(60)))
    np.testing.assert_array_equal(np.stack(found), expected[np.arange(60) % 12])


def test_a_remembered_embedding_can_not_be_changed_by_who_asked(encoder: TextEncoder) -> None:
    first = encoder.embed_texts(["mr of the knee"])
    first[:] = 0
    assert np.linalg.norm(encoder.embed_texts(["mr of the knee"])) == pytest.approx(1.0, abs=1e-5)


def test_a_tower_that_nobody_uses_is_freed_at_once(words_encoder_folder: Path) -> None:
    """A gigabyte must not wait for the garbage collector."""
    encoder = OnnxText(read_card(words_encoder_folder))
    encoder.embed_texts(["mr"])
    gone = weakref.ref(encoder)
    gc.disable()
    try:
        del encoder
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("text", ["x" * MAX_CHARACTERS, "\U0001f600" * 5_000, "\x00\x01\ufeff", "\u202ereversed"])
def test_odd_texts_embed(encoder: TextEncoder, text: str) -> None:
    assert encoder.embed_texts([text]).shape == (1, 1024)


def test_a_text_without_end_is_refused_by_its_length(encoder: TextEncoder) -> None:
    with pytest.raises(InvalidInput, match="20001"):
        encoder.embed_texts(["x" * (MAX_CHARACTERS + 1)])


def test_half_a_character_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(InvalidInput, match="Unicode"):
        encoder.embed_texts(["caf\udce9"])


def test_an_encoder_of_images_alone_has_no_text_tower(encoder_folder: Path) -> None:
    with pytest.raises(Unsupported, match="no text tower"):
        open_text(read_card(encoder_folder))


def test_the_golden_embeddings_reproduce(encoder: OnnxText, words_encoder_folder: Path) -> None:
    card = read_card(words_encoder_folder)
    golden = read_golden_text(card)
    assert "" in golden.texts
    assert any(text.isupper() for text in golden.texts)
    assert max(map(len, golden.texts)) > 300
    assert verify_golden_text(encoder, card) > 0.999999


def test_a_golden_mismatch_keeps_the_tower_from_opening(copy: Path) -> None:
    golden = read_golden_text(read_card(copy))
    np.savez(copy / "golden_text.npz", texts=np.array(golden.texts), embeddings=np.roll(golden.embeddings, 1, axis=0))
    with pytest.raises(Unready, match=r"cosine >= 0.9999, got -?0\.\d+") as refused:
        open_text(read_card(copy))
    assert refused.value.reason == "GOLDEN_MISMATCH"


@pytest.mark.parametrize("damage", ["bytes", "pickle", "kind", "dimension", "lengths", "none"])
def test_a_damaged_golden_file_is_refused(copy: Path, damage: str) -> None:
    golden = read_golden_text(read_card(copy))
    texts, vectors = np.array(golden.texts), golden.embeddings
    match damage:
        case "bytes":
            (copy / "golden_text.npz").write_bytes(b"golden")
        case "pickle":
            np.savez(copy / "golden_text.npz", allow_pickle=True, texts=np.array([{}], object), embeddings=vectors[:1])
        case "kind":
            np.savez(copy / "golden_text.npz", texts=np.arange(len(texts)), embeddings=vectors)
        case _:
            changed = {"dimension": vectors[:, 1:], "lengths": vectors * 2, "none": vectors[:0]}[damage]
            np.savez(copy / "golden_text.npz", texts=texts[: len(changed)], embeddings=changed)
    with pytest.raises(Unready) as refused:
        open_text(read_card(copy))
    assert refused.value.reason == "GOLDEN_INVALID"


@pytest.mark.parametrize("name", ["text.onnx", "tokenizer.json"])
def test_a_changed_file_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(Unready, match=f"{name} .* with sha256") as refused:
        read_card(copy)
    assert refused.value.reason == "ENCODER_CHANGED"


@pytest.mark.parametrize("name", ["text.onnx", "tokenizer.json", "golden_text.npz"])
def test_a_missing_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(Unready, match=name):
        read_card(copy)


def test_a_tokenizer_that_is_none_is_refused(copy: Path) -> None:
    card = read_card(copy)
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(Unready, match="tokenizer") as refused:
        OnnxText(card)
    assert "\n" not in str(refused.value)


def test_an_absent_package_is_named(words_encoder_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(Unready, match=r"pip install nearcase\[text\]") as refused:
        OnnxText(read_card(words_encoder_folder))
    assert refused.value.reason == "RUNTIME_PACKAGES"
