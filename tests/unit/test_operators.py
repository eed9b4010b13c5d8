"""What operators are given hangs together with the code: metrics, settings, names and ports."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from dragonfly_ray.config import Settings
from dragonfly_ray.serve.deployment import Args
from dragonfly_ray.serve.settings import ManagerSettings
from dragonfly_ray.telemetry import COUNTERS, GAUGES, RENAMED
from tests import programs

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
KUBERAY = CONFIGS / "kuberay"
METRIC = re.compile(r"\bray_(dragonfly_\w+)")
CODE = ("dragonfly_ray", "actors", "serve")
RULES = CONFIGS / "prometheus" / "alerts.yaml"
DASHBOARD = CONFIGS / "grafana" / "dragonfly.json"


def exported() -> set[str]:
    """As Ray spells them."""
    return {f"{name}_total" for name in COUNTERS} | set(GAUGES)


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for rule in rules():
        yield rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


# --- metrics ------------------------------------------------------------------------------------


def test_every_metric_that_is_looked_at_is_exported() -> None:
    named = {name for text in expressions() for name in METRIC.findall(text)}
    assert len(named) > 15
    assert named <= exported()


def test_every_metric_that_is_declared_is_measured() -> None:
    code = "\n".join(
        path.read_text()
        for folder in CODE
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "telemetry.py"
    )
    telemetry = (ROOT / "dragonfly_ray" / "telemetry.py").read_text()
    for name in (*COUNTERS, *GAUGES):
        declared = 2 if name in RENAMED else 1
        assert f'"{name}"' in code or telemetry.count(f'"{name}"') > declared, name


def test_labels_that_are_grouped_by_exist() -> None:
    tags = {tag for _, known in COUNTERS.values() for tag in known} | {"actor"}
    for text in expressions():
        if "ray_dragonfly" in text:
            grouped = re.findall(r"\bby \(([^)]*)\)", text)
            assert {label.strip() for group in grouped for label in group.split(",")} <= tags, text


def test_rules_say_what_and_how_bad() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) >= 9
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


def test_promtool_agrees() -> None:
    done = subprocess.run(
        [programs.need("promtool"), "check", "rules", str(RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    found = json.loads(DASHBOARD.read_text())
    panels = found["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    assert {v["name"] for v in found["templating"]["list"]} == {"datasource"}
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["targets"]


# --- settings -----------------------------------------------------------------------------------


def variables(model: type[BaseModel], prefix: str) -> dict[str, Any]:
    """Variable -> default, of a settings model and the models in it."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        alias = field.validation_alias
        variable = str(alias) if alias else f"{prefix}{name.upper()}"
        nested = default if isinstance(default, BaseModel) else None
        if nested is not None:
            found |= variables(type(nested), f"{variable}__")
        elif hasattr(default, "__dataclass_fields__"):
            found |= {f"{variable}__{n.upper()}": getattr(default, n) for n in default.__dataclass_fields__}
        else:
            found[variable] = default
    return found


MANAGER = variables(ManagerSettings, "DRAGONFLY_MANAGER_")
CLUSTER = variables(Settings, "DRAGONFLY_")


def test_the_managers_variables_are_all_there_with_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: set[str] = set()
    before = ManagerSettings()
    for line in (CONFIGS / "manager.env").read_text().splitlines():
        match = re.fullmatch(r"(#?)(DRAGONFLY_[A-Z_]+)=(.*?)(?:\s+#.*)?", line)
        if match is None:
            assert not line or line.startswith("# "), line
            continue
        commented, name, value = match.groups()
        shown.add(name)
        if not commented:
            monkeypatch.setenv(name, value)
            default = MANAGER[name]
            read = json.loads(value) if isinstance(default, (bool, int, float, tuple, list, dict)) else value
            assert read == (list(default) if isinstance(default, tuple) else default), name
    assert shown == set(MANAGER)
    assert ManagerSettings() == before


def test_lists_of_a_policy_are_read_from_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGONFLY_MANAGER_URLS__NETWORKS", '["10.0.0.0/8"]')
    monkeypatch.setenv("DRAGONFLY_MANAGER_WEBHOOK_URLS", '{"allow_private": true}')
    found = ManagerSettings()
    assert found.urls.networks == ("10.0.0.0/8",)
    assert found.urls.schemes == ManagerSettings.model_fields["urls"].default.schemes
    assert found.webhook_urls.allow_private
    assert found.webhook_urls.schemes == ("https", "http")


