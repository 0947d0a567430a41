"""Hostile values of the chart are refused, or stay what they are."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

helm_python = pytest.importorskip("helm_python", reason="helm-python-sdk renders the chart: pip install nearcase[dev]")
pytest.importorskip("kubernetes_validate", reason="kubernetes-validate holds the schemas: pip install nearcase[dev]")

from charts import (  # noqa: E402  (after the skips)
    SCHEMA,
    VERSIONS,
    changed,
    complaints,
    file_of,
    objects_in,
    of_shape,
    rendered,
    values_of,
    whole_chart,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_chart(tmp_path_factory.mktemp("chart"))


@pytest.fixture(scope="module")
def chart(folder: Path) -> Iterator[Any]:
    with helm_python.Chart.load(folder) as chart:
        yield chart


HOSTILE = (
    "a\"b'",
    "a: b #c",
    "- &a !!python/object:os.system",
    "{{ .Release.Name }}",
    "$(id)${HOME}",
    "a\nkind: Secret\nb: c",
    'a"\nlisten = "0.0.0.0:1"',
    "a\x00b",
    "a\x7fb",
    "../../etc",
    "true",
    "null",
    "1e3",
    "a" * 70_000,
    "\u2028\U0001f9e0",
)
NUMBERS = (-1, 0, 10**12, 1e308, 2**63, 0.1)


def strings(path: tuple[str, ...], schema: dict[str, Any]) -> bool:
    return schema.get("type") in ("string", ["string", "integer"]) and not {"[]", "*"} & set(path)


def identities(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((each["apiVersion"], each["kind"]) for each in found)


def harmless(chart: Any, values: dict[str, Any], before: list[dict[str, Any]]) -> bool | None:
    """None where the values are refused; else whether the same kinds of objects come out, and what changed is valid."""
    try:
        found = rendered(chart, values)
    except helm_python.HelmError:
        return None
    as_before = identities(found) == identities(before)
    return as_before and not [text for each in found if each not in before for text in complaints(each, VERSIONS[-1])]


def test_hostile_text_is_refused_or_stays_text(chart: Any) -> None:
    values = of_shape("qdrant", True)
    before = rendered(chart, values)
    places = [path for path, schema in objects_in(SCHEMA) if strings(path, schema) and path[0] != "qdrant"]
    assert len(places) > 40
    bad, taken = [], 0
    for at, path in enumerate(places):
        for text in HOSTILE[at % 3 :: 3]:  # every place and every text, and not each with each: a rendering takes 20 ms
            answer = harmless(chart, changed(values, path, text), before)
            taken += answer is True
            bad += [(path, text[:40])] if answer is False else []
    assert bad == []
    assert taken > 20  # the test would be empty if everything was refused


@pytest.mark.parametrize("field", ["podAnnotations", "podLabels", "nodeSelector"])
def test_hostile_names_and_texts_of_maps(chart: Any, field: str) -> None:
    values = of_shape("embedded", True)
    before = rendered(chart, values)
    for text in HOSTILE:
        assert harmless(chart, changed(values, (field,), {"a": text}), before) is not False, text
        assert harmless(chart, changed(values, (field,), {text: "a"}), before) is not False, text


def test_huge_and_negative_numbers_are_refused_or_stay_numbers(chart: Any) -> None:
    values = of_shape("qdrant", True)
    before = rendered(chart, values)
    numeric = [path for path, each in objects_in(SCHEMA) if each.get("type") in ("integer", "number")]
    places = [path for path in numeric if not {"[]", "*"} & set(path) and path[0] != "qdrant"]
    assert len(places) > 20
    assert not [
        (path, n) for path in places for n in NUMBERS if harmless(chart, changed(values, path, n), before) is False
    ]


@pytest.mark.parametrize("text", [text for text in HOSTILE if len(text) < 1000])
def test_hostile_text_in_the_settings_file_is_a_string_or_refused(chart: Any, text: str) -> None:
    given = f"{text}:6514"
    values = changed(values_of("qdrant"), ("settings", "audit_syslog"), given)
    try:
        found = rendered(chart, values)
    except helm_python.HelmError:
        return
    assert tomllib.loads(file_of(found))["audit_syslog"] == given
