"""The Helm chart, rendered by helm's own engine and held against Kubernetes' schemas."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nearcase.cli.check import check

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
    loaded,
    named,
    of_shape,
    pods_in,
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


@pytest.mark.parametrize("more", [False, True], ids=["as it is", "with everything"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_object_is_valid_in_the_three_newest_versions(chart: Any, shape: str, more: bool) -> None:
    found = rendered(chart, of_shape(shape, more), is_upgrade=True)
    assert len({(each["kind"], each["metadata"]["name"]) for each in found}) == len(found) >= 8
    assert len(VERSIONS) == 3
    assert not [text for version in VERSIONS for each in found for text in complaints(each, version)]


@pytest.mark.parametrize("shape", SHAPES)
def test_helm_lint_is_clean(folder: Path, shape: str) -> None:
    report = helm_python.lint(folder, values_of(shape), strict=True)
    assert report["errors"] == []
    assert [told["error"] for told in report["messages"] if told["severity"] > 1] == []


@pytest.mark.parametrize("shape", SHAPES)
def test_every_pod_keeps_the_restricted_standard(chart: Any, shape: str) -> None:
    pods = [pod for each in rendered(chart, of_shape(shape, True), is_upgrade=True) for pod in pods_in(each)]
    assert len(pods) == 5
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= set(container["resources"])
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "projected", "persistentVolumeClaim"}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "setting", "path"),
    [("erasures", "erasures", "/erasures/erasures.jsonl"), ("audit", "audit_folder", "/audit/trail")],
)
def test_ledger_and_trail_may_have_a_volume_of_their_own(
    chart: Any, shape: str, name: str, setting: str, path: str
) -> None:
    values = changed(of_shape(shape, True), (name,), {"enabled": True, "size": "7Gi", "storageClass": "other-disk"})
    found = rendered(chart, values)
    server = named(found, "StatefulSet")["spec"]
    (claim,) = [each["spec"] for each in server["volumeClaimTemplates"] if each["metadata"]["name"] == name]
    assert (claim["storageClassName"], claim["resources"]["requests"]["storage"]) == ("other-disk", "7Gi")
    mounts = {each["name"]: each for each in server["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts[name] == {"name": name, "mountPath": f"/{name}"}
    assert tomllib.loads(file_of(found))[setting] == path
    without = rendered(chart, changed(values, (name, "enabled"), False))
    assert setting not in tomllib.loads(file_of(without))
    server = named(without, "StatefulSet")["spec"]
    assert name not in {each["metadata"]["name"] for each in server["volumeClaimTemplates"]}
    assert name not in {each["name"] for each in server["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert not [text for version in VERSIONS for each in without for text in complaints(each, version)]


def test_secrets_are_named_and_never_held(chart: Any) -> None:
    found = rendered(chart, of_shape("qdrant", True))
    assert "Secret" not in {each["kind"] for each in found}
    server = named(found, "StatefulSet")["spec"]["template"]["spec"]
    (volume,) = [volume for volume in server["volumes"] if volume["name"] == "secrets"]
    paths = {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}
    of_callers = {"tls/tls.crt", "tls/tls.key", "tls/client-ca.crt"}
    assert paths == of_callers | set(SCHEMA["properties"]["secrets"]["properties"])
    assert not [value for pod in [server] for each in pod["containers"] for value in each.get("env", [])]


def test_probes_ask_a_port_that_needs_no_certificate(chart: Any) -> None:
    found = rendered(chart, values_of("embedded"))
    (server,) = named(found, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert server["livenessProbe"]["grpc"] == {"port": 50052}
    assert server["readinessProbe"]["grpc"] == {"port": 50052, "service": "nearcase.v1.SearchService"}
    assert tomllib.loads(file_of(found))["health_listen"] == "0.0.0.0:50052"
    probe = server["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 600


def test_a_pod_has_time_to_drain(chart: Any) -> None:
    values = changed(values_of("embedded"), ("settings", "drain_s"), 90)
    pod = named(rendered(chart, values), "StatefulSet")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 90 + 5 + 20


def test_a_changed_setting_rolls_the_pods(chart: Any) -> None:
    def mark(values: dict[str, Any]) -> str:
        metadata = named(rendered(chart, values), "StatefulSet")["spec"]["template"]["metadata"]
        return str(metadata["annotations"]["checksum/settings"])

    before = values_of("embedded")
    assert mark(before) == mark(values_of("embedded"))
    assert mark(before) != mark(changed(before, ("settings", "max_waiting"), 17))


def test_labels_of_a_user_do_not_take_the_place_of_ours(chart: Any) -> None:
    values = changed(values_of("embedded"), ("podLabels",), {"app.kubernetes.io/name": "other", "team": "imaging"})
    values = changed(values, ("podAnnotations",), {"checksum/settings": "fixed"})
    found = named(rendered(chart, values), "StatefulSet")["spec"]
    labels = found["template"]["metadata"]["labels"]
    assert labels.items() >= found["selector"]["matchLabels"].items()
    assert labels["team"] == "imaging"
    assert found["template"]["metadata"]["annotations"]["checksum/settings"] != "fixed"


def test_nobody_reaches_a_server_who_was_not_named(chart: Any) -> None:
    values = changed(values_of("embedded"), ("networkPolicy", "clients"), [])
    policy = named(rendered(chart, values), "NetworkPolicy", "release-nearcase")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ((own,),) = [rule["from"] for rule in policy["ingress"]]
    assert own["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "client"
    dns = policy["egress"][0]
    assert {port["port"] for port in dns["ports"]} == {53}


def test_where_a_server_may_connect_to_is_named(chart: Any) -> None:
    elsewhere = [{"cidr": "10.1.0.0/16", "ports": [6334]}, {"namespaceLabels": {"team": "identity"}, "ports": [443]}]
    values = changed(values_of("embedded"), ("networkPolicy", "egress"), elsewhere)
    _, *rules = named(rendered(chart, values), "NetworkPolicy", "release-nearcase")["spec"]["egress"]
    assert [rule["ports"][0]["port"] for rule in rules] == [6334, 443]
    assert rules[0]["to"] == [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    for unbounded in (
        {"ports": [443]},
        {"cidr": "10.0.0.0/8", "podLabels": {}, "ports": [443]},
        {"cidr": "10.0.0.0/8"},
    ):
        with pytest.raises(helm_python.HelmError):
            rendered(chart, changed(values, ("networkPolicy", "egress"), [unbounded]))


def test_rules_and_dashboard_are_the_files_of_the_chart(chart: Any) -> None:
    found = rendered(chart, of_shape("embedded", True))
    rules = named(found, "PrometheusRule")["spec"]
    text = (CHART / "files" / "alerts.yaml").read_text()
    ours = 'namespace="imaging",job="release-nearcase-headless"'
    assert text.count('job=~".*nearcase.*"') == 1
    assert rules == next(loaded(text.replace('job=~".*nearcase.*"', ours)))
    shown = named(found, "ConfigMap", "dashboard")["data"]["nearcase.json"]
    assert json.loads(shown) == json.loads((CHART / "files" / "dashboard.json").read_text())
    assert named(found, "ServiceMonitor")["spec"]["endpoints"][0]["port"] == "metrics"


@pytest.mark.parametrize("name", ["nearcase", "imaging-search"])
def test_the_alert_asks_the_job_that_is_scraped(chart: Any, name: str) -> None:
    """The operator's job is the name of the service, which has the labels that the monitor selects."""
    found = rendered(chart, changed(of_shape("embedded", True), ("fullnameOverride",), name))
    wanted = named(found, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    services = [each["metadata"] for each in found if each["kind"] == "Service"]
    (scraped,) = [each["name"] for each in services if each["labels"].items() >= wanted.items()]
    (down,) = [each for each in named(found, "PrometheusRule")["spec"]["groups"][0]["rules"] if "up{" in each["expr"]]
    assert f'up{{namespace="imaging",job="{scraped}"}} == 0 or ' in down["expr"]


def test_jobs_reach_the_first_server_whatever_the_port_of_the_service(chart: Any) -> None:
    """A headless service translates no ports, and the policies name the pod's."""
    found = rendered(chart, changed(of_shape("embedded", True), ("service", "port"), 443), is_upgrade=True, revision=3)
    jobs = [named(found, "CronJob"), named(found, "Job", "-before-3")]
    told = [
        env["value"]
        for job in jobs
        for pod in pods_in(job)
        for env in pod["containers"][0]["env"]
        if env["name"] == "SERVER"
    ]
    assert told == ["release-nearcase-0.release-nearcase-headless.imaging.svc:50051"] * 2
    (server,) = named(found, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert {"name": "grpc", "containerPort": 50051} in server["ports"]
    ports = {each["metadata"]["name"]: each["spec"]["ports"][0]["port"] for each in found if each["kind"] == "Service"}
    assert ports == {"release-nearcase": 443, "release-nearcase-headless": 50051}


def test_a_trail_that_is_turned_off_keeps_its_volume(chart: Any, tmp_path: Path) -> None:
    """Claims of a stateful set can not change in an upgrade."""
    before = named(rendered(chart, values_of("embedded")), "StatefulSet")["spec"]
    found = rendered(chart, changed(values_of("embedded"), ("settings", "audit"), "off"))
    after = named(found, "StatefulSet")["spec"]
    assert after["volumeClaimTemplates"] == before["volumeClaimTemplates"]
    mounts = [each["template"]["spec"]["containers"][0]["volumeMounts"] for each in (before, after)]
    assert mounts[0] == mounts[1]
    told = checked(found, tmp_path)
    assert told.exit_code == 0, told.output


def checked(found: list[dict[str, Any]], folder: Path) -> Result:
    """What `nearcase check --settings` says of the rendered files."""
    for name, text in named(found, "ConfigMap", "release-nearcase")["data"].items():
        (folder / name).write_text(text.replace("/etc/nearcase", str(folder)))
    return CliRunner().invoke(check, ["--settings", str(folder / "nearcase.toml")])


def certificates(**more: str) -> list[dict[str, Any]]:
    return [{"identity": "dns:a", "roles": ["search"], **more}]


FROM = {"secret": "s", "key": "k"}
ANYBODY = {"callers": {"tokens": {"issuer": "", "keysUrl": ""}}}
MUTUAL = {"tls": {"secret": "tls", "clientCa": {"secret": "ca"}}}
LARGEST = 512 * 2**20


@pytest.mark.parametrize(
    ("given", "is_sound"),
    [
        ({"settings": {"tenants": "metadata"}}, False),
        ({"settings": {"tenants": "metadata", "insecure": True}, **ANYBODY}, True),
        ({"settings": {"tenants": "caller", "insecure": True}, **ANYBODY}, False),
        ({"settings": {"tenants": "caller"}}, True),
        ({"callers": {**MUTUAL, "certificates": certificates(tenant="north")}}, False),
        ({"callers": {**MUTUAL, "certificates": certificates()}}, True),
        ({"settings": {"tenants": "caller"}, "callers": {**MUTUAL, "certificates": certificates()}}, False),
        ({"settings": {"tenants": "caller"}, "callers": {**MUTUAL, "certificates": certificates(tenant="a")}}, True),
        ({"callers": {**MUTUAL, "certificates": certificates() * 2}}, False),
        ({"callers": {"bytesInFlight": 1}}, False),
        ({"callers": {"bytesInFlight": LARGEST - 1}}, False),
        ({"callers": {"bytesInFlight": LARGEST}}, True),
        ({"callers": {"bytesInFlight": 2**20}, "settings": {"max_image_bytes": 2**20}}, False),
        ({"callers": {"bytesInFlight": 2**26}, "settings": {"max_image_bytes": 2**20}}, True),
        ({"settings": {"max_bytes_in_flight": LARGEST - 1}}, False),
        ({"settings": {"max_bytes_in_flight": LARGEST}}, True),
        ({"settings": {"max_image_bytes": 2**30 + 1}}, False),
        ({"settings": {"qdrant_timeout_s": 60}}, False),
        ({"secrets": {"qdrant_api_key": FROM}}, False),
        ({"tier": "qdrant", "qdrantUrl": "http://q:6334", "secrets": {"qdrant_ca": FROM}}, False),
        ({"tier": "qdrant", "qdrantUrl": "https://q:6334", "secrets": {"qdrant_ca": FROM}}, True),
        ({"tier": "qdrant", "qdrantUrl": "https://q:6334", "settings": {"qdrant_write_consistency": 2}}, False),
        ({"secrets": {"audit_syslog_ca": FROM}}, False),
        ({"secrets": {"audit_syslog_ca": FROM}, "settings": {"audit_syslog": "c:6514"}}, True),
        ({"secrets": {"audit_syslog_key": FROM}, "settings": {"audit_syslog": "c:6514"}}, False),
        ({"settings": {"audit_syslog": "collector"}}, False),
        ({"settings": {"audit_syslog": "collector:65536"}}, False),
        ({"settings": {"audit_syslog": "collector:65535"}}, True),
        ({"settings": {"audit": "off", "audit_syslog": "c:6514"}}, False),
        ({"settings": {"audit": "off"}, "secrets": {"audit_key": FROM}}, False),
        ({"settings": {"audit": "off"}}, True),
        ({"settings": {"burned_in": "mask"}}, False),
        ({"settings": {"trust_plain_images": True}}, False),
        ({"settings": {"burned_in": "mask"}, "secrets": {"pseudonym_key": FROM}}, True),
        ({"settings": {"otlp_endpoint": "collector:4317"}}, False),
        ({"settings": {"otlp_endpoint": "http://collector:4317"}}, True),
    ],
    ids=lambda word: json.dumps(word)[:60],
)
def test_what_renders_is_taken_by_the_server(chart: Any, tmp_path: Path, given: dict[str, Any], is_sound: bool) -> None:
    """Either the chart refuses it, or the check passes; nothing is rendered that the server then refuses."""
    values = chart.merge_values({"callers": {"tls": {"secret": "tls"}, "tokens": TOKENS}})
    try:
        found = rendered(chart, laid_over(values, given))
    except helm_python.HelmError:
        assert not is_sound
        return
    told = checked(found, tmp_path)
    assert (told.exit_code, is_sound) == (0, True), told.output


TOKENS = {"issuer": "https://identity.example", "keysUrl": "https://identity.example/keys"}


def test_the_autoscaler_reads_a_metric_that_there_is(chart: Any) -> None:
    (metric,) = named(rendered(chart, values_of("qdrant")), "HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert f'"{name}"' in (PROJECT / "server" / "nearcase" / "serve" / "metrics.py").read_text()


@pytest.mark.parametrize(("replicas", "has_budget"), [(1, False), (2, True)])
def test_a_budget_is_made_for_several_servers_alone(chart: Any, replicas: int, has_budget: bool) -> None:
    values = changed(changed(values_of("qdrant"), ("replicas",), replicas), ("autoscaling", "enabled"), False)
    assert ("PodDisruptionBudget" in {each["kind"] for each in rendered(chart, values)}) is has_budget


def test_an_upgrade_waits_for_an_export_and_an_install_does_not(chart: Any) -> None:
    values = of_shape("embedded", True)
    job = named(rendered(chart, values, is_upgrade=True, revision=3), "Job", "-before-3")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
    assert "Job" not in {each["kind"] for each in rendered(chart, values, is_install=True)}


@pytest.mark.parametrize("shape", SHAPES)
def test_before_an_upgrade_the_new_image_reads_the_new_settings(chart: Any, shape: str, tmp_path: Path) -> None:
    for more in (False, True):
        values = changed(of_shape(shape, more), ("settings", "tenants"), "caller" if more else "none")
        found = rendered(chart, values, is_upgrade=True, revision=3)
        job, files = named(found, "Job", "-check-3"), named(found, "ConfigMap", "-check-3")
        hooks = [each["metadata"]["annotations"] for each in (files, job)]
        assert {each["helm.sh/hook"] for each in hooks} == {"pre-upgrade"}
        assert int(hooks[0]["helm.sh/hook-weight"]) < int(hooks[1]["helm.sh/hook-weight"]) < 0  # then the export
        assert files["data"] == named(found, "ConfigMap", "release-nearcase")["data"]
        pod = job["spec"]["template"]["spec"]
        assert {"configMap": {"name": files["metadata"]["name"]}, "name": "settings"} in pod["volumes"]
        for name, text in files["data"].items():
            (tmp_path / name).write_text(text.replace("/etc/nearcase", str(tmp_path)))
        (container,) = pod["containers"]
        words = [word.replace("/etc/nearcase", str(tmp_path)) for word in container["args"]]
        told = CliRunner().invoke(check, words[1:])
        assert told.exit_code == 0, told.output
        with (tmp_path / "callers.toml").open("a") as callers:
            callers.write("\n[sections_of_a_newer_chart]\n")
        assert CliRunner().invoke(check, words[1:]).exit_code == 1
    assert not [each for each in rendered(chart, of_shape(shape, True)) if each["kind"] == "Job"]


def test_the_engine_is_built_where_it_will_run(chart: Any) -> None:
    pod = named(rendered(chart, of_shape("gpu", True)), "StatefulSet")["spec"]["template"]["spec"]
    (engine,) = [each for each in pod["initContainers"] if each["name"] == "engine"]
    assert (
        engine["resources"]["limits"]["nvidia.com/gpu"] == pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    )
    assert engine["command"][:5] == ["nearcase-models", "engine", "build", "--engines", "/data/nearcase/engines"]
    assert engine["command"][5:] == ["--encoder", "/encoder/medimageinsight/1"]
