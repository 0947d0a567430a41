"""Settings: file, then environment, then options; nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearcase.errors import InvalidInput
from nearcase.settings import Settings
from nearcase.settings_file import read_settings


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "nearcase.toml"
    file.write_text('data = "from-file"\ndecode_workers = 3\nreflection = true\ndrain_s = 2\n')
    environment = {"NEARCASE_DECODE_WORKERS": "5", "NEARCASE_SERVER": "for the commands", "HOME": "/x"}
    read = read_settings(file, environment, data=Path("from-option"), listen=None)
    assert (read.data, read.decode_workers, read.reflection, read.drain_s) == (Path("from-option"), 5, True, 2.0)
    assert read.listen == Settings().listen


def test_the_default_listens_on_this_machine_only() -> None:
    assert read_settings(None, {}) == Settings()
    assert Settings().listen.startswith("127.0.0.1:")
    assert not Settings().reflection


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("colour = 1", "colour"),
        ("decode_workers = true", "decode_workers"),
        ("decode_workers = 1.5", "decode_workers"),
        ('decode_workers = "many"', "decode_workers"),
        ("decode_wall_s = -1", "decode_wall_s"),
        ("decode_wall_s = nan", "decode_wall_s"),
        ("max_waiting = 0", "max_waiting"),
        ("reflection = 3", "reflection"),
        ("data = 3", "data"),
        ('listen = "somewhere"', "listen"),
        ("data = ", "nearcase.toml"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_fault(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "nearcase.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_settings(file, {})
    assert fault in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"deidentify": True}, "pseudonym_key"),
        ({"pseudonym_key": Path("key")}, "pseudonym_key is given"),
        ({"burned_in": "mask"}, "burned_in is given"),
        ({"trust_plain_images": True}, "trust_plain_images is given"),
        ({"deidentify": True, "pseudonym_key": Path("key"), "burned_in": "blur"}, "'blur'"),
    ],
)
def test_half_a_deidentification_is_refused(given: dict[str, object], fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        read_settings(None, {}, **given)


def test_deidentification_by_variables() -> None:
    environment = {"NEARCASE_DEIDENTIFY": "true", "NEARCASE_PSEUDONYM_KEY": "a/key", "NEARCASE_BURNED_IN": "mask"}
    read = read_settings(None, environment)
    assert (read.deidentify, read.pseudonym_key, read.burned_in) == (True, Path("a/key"), "mask")


def test_an_unknown_variable_is_refused() -> None:
    with pytest.raises(InvalidInput, match="decode_worker"):
        read_settings(None, {"NEARCASE_DECODE_WORKER": "2"})


def test_a_cluster_is_cut_and_copied_as_it_should_be() -> None:
    one = read_settings(None, {}, index="qdrant")
    assert (one.qdrant_shard_count, one.qdrant_write_consistency_count) == (1, 1)
    two = read_settings(None, {}, index="qdrant", qdrant_replicas=2)
    assert (two.qdrant_shard_count, two.qdrant_write_consistency_count) == (12, 2)
    three = read_settings(None, {}, index="qdrant", qdrant_replicas=3, qdrant_shards=6, qdrant_write_consistency=1)
    assert (three.qdrant_shard_count, three.qdrant_write_consistency_count) == (6, 1)


KEY = Path("key")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"index": "memory"}, "'memory', expected edge or qdrant"),
        ({"qdrant_replicas": 2}, "qdrant_replicas is given"),
        ({"index": "edge", "qdrant_url": "https://qdrant:6334"}, "qdrant_url is given"),
        ({"index": "qdrant", "qdrant_quantization": "int4"}, "none, int8, 4bit"),
        ({"index": "qdrant", "qdrant_collection": "a/b"}, "qdrant_collection"),
        ({"index": "qdrant", "qdrant_replicas": 2, "qdrant_write_consistency": 3}, "at most qdrant_replicas"),
        ({"index": "qdrant", "qdrant_url": "qdrant:6334"}, "qdrant_url"),
        ({"index": "qdrant", "qdrant_url": "grpc://qdrant:6334"}, "qdrant_url"),
        ({"index": "qdrant", "qdrant_url": "http://qdrant:66666"}, "qdrant_url"),
        ({"index": "qdrant", "qdrant_url": "http://qdrant:6334/collections"}, "qdrant_url"),
        ({"index": "qdrant", "qdrant_url": "http://qdrant:6334", "qdrant_api_key": KEY}, "expected https"),
        ({"index": "qdrant", "qdrant_url": "http://qdrant:6334", "qdrant_ca": KEY}, "expected https"),
        ({"index": "qdrant", "qdrant_timeout_s": 0.0}, "qdrant_timeout_s"),
    ],
)
def test_half_a_qdrant_is_refused(given: dict[str, object], fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault) as refused:
        read_settings(None, {}, **given)
    assert "\n" not in str(refused.value)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidInput) as refused:
        read_settings(None, {}, index="qdrant", qdrant_url="https://user:secret@qdrant:6334")
    assert "secret" not in str(refused.value)
