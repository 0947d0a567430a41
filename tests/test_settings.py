"""Settings: file, then environment, then options; nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearcase.errors import InvalidInput
from nearcase.settings import Settings, read_settings


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
