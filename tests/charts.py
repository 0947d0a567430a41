"""The chart as helm's own engine renders it, and Kubernetes' schemas."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate import utils  # type: ignore[import-untyped,import-not-found,unused-ignore]
from referencing import Registry, Resource

CHART = Path(__file__).parents[1] / "helm" / "nearcase"
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
SHAPES = ("embedded", "qdrant", "gpu")
VERSIONS = tuple(dict.fromkeys(utils.all_versions()))[-3:]

SUBCHART = {
    "Chart.yaml": "apiVersion: v2\nname: qdrant\nversion: 1.19.0\nappVersion: v1.19.0\nicon: https://qdrant.tech/logo.svg\n",
    # Some defaults of the real one, which reach our schema with the values that a user gives.
    "values.yaml": "replicaCount: 1\nimage: {tag: ''}\nservice: {type: ClusterIP}\nenv: {}\nargs: []\n",
    "templates/configmap.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-qdrant\n"
    "data:\n  nodes: {{ .Values.replicaCount | quote }}\n",
}
"""Stands in for Qdrant's own chart, which is not in this repository."""

# What the Prometheus operator's definitions ask of the two kinds, as far as we use them; its own schemas are not in
# kubernetes-validate.
_RULE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["expr"],
    "properties": {
        **{name: {"type": "string"} for name in ("alert", "record", "for", "keep_firing_for")},
        "expr": {"type": ["string", "integer"]},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
OPERATOR_SPECS: dict[str, dict[str, Any]] = {
    "ServiceMonitor": {
        "type": "object",
        "additionalProperties": False,
        "required": ["endpoints", "selector"],
        "properties": {
            "selector": {"type": "object", "additionalProperties": False, "properties": {"matchLabels": {}}},
            "endpoints": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"port": {"type": "string"}, "interval": {"type": "string"}},
                },
            },
        },
    },
    "PrometheusRule": {
        "type": "object",
        "additionalProperties": False,
        "required": ["groups"],
        "properties": {
            "groups": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name", "rules"],
                    "properties": {
                        "name": {"type": "string"},
                        "interval": {"type": "string"},
                        "rules": {"type": "array", "minItems": 1, "items": _RULE},
                    },
                },
            }
        },
    },
}


def whole_chart(folder: Path) -> Path:
    """A copy of the chart, with something in the place of Qdrant's."""
    chart = folder / "nearcase"
    shutil.copytree(CHART, chart)
    for name, text in SUBCHART.items():
        file = chart / "charts" / "qdrant" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return chart


def values_of(shape: str) -> dict[str, Any]:
    return helm_python.values_from_yaml((CHART / f"values-{shape}.yaml").read_text())


def rendered(chart: helm_python.Chart, values: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """All objects, NOTES left out."""
    options = {"name": "release", "namespace": "imaging"} | options
    texts = chart.render(values, **options)
    return [each for name, text in texts.items() if not name.endswith(".txt") for each in loaded(text)]


class OnceLoader(yaml.CSafeLoader):
    """Refuses a key that stands twice, as Kubernetes does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        assert len(found) == len(node.value), f"a key stands twice: {node.start_mark}"
        return found


def loaded(text: str) -> Iterator[dict[str, Any]]:
    yield from (each for each in yaml.load_all(text, Loader=OnceLoader) if each)


def changed(values: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    """A copy of the values with one of them replaced."""
    copy: dict[str, Any] = json.loads(json.dumps(values))
    into = copy
    for key in path[:-1]:
        into = into.setdefault(key, {})
    into[path[-1]] = value
    return copy


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """As helm lays files of values over each other: maps key by key, anything else whole."""
    both = {
        name: laid_over(below[name], value)
        for name, value in above.items()
        if isinstance(value, dict) and isinstance(below.get(name), dict)
    }
    return below | above | both


def objects_in(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every value of the schema with its path; `[]` stands for an item of a list, `*` for a name in a map."""
    yield path, schema
    for name, below in schema.get("properties", {}).items():
        yield from objects_in(below, (*path, name))
    for below in schema.get("patternProperties", {}).values():
        yield from objects_in(below, (*path, "*"))
    if "items" in schema:
        yield from objects_in(schema["items"], (*path, "[]"))


@functools.cache
def _definitions(version: str) -> Registry[Any]:
    text = utils.schema_contents(f"kubernetes-json-schema/v{version}-local-strict/_definitions.json", version)
    return Resource.from_contents(text) @ Registry()


@functools.cache
def _validator(version: str, kind: str, api: str) -> Draft202012Validator:
    group, _, number = api.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.split(".")[0], number) if part)
    schema = utils.schema_contents(f"kubernetes-json-schema/v{version}-local-strict/{name}.json", version)
    return Draft202012Validator(schema, registry=_definitions(version))