# --- KubeRay ------------------------------------------------------------------------------------


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERAY / name).read_text()))


def of_kind(name: str, kind: str) -> dict[str, Any]:
    return next(d for d in documents(name) if d["kind"] == kind)


def cluster_specs() -> list[dict[str, Any]]:
    return [
        of_kind("raycluster.yaml", "RayCluster")["spec"],
        of_kind("rayservice.yaml", "RayService")["spec"]["rayClusterConfig"],
    ]


def groups(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def is_manager(group: dict[str, Any]) -> bool:
    return group.get("groupName") == "managers"


def with_peers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [group for group in groups(spec) if not is_manager(group)]


def secrets() -> dict[str, set[str]]:
    found = documents("secrets.example.yaml")
    return {d["metadata"]["name"]: set(d["stringData"]) for d in found}


def pods() -> list[dict[str, Any]]:
    job = of_kind("raycluster.yaml", "Job")["spec"]["template"]["spec"]
    return [job, *(group["template"]["spec"] for spec in cluster_specs() for group in groups(spec))]


def test_both_clusters_are_the_same() -> None:
    one, other = cluster_specs()
    assert one == other


def test_containers_mount_what_there_is_and_read_secrets_that_are_shown() -> None:
    for pod in pods():
        volumes = {v["name"] for v in pod.get("volumes", ())}
        for container in pod["containers"]:
            assert {m["name"] for m in container.get("volumeMounts", ())} == volumes
            for variable in container.get("env", ()):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference:
                    assert reference["key"] in secrets()[reference["name"]]


def test_variables_are_settings_and_agree_with_mounts_and_ports() -> None:
    (roots,) = {tuple(config["dest_roots"]) for config in manager_settings()}
    assert roots
    for spec in cluster_specs():
        for group in groups(spec):
            (container,) = group["template"]["spec"]["containers"]
            env = {v["name"]: v.get("value") for v in container["env"]}
            assert {n for n in env if n.startswith("DRAGONFLY_")} <= set(CLUSTER) | set(MANAGER)
        for group in with_peers(spec):
            (container,) = group["template"]["spec"]["containers"]
            env = {v["name"]: v.get("value") for v in container["env"]}
            mounts = {m["mountPath"] for m in container["volumeMounts"]}
            assert env["DRAGONFLY_STORAGE__ROOT"] in mounts
            assert set(roots) <= mounts
            ports = {p["name"]: p["containerPort"] for p in container["ports"]}
            assert str(ports["dragonfly"]) == env["DRAGONFLY_TRANSPORT__PORT"]
            assert str(ports["metrics"]) == group["rayStartParams"]["metrics-export-port"]
            assert "labels" not in group["rayStartParams"], "KubeRay refuses them there"


def test_caches_outlive_pods_and_upgrades() -> None:
    assert of_kind("rayservice.yaml", "RayService")["spec"]["upgradeStrategy"] == {"type": "None"}
    for spec in cluster_specs():
        for group in with_peers(spec):
            volumes = {v["name"]: v for v in group["template"]["spec"]["volumes"]}
            assert "hostPath" in volumes["cache"]


def test_only_the_managers_pods_have_the_managers_keys_and_none_has_them_in_its_environment() -> None:
    for pod in pods():
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            assert "dragonfly-manager" not in json.dumps([container.get("env"), container.get("envFrom")])
    for spec in cluster_specs():
        for group in groups(spec):
            mounted = {
                v["secret"]["secretName"] for v in group["template"]["spec"]["volumes"] if "secret" in v
            }
            assert mounted == ({"dragonfly-manager"} if is_manager(group) else set())


def test_the_managers_replicas_run_where_its_keys_are() -> None:
    keys = secrets()["dragonfly-manager"]
    for config, spec in zip(manager_settings(), cluster_specs(), strict=True):
        (group,) = (group for group in groups(spec) if is_manager(group))
        assert config["node_labels"].items() <= group["labels"].items()
        assert group["labels"][Settings().peer.exclude_label] == "true", "no peer beside the keys"
        assert group["replicas"] >= config["replicas"]
        pod = group["template"]["spec"]
        (folder,) = (m["mountPath"] for m in pod["containers"][0]["volumeMounts"] if m["name"] == "manager")
        files = {config[name] for name in ("database_url_file", "secret_key_file", "admin_password_file")}
        assert files == {f"{folder}/{key}" for key in keys}
        (volume,) = (v for v in pod["volumes"] if v["name"] == "manager")
        assert volume["secret"]["defaultMode"] & 0o007 == 0
        assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]


