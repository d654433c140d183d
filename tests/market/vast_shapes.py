"""Requests and answers of the hosted marketplace's calls, from its public documents (2026).

It has only the calls and fields that stoker uses. Types are named as in the documents; `?` means nullable.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Kinds = Mapping[str, str]

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}

FILTER_FIELDS = frozenset(
    [
        "verified",
        "rentable",
        "rented",
        "gpu_name",
        "reliability",
        "num_gpus",
        "gpu_ram",
        "duration",
        "machine_id",
        "dlperf_per_dphtotal",
        "dph_total",
        "flops_per_dphtotal",
        "geolocation",
        "gpu_arch",
        "dlperf",
        "cuda_max_good",
        "inet_down",
        "inet_up",
        "inet_down_cost",
        "inet_up_cost",
        "driver_version",
        "compute_cap",
        "cpu_arch",
        "has_avx",
        "cpu_cores",
        "cpu_cores_effective",
        "cpu_ghz",
        "cpu_ram",
        "datacenter",
        "external",
        "disk_bw",
        "disk_space",
        "bw_nvlink",
        "gpu_max_power",
        "gpu_max_temp",
        "gpu_mem_bw",
        "gpu_total_ram",
        "gpu_frac",
        "gpu_display_active",
        "direct_port_count",
        "host_id",
        "id",
        "min_bid",
        "mobo_name",
        "pci_gen",
        "pcie_bw",
        "storage_cost",
        "static_ip",
        "total_flops",
        "os_version",
        "ubuntu_version",
        "verification",
        "vms_enabled",
    ]
)
OPERATORS = frozenset({"eq", "neq", "gt", "lt", "gte", "lte", "in", "notin"})


@dataclass(frozen=True)
class Shape:
    """One call, with the fields of its body and query."""

    method: str
    path: str
    body: Kinds = field(default_factory=dict)
    query: frozenset[str] = frozenset()
    enums: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    filters: bool = False
    """Other fields of the body are search filters."""

    def faults(self, body: Any, query: Mapping[str, str]) -> list[str]:
        """The sent fields that are undocumented or of the wrong type."""
        found = [f"query {name}" for name in query if name not in self.query]
        found += [
            f"{name} is not JSON" for name in ("select_filters", "order_by") if not _json(query.get(name))
        ]
        for name, value in (body or {}).items():
            if name not in self.body:
                found += _filter_faults(name, value) if self.filters else [f"{name} is not documented"]
            elif not fits(value, self.body[name]):
                found.append(f"{name} should be {self.body[name]}, is {value!r}")
            elif name in self.enums and value not in self.enums[name]:
                found.append(f"{name} is none of {self.enums[name]}: {value!r}")
        return found


def fits(value: Any, kind: str) -> bool:
    """Whether the value has the type; a boolean is not a number."""
    if kind.endswith("?"):
        return value is None or fits(value, kind[:-1])
    kinds = tuple(one for name in kind.split("|") for one in _TYPES[name])
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _json(text: str | None) -> bool:
    try:
        json.loads(text or "null")
    except ValueError:
        return False
    return True


def _filter_faults(name: str, value: Any) -> list[str]:
    if name not in FILTER_FIELDS:
        return [f"{name} is no search field"]
    if not isinstance(value, dict) or not set(value) <= OPERATORS:
        return [f"{name} should be an object of operators, is {value!r}"]
    return [
        f"{name}.{op} should be a list"
        for op in ("in", "notin")
        if op in value and not fits(value[op], "array")
    ]


SHAPES = (
    Shape(
        "POST",
        "/api/v0/bundles/",
        {"limit": "integer", "type": "string", "order": "array", "allocated_storage": "number"},
        # The documents say `ondemand`; the official package sends `on-demand`.
        enums={"type": ("on-demand", "ondemand", "bid", "reserved")},
        filters=True,
    ),
    Shape(
        "PUT",
        "/api/v0/asks/{id}/",
        {
            "client_id": "string",
            "image": "string",
            "template_hash_id": "string",
            "template_id": "integer",
            "label": "string",
            "disk": "number",
            "runtype": "string",
            "target_state": "string",
            "price": "number?",
            "env": "object|string",
            "cancel_unavail": "boolean",
            "vm": "boolean",
            "onstart": "string",
            "args": "array",
            "args_str": "string",
            "use_jupyter_lab": "boolean",
            "jupyter_dir": "string",
            "python_utf8": "boolean",
            "lang_utf8": "boolean",
            "force": "boolean",
            "user": "string",
            "image_login": "string",
            "extra": "string",
            "volume_info": "object",
        },
        enums={"target_state": ("running", "stopped")},
    ),
    Shape("GET", "/api/v0/instances/{id}/", query=frozenset({"owner"})),
    Shape(
        "GET",
        "/api/v1/instances/",
        query=frozenset({"limit", "after_token", "order_by", "select_cols", "select_filters"}),
    ),
    Shape(
        "PUT",
        "/api/v0/instances/{id}/",
        {"state": "string", "label": "string"},
        enums={"state": ("running", "stopped")},
    ),
    Shape("DELETE", "/api/v0/instances/{id}/"),
    Shape("PUT", "/api/v0/instances/reboot/{id}/"),
    Shape(
        "PUT",
        "/api/v0/instances/update_template/{id}/",
        {
            "id": "integer",
            "template_id": "integer",
            "template_hash_id": "string",
            "image": "string",
            "args": "array",
            "env": "object|string",
            "onstart": "string",
        },
    ),
    Shape(
        "PUT",
        "/api/v0/instances/request_logs/{id}/",
        {"tail": "string", "filter": "string", "daemon_logs": "string"},
    ),
    Shape("GET", "/api/v0/template/", query=frozenset({"select_filters", "select_cols", "order_by"})),
)


def shape_of(method: str, path: str) -> Shape | None:
    """The documented call."""
    for shape in SHAPES:
        if shape.method == method and re.fullmatch(shape.path.replace("{id}", r"\d+"), path):
            return shape
    return None


OFFER: dict[str, Any] = {
    "id": 1234567,
    "ask_contract_id": 1234567,
    "machine_id": 12,
    "host_id": 7,
    "gpu_name": "RTX 4090",
    "num_gpus": 1,
    "gpu_ram": 24564,
    "dph_base": 0.30,
    "dph_total": 0.3137,
    "min_bid": 0.12,
    "storage_cost": 0.15,
    "dlperf": 104.2,
    "dlperf_per_dphtotal": 332.2,
    "reliability2": 0.9973,
    "geolocation": "Sweden, SE",
    "duration": 864000.0,
    "verification": "verified",
    "rentable": True,
    "rented": False,
    "is_bid": False,
    "cuda_max_good": 12.4,
    "inet_up": None,
}
INSTANCE: dict[str, Any] = {
    "id": 312,
    "actual_status": "running",
    "cur_state": "running",
    "next_state": "running",
    "intended_status": "running",
    "label": "stoker:llm:0123456789ab",
    "template_id": None,
    "template_hash_id": "abcde12345",
    "image_uuid": "nvidia/cuda:11.0.3-devel-ubuntu18.04",
    "extra_env": [["DOG", "CAT"], ["-p 3000:3000", "1"]],
    "status_msg": "success, running",
    "public_ipaddr": "192.0.2.45",
    "ports": {
        "3000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "40123"}, {"HostIp": "::", "HostPort": "40123"}]
    },
    "direct_port_start": 40123,
    "direct_port_end": 40130,
    "machine_id": 12,
    "host_id": 7,
    "gpu_name": "RTX 4090",
    "num_gpus": 1,
    "dph_base": 0.3,
    "dph_total": 0.3137,
    "storage_total_cost": 0.0137,
    "start_date": 1668804745.1223178,
    "uptime_mins": None,
    "is_bid": False,
}
TEMPLATE: dict[str, Any] = {
    "id": 2048,
    "hash_id": "4e17788f74f075dd9aab7d0d4427968f",
    "name": "vLLM",
    "image": "vllm/vllm-openai",
    "tag": "latest",
    "env": "-e MODEL_ID=m -p 3000:3000",
    "onstart": "start.sh",
    "args_str": None,
    "runtype": "args",
    "extra_filters": '{"gpu_ram": {"gte": 24000}}',
    "recommended_disk_space": 40.0,
    "private": False,
}
