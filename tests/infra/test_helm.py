"""The Helm chart, rendered by Helm's own engine (from pip, no cluster): what comes out fits
Kubernetes' schemas, the service's settings and the rules that are tested beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python.chart import Chart, lint
from helm_python.errors import HelmError

from service.api.health import router
from service.server import FINISH_SECONDS, LINGER_SECONDS
from service.settings import Settings
from tests.house.tree import ROOT

CHART = ROOT / "infra" / "helm" / "acclimate"
RULES = ROOT / "infra" / "prometheus" / "rules"
KUBERNETES = ("1.29", "1.37")
GIVEN = {"secret": {"name": "acclimate"}}
EVERYTHING: dict[str, Any] = GIVEN | {
    "image": {"repository": "registry.test/acclimate", "digest": "sha256:" + "ab" * 32},
    "imagePullSecrets": [{"name": "pull"}],
    "settings": {"log_format": "json", "metrics_need_key": True, "retention_days": 90},
    "workflowsConfigMap": "flows",
    "pinsConfigMap": "pins",
    "policiesVolume": {"persistentVolumeClaim": {"claimName": "bundles", "readOnly": True}},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "only", "operator": "Exists"}],
    "podAnnotations": {"a/b": "c"},
    "networkPolicy": {"from": [{"namespaceSelector": {}}], "redisPorts": [6379, 7000]},
    "serviceMonitor": {"enabled": True, "keySecret": "scrape"},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
}
LEAST: dict[str, Any] = GIVEN | {
    "autoscaling": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "migrations": {"job": False},
    "workers": {"enabled": False},
    "networkPolicy": {"enabled": False},
}
VALUES = {"as given": GIVEN, "everything": EVERYTHING, "least": LEAST}
CUSTOM = {"ServiceMonitor", "PrometheusRule"}


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Every object that the chart makes of these values."""
    with Chart.load(CHART) as chart:
        chart.validate_schema(values)
        texts = chart.render(values, name="shop", namespace="prod")
    assert any(name.endswith("NOTES.txt") for name in texts)
    documents = (text for name, text in texts.items() if name.endswith(".yaml"))
    return [one for text in documents for one in yaml.safe_load_all(text) if one]


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, labels and spec of every pod."""
    for one in objects:
        if one["kind"] in ("Deployment", "Job"):
            template = one["spec"]["template"]
            yield one["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def environment(spec: dict[str, Any]) -> dict[str, str | None]:
    """Variables of a pod's container; None: from the Secret."""
    [container] = spec["containers"]
    names = [one["name"] for one in container["env"]]
    assert len(set(names)) == len(names)
    return {one["name"]: one.get("value") for one in container["env"]}


@pytest.mark.parametrize("which", VALUES)
def test_helm_finds_nothing_wrong(which: str) -> None:
    report = lint(CHART, VALUES[which], strict=True)
    assert not report["errors"]
    assert [one for one in report["messages"] if one["severity"] > 1] == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("which", VALUES)
def test_every_object_fits_kubernetes_own_schema(which: str, version: str) -> None:
    seen = set()
    for one in rendered(VALUES[which]):
        seen.add(one["kind"])
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, version, strict=True)
    least = {"Deployment", "Service"}
    usual = least | {"Job", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"}
    assert seen == {"as given": usual, "least": least, "everything": usual | CUSTOM}[which]


def test_the_schema_is_one_that_refuses() -> None:
    [deployment] = of_kind(rendered(LEAST), "Deployment").values()
    deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES[0], strict=True)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"secret": {"name": ""}},
        GIVEN | {"replica": 3},
        GIVEN | {"replicas": 0},
        GIVEN | {"settings": {"ledger_url": "postgresql+psycopg://me:password@host/db"}},
        GIVEN | {"image": {"repository": "acclimate", "digest": "latest"}},
    ],
)
def test_values_that_do_not_fit_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(HelmError), Chart.load(CHART) as chart:
        chart.validate_schema(values)
        chart.render(values, name="shop", namespace="prod")


@pytest.mark.parametrize("which", VALUES)
def test_pods_have_no_rights_and_run_as_the_image_does(which: str) -> None:
    (user,) = re.findall(r"^USER (\d+)$", (ROOT / "infra/docker/Dockerfile").read_text(), re.M)
    for name, _, spec in pods(rendered(VALUES[which])):
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == int(user), name
        for container in spec["containers"]:
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"] is True, name
            assert confined["allowPrivilegeEscalation"] is False, name
            assert confined["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            named = {volume["name"] for volume in spec["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} == named, name


