"""`ray_cluster.yaml` against Ray's own schema."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).parents[1]


def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text(encoding="utf-8"))
    return loaded


def test_cluster_file_passes_the_schema_of_ray() -> None:
    schema = json.loads((files("ray") / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(cluster(), schema)


def test_head_does_no_work_and_workers_are_within_the_limit() -> None:
    types = cluster()["available_node_types"]
    assert types[cluster()["head_node_type"]]["resources"] == {"CPU": 0}
    assert sum(kind.get("max_workers", 0) for kind in types.values()) <= cluster()["max_workers"]
