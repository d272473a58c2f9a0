"""The files that describe machines: `ray_cluster.yaml` by Ray's own checks, `deploy/kuberay-job.yaml` for sense."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs.transcribe import command

ROOT = Path(__file__).parents[1]


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture
def cluster() -> dict[str, Any]:
    return load("ray_cluster.yaml")


@pytest.fixture
def kubernetes() -> dict[str, Any]:
    job = load("deploy/kuberay-job.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec: dict[str, Any] = job["spec"]
    return spec


def groups(kubernetes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the worker groups by name."""
    return {group["groupName"]: group for group in kubernetes["rayClusterSpec"]["workerGroupSpecs"]}


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    return dict(only)


def transcribe_values(line: str) -> dict[str, Any]:
    """Return the values of a `bulkscribe transcribe` line as the command reads them; click's error for a wrong one."""
    program, name, *arguments = shlex.split(line)
    assert (program, name) == ("bulkscribe", "transcribe")
    return command.make_context(name, arguments).params


def test_ray_accepts_the_cluster_file_with_its_defaults_filled_in(cluster: dict[str, Any]) -> None:
    validate_config(prepare_config(cluster))


def test_no_work_is_placed_on_the_head_and_it_is_not_a_spot_machine(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_all_workers_come_when_needed_as_spot_machines_within_the_limit(cluster: dict[str, Any]) -> None:
    workers = [kind for name, kind in cluster["available_node_types"].items() if name != cluster["head_node_type"]]
    assert all(kind["min_workers"] == 0 for kind in workers)
    assert all(kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} for kind in workers)
    assert sum(kind["max_workers"] for kind in workers) == cluster["max_workers"]


def test_only_gpu_machines_get_the_gpu_image(cluster: dict[str, Any]) -> None:
    for name, kind in cluster["available_node_types"].items():
        default = cluster["docker"]["head_image" if name == cluster["head_node_type"] else "worker_image"]
        image = kind.get("docker", {}).get("worker_image", default)
        assert image.endswith("-gpu") == ("GPU" in kind["resources"]), name


def test_job_in_the_cluster_file_is_one_that_the_command_takes_and_fills_the_gpus(cluster: dict[str, Any]) -> None:
    comment = (ROOT / "ray_cluster.yaml").read_text(encoding="utf-8")
    (line,) = re.findall(r"^# +(bulkscribe .*)$", comment, re.MULTILINE)
    values = transcribe_values(line)
    assert values["address"] == "auto"
    assert values["actors"] == f"1:{cluster['available_node_types']['gpu']['max_workers']}"


def test_ray_is_the_same_everywhere(cluster: dict[str, Any], kubernetes: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    ray = kubernetes["rayClusterSpec"]
    images = re.findall(r"image: \"?(\S+ray\S+)", (ROOT / "ray_cluster.yaml").read_text(encoding="utf-8"))
    images += [container(group)["image"] for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"])]
    assert len(images) == 6
    assert {re.findall(r"\d+\.\d+\.\d+", image)[-1] for image in images} == {pinned[1]} == {ray["rayVersion"]}


def test_lost_kubernetes_job_is_run_again_and_its_cluster_ends_with_it(kubernetes: dict[str, Any]) -> None:
    assert kubernetes["backoffLimit"] >= 1
    assert kubernetes["shutdownAfterJobFinishes"] is True
    assert transcribe_values(kubernetes["entrypoint"])["out"].startswith("s3://")  # outlives the pods


def test_kubernetes_workers_come_when_needed_and_the_head_does_no_work(kubernetes: dict[str, Any]) -> None:
    ray = kubernetes["rayClusterSpec"]
    assert ray["enableInTreeAutoscaling"] is True
    assert ray["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(group["minReplicas"] == group["replicas"] == 0 for group in groups(kubernetes).values())


def test_each_kubernetes_gpu_worker_has_one_gpu_and_there_are_as_many_as_actors(kubernetes: dict[str, Any]) -> None:
    gpu = groups(kubernetes)["gpu"]
    assert container(gpu)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert transcribe_values(kubernetes["entrypoint"])["actors"] == f"1:{gpu['maxReplicas']}"
    assert "nvidia.com/gpu" not in container(groups(kubernetes)["cpu"])["resources"]["limits"]
