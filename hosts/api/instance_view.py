"""Instances as rows of the API."""

from typing import Any

from hosts.agent.environment import external_ports
from hosts.agent.supervisor import InstanceSupervisor
from hosts.catalog.catalog import Catalog
from hosts.settings import PORTS_PER_INSTANCE


def instance_row(one: InstanceSupervisor, catalog: Catalog) -> dict[str, Any]:
    """An instance with all columns. `extra_env` holds the variables that the owner sent, as in the hosted API."""
    record, settings = one.record, one.resources.settings
    offer = {
        key: value
        for key, value in catalog.offer(
            one.slot, bid=record.is_bid, disk_gb=record.disk_gb, rented=True
        ).items()
        if key not in ("id", "ask_contract_id", "rentable", "rented", "dph_base", "dph_total", "end_date")
    }
    ports = external_ports(record) if record.port_base else {}
    return {
        **offer,
        "id": record.id,
        "ask_contract_id": record.offer_id,
        "label": record.label,
        "actual_status": record.actual,
        "intended_status": record.intended,
        "cur_state": "running"
        if one.process is not None
        else ("unloaded" if record.actual is None else "stopped"),
        "next_state": record.intended,
        "status_msg": record.status_msg,
        "start_date": record.start_date or record.created_at,
        "public_ipaddr": settings.public_ip,
        "ports": {
            f"{inside}/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(outside)}]
            for inside, outside in ports.items()
        },
        "direct_port_count": PORTS_PER_INSTANCE - 1,
        "direct_port_start": record.port_base or -1,
        "direct_port_end": record.port_base + PORTS_PER_INSTANCE - 2 if record.port_base else -1,
        "dph_base": record.dollars_per_hour,
        "dph_total": record.dollars_per_hour_total,
        "storage_total_cost": record.storage_dollars_per_hour,
        "disk_space": record.disk_gb,
        "is_bid": record.is_bid,
        "template_id": record.template_id,
        "template_hash_id": record.template_hash,
        "image_uuid": record.image,
        "image_runtype": record.runtype,
        "image_args": list(record.args),
        "onstart": record.onstart,
        "extra_env": [[name, value] for name, value in record.env.items()],
    }