@pytest.mark.parametrize("which", VALUES)
def test_pods_get_settings_that_the_service_accepts(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {
        "ACCLIMATE_LEDGER_URL": "postgresql+psycopg://me:secret@db:5432/acclimate",
        "ACCLIMATE_REDIS_URL": "redis+cluster://a:6379,b:6379",
        "ACCLIMATE_BROKER_URL": "redis://broker:6379/1",
        "ACCLIMATE_INSTALLATION_KEY": "k" * 32,
        "ACCLIMATE_ADMIN_KEY": "a" * 40,
    }
    known = {f"ACCLIMATE_{name.upper()}" for name in Settings.model_fields}
    for name, _, spec in pods(rendered(VALUES[which])):
        for one in known:
            monkeypatch.delenv(one, raising=False)
        for variable, value in environment(spec).items():
            assert variable in known, variable
            monkeypatch.setenv(variable, secrets[variable] if value is None else value)
        settings = Settings()
        assert settings.shares_stores, name
        if not name.endswith("-migrate"):
            assert settings.jobs == ("here" if which == "least" else "workers")
            assert settings.migrations == ("start" if which == "least" else "wait")
            assert settings.data_dir.is_absolute()


def test_large_numbers_reach_the_service_as_they_were_written() -> None:
    """Helm reads numbers as floats, and prints those of seven digits and more as 1e+06."""
    given = {
        "max_body_bytes": 1_000_000,
        "in_process_memories": 25_000_000,
        "memory_idle_seconds": 2_592_000,
        "retention_days": 90.5,
        "metrics_need_key": True,
        "log_format": "json",
    }
    for name, _, spec in pods(rendered(GIVEN | {"settings": given})):
        if name.endswith("-migrate"):
            continue
        env = environment(spec)
        assert {one: env[f"ACCLIMATE_{one.upper()}"] for one in given} == {
            "max_body_bytes": "1000000",
            "in_process_memories": "25000000",
            "memory_idle_seconds": "2592000",
            "retention_days": "90.5",
            "metrics_need_key": "true",
            "log_format": "json",
        }
        assert Settings(max_body_bytes=env["ACCLIMATE_MAX_BODY_BYTES"]).max_body_bytes == 1_000_000


def test_a_pod_may_take_as_long_to_stop_as_it_takes() -> None:
    [service] = [s for name, _, s in pods(rendered(GIVEN)) if name == "shop-acclimate"]
    drain = float(environment(service)["ACCLIMATE_DRAIN_SECONDS"] or 0)
    looks = service["containers"][0]["readinessProbe"]
    assert drain > looks["periodSeconds"] * looks["failureThreshold"]
    longest = drain + LINGER_SECONDS + FINISH_SECONDS
    assert service["terminationGracePeriodSeconds"] >= longest + 10


def test_probes_ask_what_the_service_answers() -> None:
    paths = {getattr(one, "path", None) for one in router.routes}
    [service] = [s for name, _, s in pods(rendered(GIVEN)) if name == "shop-acclimate"]
    container = service["containers"][0]
    asked = {
        name: container[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "liveness", "readiness")
    }
    assert asked == {"startup": "/startupz", "liveness": "/livez", "readiness": "/readyz"}
    assert set(asked.values()) <= paths


@pytest.mark.parametrize("which", VALUES)
def test_what_selects_pods_finds_some(which: str) -> None:
    objects = rendered(VALUES[which])
    labels = [of for _, of, _ in pods(objects)]
    selectors = [one["spec"]["selector"] for one in of_kind(objects, "Service").values()]
    selectors += [
        one["spec"]["selector"]["matchLabels"]
        for kind in ("Deployment", "PodDisruptionBudget")
        for one in of_kind(objects, kind).values()
    ]
    for selector in selectors:
        assert sum(selector.items() <= one.items() for one in labels) == 1, selector
    for one in of_kind(objects, "HorizontalPodAutoscaler").values():
        assert one["spec"]["scaleTargetRef"]["name"] in of_kind(objects, "Deployment")
        assert "replicas" not in of_kind(objects, "Deployment")["shop-acclimate"]["spec"]


def test_the_ledger_is_migrated_before_anything_starts() -> None:
    [job] = of_kind(rendered(GIVEN), "Job").values()
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["acclimate", "migrate"]
    assert set(environment(job["spec"]["template"]["spec"])) == {"ACCLIMATE_LEDGER_URL"}


def test_prometheus_gets_the_rules_that_are_tested_and_the_jobs_they_name() -> None:
    objects = rendered(EVERYTHING)
    [rule] = of_kind(objects, "PrometheusRule").values()
    files = sorted(RULES.glob("*.yml"))
    assert files
    groups = [group for one in files for group in yaml.safe_load(one.read_text())["groups"]]
    assert rule["spec"]["groups"] == groups
    [monitor] = of_kind(objects, "ServiceMonitor").values()
    scraped = {one["relabelings"][0]["replacement"] for one in monitor["spec"]["endpoints"]}
    configured = yaml.safe_load((RULES.parent / "prometheus.yml").read_text())["scrape_configs"]
    assert scraped <= {one["job_name"] for one in configured}
    services = of_kind(objects, "Service").values()
    ports = {port["name"] for one in services for port in one["spec"]["ports"]}
    assert {one["port"] for one in monitor["spec"]["endpoints"]} == ports