def complaints(found: dict[str, Any], version: str) -> list[str]:
    """What the strict schema of a Kubernetes version says against an object."""
    kind = found["kind"]
    if found["apiVersion"] == "monitoring.coreos.com/v1":
        errors = Draft202012Validator(OPERATOR_SPECS[kind]).iter_errors(found["spec"])
    else:
        errors = _validator(version, kind, found["apiVersion"]).iter_errors(found)
    return [f"{kind} {'.'.join(map(str, error.path))}: {error.message[:200]}" for error in errors]


def pods_in(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The pod specs of an object."""
    match found["kind"]:
        case "Pod":
            yield found["spec"]
        case "StatefulSet" | "Job":
            yield found["spec"]["template"]["spec"]
        case "CronJob":
            yield found["spec"]["jobTemplate"]["spec"]["template"]["spec"]


TENANTS = [{"name": "north", "token": {"secret": "north", "key": "token"}}, {"name": "south"}]
EVERYTHING = {
    "metrics": {
        "enabled": True,
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
    "backup": {"enabled": True, "claim": "nearcase-backup", "beforeUpgrade": True, "tenants": TENANTS},
    "callers": {
        "bytesInFlight": 2**31,
        "tls": {"secret": "nearcase-tls", "clientCa": {"secret": "nearcase-clients", "key": "ca.crt"}},
        "tokens": {"issuer": "https://identity.example", "keysUrl": "https://identity.example/keys", "audience": "a"},
        "certificates": [{"identity": "dns:gateway.example", "roles": ["search", "add"], "tenant": "north"}],
    },
    "client": {
        "ca": {"secret": "nearcase-tls", "key": "ca.crt"},
        "token": {"secret": "backup", "key": "token"},
        "certificate": {"secret": "backup-tls"},
    },
    "encoder": {"claim": "encoders", "folder": "medimageinsight/1"},
    "findings": {"configMap": "findings"},
    "image": {"pullSecrets": ["registry"], "digest": "sha256:" + "a" * 64},
    "podAnnotations": {"team": "imaging"},
    "priorityClassName": "clinical",
}
"""Every part that is off in the shapes."""


def of_shape(shape: str, more: bool) -> dict[str, Any]:
    values = values_of(shape)
    if not more:
        return values
    secrets = {name: {"secret": "secrets", "key": name} for name in SCHEMA["properties"]["secrets"]["properties"]}
    if shape != "qdrant":
        secrets = {name: from_ for name, from_ in secrets.items() if not name.startswith("qdrant")}
    for key, value in {**EVERYTHING, "secrets": secrets}.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    values["settings"] |= {"audit_syslog": "collector.imaging:6514", "tenants": "caller"}
    if shape == "gpu":
        values["settings"]["runtime"], values["gpu"]["buildEngine"] = "tensorrt", True
    return values


def named(found: list[dict[str, Any]], kind: str, ending: str = "") -> dict[str, Any]:
    (one,) = [each for each in found if each["kind"] == kind and each["metadata"]["name"].endswith(ending)]
    return one


def file_of(found: list[dict[str, Any]]) -> str:
    text = named(found, "ConfigMap", "release-nearcase")["data"]["nearcase.toml"]
    assert isinstance(text, str)
    return text