def test_folders_of_the_machine_are_made_the_users() -> None:
    """Kubernetes makes them for root, and the image's user is another."""
    for spec in cluster_specs():
        for group in with_peers(spec):
            pod = group["template"]["spec"]
            user = pod["securityContext"]
            assert (user["runAsNonRoot"], user["runAsUser"]) == (True, 1000)
            (init,) = pod["initContainers"]
            assert init["securityContext"]["runAsUser"] == 0
            folders = {v["name"] for v in pod["volumes"] if "hostPath" in v}
            places = {m["mountPath"] for m in init["volumeMounts"] if m["name"] in folders}
            main = {m["mountPath"] for m in pod["containers"][0]["volumeMounts"] if m["name"] in folders}
            assert places == main
            chown = init["command"][-1].split(" && ")[0].split()
            assert chown[:2] == ["chown", f"{user['runAsUser']}:{user['runAsGroup']}"]
            assert set(chown[2:]) == places


def test_every_pod_is_behind_a_network_policy() -> None:
    policies = documents("networkpolicy.yaml")
    closed = [p["spec"] for p in policies if not p["spec"]["podSelector"].get("matchExpressions")]
    ports: set[Any] = {"metrics", "serve", "dashboard"}
    for spec in cluster_specs():
        for group in groups(spec):
            labels = group["template"]["metadata"]["labels"]
            over = [p for p in closed if p["podSelector"]["matchLabels"].items() <= labels.items()]
            assert over
            assert all(p["policyTypes"] == ["Ingress"] for p in over)
    head = {p["name"] for p in groups(cluster_specs()[0])[0]["template"]["spec"]["containers"][0]["ports"]}
    for policy in policies:
        for rule in policy["spec"]["ingress"]:
            assert rule["from"], "an empty list is everybody"
            within = all("podSelector" in each and "namespaceSelector" not in each for each in rule["from"])
            named = {p["port"] for p in rule.get("ports", ())}
            assert within or named, "from outside only what is named"
            assert named <= ports & head


def test_ray_wants_its_token() -> None:
    for spec in cluster_specs():
        assert spec["authOptions"]["mode"] == "token"
        assert "auth_token" in secrets()[spec["authOptions"]["secretName"]]


def serve_configs() -> list[dict[str, Any]]:
    return [
        yaml.safe_load(of_kind("raycluster.yaml", "ConfigMap")["data"]["serve.yaml"]),
        yaml.safe_load(of_kind("rayservice.yaml", "RayService")["spec"]["serveConfigV2"]),
    ]


def manager_settings() -> list[dict[str, Any]]:
    return [config["applications"][0]["args"]["manager"] for config in serve_configs()]


def test_serve_takes_the_manager() -> None:
    from ray.serve.schema import ServeDeploySchema

    for config in serve_configs():
        (app,) = ServeDeploySchema(**config).applications
        assert app.import_path == "dragonfly_ray.serve.deployment:manager"
        assert Args(**app.args).manager["replicas"] == 2


def test_names_and_ports_lead_to_each_other() -> None:
    cluster = of_kind("raycluster.yaml", "RayCluster")
    name = cluster["metadata"]["name"]
    job = of_kind("raycluster.yaml", "Job")["spec"]["template"]["spec"]
    head = {p["name"]: p["containerPort"] for p in groups(cluster["spec"])[0]["template"]["spec"]["containers"][0]["ports"]}  # fmt: skip
    assert f"http://{name}-head-svc:{head['dashboard']}" in job["containers"][0]["command"]
    config = of_kind("raycluster.yaml", "ConfigMap")["metadata"]["name"]
    assert [v["configMap"]["name"] for v in job["volumes"]] == [config]
    service = of_kind("raycluster.yaml", "Service")
    assert service["spec"]["selector"]["ray.io/cluster"] == name
    assert service["spec"]["ports"][0]["targetPort"] in head
    assert all(c["http_options"]["port"] == head["serve"] for c in serve_configs())
    labels = groups(cluster["spec"])[0]["template"]["metadata"]["labels"]
    monitor = of_kind("monitoring.yaml", "PodMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["podMetricsEndpoints"][0]["port"] in head
    scraped = of_kind("monitoring.yaml", "ServiceMonitor")["spec"]
    assert scraped["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert scraped["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
