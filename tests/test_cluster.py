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
    """Return the values of a `python -m jobs transcribe` line as the command reads them; click's error otherwise."""
    program, *arguments = line.split(" transcribe ")
    assert program == "python -m jobs"
    return command.make_context("transcribe", shlex.split(arguments[0])).params


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


def submitted(text: str) -> list[str]:
    """Return what is submitted in a text, as one line each: comment signs and continued lines are taken out."""
    flat = re.sub(r"\\\n#? *", "", text)
    return [match.strip() for match in re.findall(r"ray job submit .*? -- (.*)", flat)]


def labels(kind: dict[str, Any]) -> str:
    """Return the labels of a kind of machine as `--decode-on` takes one."""
    ((name, value),) = kind["labels"].items()
    return f"{name}={value}"


def test_job_in_the_cluster_file_is_one_that_the_command_takes_and_fills_the_gpus(cluster: dict[str, Any]) -> None:
    (line,) = submitted((ROOT / "ray_cluster.yaml").read_text(encoding="utf-8"))
    values, kinds = transcribe_values(line), cluster["available_node_types"]
    assert values["address"] == "auto"
    assert values["actors"] == str(kinds["gpu"]["max_workers"])
    assert values["decode_on"] == labels(kinds["cpu"]) != labels(kinds["gpu"])


def test_job_in_the_kubernetes_file_decodes_on_its_cpu_workers(kubernetes: dict[str, Any]) -> None:
    values, kinds = transcribe_values(kubernetes["entrypoint"]), groups(kubernetes)
    assert values["decode_on"] == labels(kinds["cpu"]) != labels(kinds["gpu"])
    assert kubernetes["rayClusterSpec"]["autoscalerOptions"]["version"] == "v2"


def test_jobs_in_the_documentation_are_ones_that_the_command_takes() -> None:
    lines = submitted((ROOT / "docs" / "cluster.md").read_text(encoding="utf-8"))
    assert lines
    for line in lines:
        assert transcribe_values(line)["address"] == "auto"


def test_all_machines_serve_their_metrics_at_the_port_of_the_documentation(
    cluster: dict[str, Any], kubernetes: dict[str, Any]
) -> None:
    (port,) = set(re.findall(r":(80\d\d)\b", (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")))
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert f"--metrics-export-port={port}" in cluster[key][-1]
    ray = kubernetes["rayClusterSpec"]
    for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"]):
        assert group["rayStartParams"]["metrics-export-port"] == port


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
    assert transcribe_values(kubernetes["entrypoint"])["actors"] == str(gpu["maxReplicas"])
    assert "nvidia.com/gpu" not in container(groups(kubernetes)["cpu"])["resources"]["limits"]
