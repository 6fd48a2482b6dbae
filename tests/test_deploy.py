"""The files of deploy/ for replicas: what they start is there, and their numbers fit together."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ROOT

from sam2_amg.cli import serve
from sam2_amg.config import Limits
from sam2_amg.process.version import find_version
from sam2_amg.replicas.fleet import RAY_LOST

DEPLOY = ROOT / "deploy"
SLURM = DEPLOY / "slurm-replicas.sh"
CLUSTER, SERVICE, POLICY = list(yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text()))
HEAD = CLUSTER["spec"]["headGroupSpec"]["template"]["spec"]
GROUPS = CLUSTER["spec"]["workerGroupSpecs"]
PODS = [HEAD, *(group["template"]["spec"] for group in GROUPS)]
(RAY,) = re.findall(r"^ray\[serve\]==(\S+)$", (ROOT / "requirements-ray.txt").read_text(), re.MULTILINE)


def flags_of_the_head() -> Any:
    """The server's flags in the head's container, parsed."""
    (script,) = HEAD["containers"][0]["args"]
    (command,) = re.findall(r"^exec python server\.py (.*)", script.replace("\\\n", ""), re.MULTILINE)
    return serve.build_parser().parse(shlex.split(command))


def gpus(pod: dict[str, Any]) -> int:
    return int(pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])


def test_the_cluster_has_the_fields_of_a_ray_cluster() -> None:
    assert (CLUSTER["apiVersion"], CLUSTER["kind"]) == ("ray.io/v1", "RayCluster")
    assert CLUSTER["metadata"]["annotations"]["ray.io/overwrite-container-cmd"] == "true"  # so commands start Ray
    assert CLUSTER["spec"]["rayVersion"] == RAY
    groups = [CLUSTER["spec"]["headGroupSpec"], *GROUPS]
    parameters = [value for group in groups for value in group["rayStartParams"].values()]
    assert all(isinstance(value, str) for value in parameters)
    for group in GROUPS:
        assert group["groupName"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_there_are_as_many_replicas_as_gpus() -> None:
    count = gpus(HEAD) + sum(group["replicas"] * gpus(group["template"]["spec"]) for group in GROUPS)
    assert flags_of_the_head().replicas == (count, count)


def test_the_head_starts_ray_and_the_server_and_others_start_ray() -> None:
    (script,) = HEAD["containers"][0]["args"]
    assert script.index("ulimit -n") < script.index("ray start --head --port=6379") < script.index("exec python server")
    assert flags_of_the_head().ray_address == "auto"
    for pod in PODS[1:]:
        assert "exec $KUBERAY_GEN_RAY_START_CMD" in pod["containers"][0]["args"][0]


def test_a_pod_ends_after_its_server() -> None:
    flags = flags_of_the_head()
    drain = flags.drain_timeout or Limits.drain_timeout
    for pod in PODS:
        assert pod["terminationGracePeriodSeconds"] > drain + flags.drain_delay


@pytest.mark.parametrize("pod", PODS, ids=["head", *(group["groupName"] for group in GROUPS)])
def test_containers_are_pinned_bounded_and_probed(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    _, _, tag = container["image"].rpartition(":")
    assert tag == find_version()
    limits = container["resources"]["limits"]
    assert {"cpu", "memory", "nvidia.com/gpu"} <= limits.keys()
    assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
    ports = {port["name"] for port in container["ports"]}
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    environment = {each["name"]: each for each in container["env"]}
    assert environment["RAY_AUTH_MODE"]["value"] == "token"
    assert "value" not in environment["RAY_AUTH_TOKEN"]  # it is a Secret's
    assert environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "sam2-amg", "key": "auth_token"}


def test_probes_of_the_head_ask_the_server() -> None:
    container = HEAD["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    port = serve.build_parser().get_default("port")
    assert {"name": "http", "containerPort": port} in container["ports"]
    assert SERVICE["spec"]["ports"] == [{"name": "http", "port": port, "targetPort": "http"}]
    assert POLICY["spec"]["ingress"][1] == {"ports": [{"port": port}]}


def test_the_service_and_the_policy_choose_pods_of_the_cluster() -> None:
    name = CLUSTER["metadata"]["name"]
    assert SERVICE["spec"]["selector"] == {"ray.io/cluster": name, "ray.io/node-type": "head"}  # KubeRay's labels
    own = {"matchLabels": {"ray.io/cluster": name}}
    assert POLICY["spec"]["podSelector"] == own
    assert POLICY["spec"]["ingress"][0] == {"from": [{"podSelector": own}]}


def test_the_key_is_where_the_server_looks_for_it() -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in HEAD["containers"][0]["volumeMounts"]}
    (volume,) = (each for each in HEAD["volumes"] if each["name"] == mounts["/secrets"])
    (item,) = volume["secret"]["items"]
    assert str(flags_of_the_head().api_key_file) == f"/secrets/{item['path']}"
    commands = (DEPLOY / "kuberay.yaml").read_text().partition("apiVersion")[0]
    assert f"--from-literal={item['key']}=" in commands
    assert "--from-literal=auth_token=" in commands


def test_the_image_is_the_one_that_is_made() -> None:
    page = (DEPLOY / "ray.Dockerfile").read_text()
    (base,) = re.findall(r"^FROM (\S+)$", page, re.MULTILINE)
    assert base == f"sam2-amg:{find_version()}"
    assert f"docker build -t {base} ." in page
    assert f"docker build -t {HEAD['containers'][0]['image']} - < deploy/ray.Dockerfile" in page
    assert f'"ray[serve]=={RAY}"' in page


def test_the_exit_statuses_of_replicas_are_documented() -> None:
    replica = (ROOT / "sam2_amg" / "replicas" / "replica.py").read_text()  # importing it needs Ray
    (front_lost,) = re.findall(r"^FRONT_LOST = (\d+)", replica, re.MULTILINE)
    page = (ROOT / "docs" / "deployment.md").read_text()
    for status in (RAY_LOST, front_lost):
        assert f"\n| {status} | " in page


def test_the_script_for_slurm_parses() -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)
    assert os.access(SLURM, os.X_OK)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, SLURM], check=True)


@pytest.fixture
def allocation(tmp_path: Path) -> Callable[[int, str], subprocess.Popen[str]]:
    """Starts the script as SLURM does, where programs only write what they are started with into `started`."""

    def start(nodes: int, server: str) -> subprocess.Popen[str]:
        for name, body in {"ray": "", "srun": "", "sam2-amg": server, "python": "echo 10.0.0.1"}.items():
            program = tmp_path / name
            program.write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/started\n{body}\n')
            program.chmod(0o755)
        slurm = {"SLURM_JOB_ID": "41234", "SLURM_JOB_NUM_NODES": str(nodes), "SLURM_GPUS_ON_NODE": "8"}
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_CPUS_ON_NODE": "64", **slurm}
        command = [SLURM, "checkpoints", "large", "--fast"]
        return subprocess.Popen(command, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE)

    return start


def test_the_script_starts_ray_on_all_nodes_and_the_server(allocation: Callable, tmp_path: Path) -> None:
    process = allocation(4, "exit 73")
    process.communicate(timeout=10)
    assert process.returncode == 73
    started = (tmp_path / "started").read_text().splitlines()
    (head,) = (line for line in started if line.startswith("ray start"))
    (others,) = (line for line in started if line.startswith("srun"))
    (server,) = (line for line in started if line.startswith("sam2-amg"))
    assert "--head --node-ip-address=10.0.0.1 --port=21234" in head
    assert "--relative=1 --nodes=3 --ntasks=3" in others
    assert "ray start --address=10.0.0.1:21234" in others
    flags = serve.build_parser().parse(server.removeprefix("sam2-amg serve ").split())
    assert (flags.model_type, flags.ray_address, flags.replicas) == ("large", "10.0.0.1:21234", (32, 32))


def test_the_script_lets_the_server_drain(allocation: Callable, tmp_path: Path) -> None:
    drains = f"trap 'sleep 0.3; touch {tmp_path}/drained; exit 0' TERM; echo ready; while true; do sleep 0.05; done"
    with allocation(1, drains) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "ready\n":
            assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=10) == 0
    assert (tmp_path / "drained").exists()
    assert "srun" not in (tmp_path / "started").read_text()
