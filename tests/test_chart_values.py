"""What the chart takes: every value described, what is misspelt or can not work refused."""

from __future__ import annotations

import dataclasses
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nearcase import __version__
from nearcase.settings import Settings

helm_python = pytest.importorskip("helm_python", reason="helm-python-sdk renders the chart: pip install nearcase[dev]")
pytest.importorskip("kubernetes_validate", reason="kubernetes-validate holds the schemas: pip install nearcase[dev]")

from charts import (  # noqa: E402  (after the skips)
    CHART,
    SCHEMA,
    SHAPES,
    VERSIONS,
    changed,
    complaints,
    file_of,
    laid_over,
    objects_in,
    of_shape,
    rendered,
    values_of,
    whole_chart,
)

PROJECT = CHART.parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_chart(tmp_path_factory.mktemp("chart"))


@pytest.fixture(scope="module")
def chart(folder: Path) -> Iterator[Any]:
    with helm_python.Chart.load(folder) as chart:
        yield chart


@pytest.mark.parametrize(
    ("shape", "path", "value", "told"),
    [
        ("embedded", "callers.tokens", {}, "nobody is named"),
        ("embedded", "callers.tls.secret", "", "readable on their way"),
        ("embedded", "callers.tokens.keys.secret", "keys", "not both"),
        ("embedded", "callers.tokens.issuer", "", "nobody is named"),
        ("embedded", "callers.certificates", [{"identity": "cn:a", "roles": ["search"]}], "clientCa"),
        ("embedded", "backup", {"enabled": True, "claim": "backup"}, "client.ca"),
        ("embedded", "gateway.enabled", True, "no PACS gateway"),
        ("embedded", "replicas", 2, "one server"),
        ("embedded", "autoscaling.enabled", True, "one server"),
        ("embedded", "qdrantUrl", "https://qdrant.example:6334", "tier is embedded"),
        ("embedded", "settings.runtime", "cuda", "needs a GPU"),
        ("embedded", "gpu.buildEngine", True, "tensorrt"),
        ("embedded", "metrics.serviceMonitor.enabled", True, "metrics.enabled"),
        ("embedded", "backup.beforeUpgrade", True, "backup.enabled"),
        ("qdrant", "qdrantUrl", "https://qdrant.example:6334", "not both"),
        ("qdrant", "qdrant.enabled", False, "needs the address"),
        ("qdrant", "qdrant.config.service.enable_tls", False, "readable on its way"),
        ("qdrant", "autoscaling.minReplicas", 9, "at most maxReplicas"),
        ("qdrant", "metrics.enabled", False, "nearcase_encoder_queue"),
    ],
)
def test_what_can_not_work_is_refused_in_a_sentence(
    chart: Any, shape: str, path: str, value: object, told: str
) -> None:
    with pytest.raises(helm_python.HelmError, match=told):
        rendered(chart, changed(values_of(shape), tuple(path.split(".")), value))


def test_what_the_chart_says_by_itself_lets_nobody_in(chart: Any) -> None:
    with pytest.raises(helm_python.HelmError, match="nobody is named who may call"):
        rendered(chart, {})
    assert "insecure = true" in file_of(rendered(chart, {"settings": {"insecure": True}}))


def yaml_blocks() -> list[tuple[str, str]]:
    files = sorted([PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md")])
    return [
        (file.name, text) for file in files for text in re.findall(r"```yaml\n(.*?)```", file.read_text(), re.DOTALL)
    ]


PROMETHEUS_ADAPTER = {"rules"}
"""Top of the one block that is not for this chart."""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("file", "text"), yaml_blocks(), ids=lambda word: word.split("\n")[0][:40])
def test_every_block_of_values_in_the_docs_renders(chart: Any, shape: str, file: str, text: str) -> None:
    """Over the shape alone, as a second file of values is laid over the first."""
    values = helm_python.values_from_yaml(text)
    if set(values) == PROMETHEUS_ADAPTER:
        return
    found = rendered(chart, laid_over(values_of(shape), values), is_upgrade=True)
    assert not [line for each in found for line in complaints(each, VERSIONS[-1])]


def test_the_docs_have_blocks_of_values() -> None:
    assert [file for file, _ in yaml_blocks()].count("deploy.md") >= 4


def test_a_backup_needs_a_claim(chart: Any) -> None:
    with pytest.raises(helm_python.HelmError, match="claim"):
        rendered(chart, changed(values_of("embedded"), ("backup", "enabled"), True))


def test_every_value_is_described_and_every_object_closed() -> None:
    for path, schema in objects_in(SCHEMA):
        assert not path or schema.get("description", "").endswith((".", "...")), path
        if schema.get("type") == "object" and path != ("qdrant",):  # that one is Qdrant's own
            assert schema["additionalProperties"] is False, path
        if schema.get("type") == "string" and "enum" not in schema:
            assert "pattern" in schema, path
            assert schema["maxLength"] <= 4096, path


def test_settings_in_the_schema_are_those_of_the_server() -> None:
    command = [sys.executable, str(PROJECT / "helm" / "schema.py"), "--check"]
    told = "run: .venv/bin/python helm/schema.py"
    assert subprocess.run(command, check=False, timeout=60).returncode == 0, told


def test_every_setting_is_given_by_exactly_one_value(chart: Any) -> None:
    script = runpy.run_path(str(PROJECT / "helm" / "schema.py"))
    by_the_chart, in_the_volume = script["BY_THE_CHART"], script["in_the_volume"]()
    in_schema = {name for part in ("settings", "secrets") for name in SCHEMA["properties"][part]["properties"]}
    everything = [file_of(rendered(chart, of_shape(shape, True))) for shape in SHAPES]
    given = {name for text in everything for name in tomllib.loads(text)} - in_schema
    known = {field.name for field in dataclasses.fields(Settings)}
    assert given == by_the_chart & known
    assert in_schema | by_the_chart | in_the_volume >= known
    assert not in_schema & by_the_chart


@pytest.mark.parametrize("shape", SHAPES)
def test_a_misspelt_value_is_refused_wherever_it_stands(chart: Any, shape: str) -> None:
    values = of_shape(shape, True)
    closed = [path for path, each in objects_in(SCHEMA) if each.get("type") == "object" and path != ("qdrant",)]
    closed = [path for path in closed if not {"[]", "*"} & set(path) and "labels" not in path[-1:]]
    assert len(closed) > 30
    accepted = []
    for path in closed:
        try:
            chart.validate_schema(chart.merge_values(changed(values, (*path, "replicaCuont!"), 1)))
        except helm_python.HelmError:
            continue
        accepted.append(path)
    assert accepted == []


def test_version_of_the_chart_is_that_of_the_package(chart: Any) -> None:
    assert chart.metadata["version"] == chart.metadata["appVersion"] == __version__
