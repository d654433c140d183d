"""The official synchronous SDK (`VastAI`) against the console, the engine and the marketplace."""

import json
import sys
import time
import traceback

from vastai import VastAI

SETTINGS = json.loads(sys.argv[1])
CASES = []


def case(function):
    CASES.append(function)
    return function


@case
def an_endpoint_lives_and_dies(here, market):
    name = f"sync-{time.time_ns()}"
    made = here.create_endpoint(endpoint_name=name, cold_workers=0, max_workers=0)
    number = made["result"]
    shown = {one["id"]: one for one in here.show_endpoints()}[number]
    changed = here.update_endpoint(id=number, max_workers=0, target_util=0.5)
    after = {one["id"]: one for one in here.show_endpoints()}[number]
    group = here.create_workergroup(
        endpoint_id=number, template_hash=SETTINGS["template"], search_params="num_gpus=1"
    )
    groups = [one for one in here.show_workergroups() if one["endpoint_id"] == number]
    regrouped = here.update_workergroup(id=group["id"], search_params="num_gpus>=1", gpu_ram=1)
    regroups = [one for one in here.show_workergroups() if one["endpoint_id"] == number]
    logs = here.get_endpt_logs(id=number, tail=50)
    group_logs = here.get_wrkgrp_logs(id=group["id"])
    rolled = here.update_workers(id=group["id"])
    workers = here.get_endpoint_workers(id=number)
    ungrouped = here.delete_workergroup(id=group["id"])
    gone = here.delete_endpoint(id=number)
    return {
        "created": made["success"],
        "shown": [shown["endpoint_name"] == name, "api_key" in shown, shown["target_util"]],
        "changed": [changed["success"], after["target_util"]],
        "group": [group["success"], groups[0]["id"] == group["id"], groups[0]["search_params"]],
        "regrouped": [regrouped["success"], regroups[0]["search_params"], regroups[0]["gpu_ram"]],
        "logs": [sorted(logs), "config" in logs["debug"] or bool(logs["info1"]), sorted(group_logs)],
        "rolled": rolled["success"],
        "workers": workers,
        "deleted": [ungrouped["success"], gone["success"]],
    }


@case
def an_unknown_endpoint_is_an_error(here, market):
    try:
        here.delete_endpoint(id=4242)
    except Exception as fault:  # noqa: BLE001 - whatever it is, it is what the test asks about
        return [
            fault.response.status_code,
            fault.response.json()["success"],
            bool(fault.response.json()["msg"]),
        ]


@case
def a_wrong_key_is_refused(here, market):
    try:
        VastAI(api_key="not-a-key-of-anyone", server_url=SETTINGS["engine"]).show_endpoints()
    except Exception as fault:  # noqa: BLE001 - whatever it is, it is what the test asks about
        return fault.response.status_code


@case
def the_marketplace_is_searched(here, market):
    offers = market.search_offers(query="num_gpus=1 dph<10", order="dph")
    narrow = market.search_offers(query="gpu_name=NO_SUCH_GPU")
    asks = market.search_offers_new(query="num_gpus=1", limit=1)
    templates = market.search_templates(query=f"hash_id={SETTINGS['template']}")
    return {
        "offers": len(offers) > 0,
        "kind": offers[0]["gpu_name"],
        "narrow": narrow,
        "asks": len(asks["offers"] if isinstance(asks, dict) else asks) == 1,
        "templates": [one["hash_id"] for one in templates],
    }


@case
def an_instance_lives_and_dies(here, market):
    offer = market.search_offers(query="num_gpus=1", order="dph")[0]
    made = market.create_instance(
        offer["id"],
        image="host",
        disk=1,
        label="by-hand",
        onstart_cmd="sleep 1000",
        env="-e A=b -p 3000:3000",
    )
    number = made["new_contract"]

    def wait(status):
        deadline = time.monotonic() + 20
        while (one := market.show_instance(id=number))["actual_status"] != status:
            assert time.monotonic() < deadline, one
            time.sleep(0.1)
        return one

    one = wait("running")
    listed = [row["id"] for row in market.show_instances()]
    stopped = market.stop_instance(id=number)
    wait("stopped")
    started = market.start_instance(id=number)
    wait("running")
    labelled = market.label_instance(id=number, label="other")
    label = market.show_instance(id=number)["label"]
    rebooted = market.reboot_instance(id=number)
    logs = market.logs(number)
    destroyed = market.destroy_instance(id=number)
    return {
        "made": made["success"],
        "label": [one["label"], label],
        "env": dict(one["extra_env"])["A"],
        "listed": number in listed,
        "answers": [bool(x["success"]) for x in (stopped, started, labelled, rebooted, destroyed)],
        "logs": isinstance(logs, (str, dict)),
        "gone": number not in [row["id"] for row in market.show_instances()],
    }


@case
def an_interruptible_instance(here, market):
    offer = market.search_offers(query="num_gpus=1", type="bid")[0]
    made = market.create_instance(
        offer["id"],
        image="host",
        disk=1,
        label="bid-by-hand",
        onstart_cmd="sleep 1000",
        price=offer["min_bid"] * 2,
    )
    number = made["new_contract"]
    one = market.show_instance(id=number)
    bid = market.change_bid(id=number, price=offer["min_bid"] * 3)
    recycled = market.recycle_instance(id=number)
    template = market.search_templates(query=f"hash_id={SETTINGS['template']}")[0]
    changed = market.update_instance(id=number, template_hash_id=template["hash_id"])
    stopped = market.stop_instances([number])
    destroyed = market.destroy_instances([number])
    return {
        "is_bid": one["is_bid"],
        "answers": [bool(x["success"]) for x in (bid, recycled, changed, stopped, destroyed)],
        "template": changed["updated_instance"]["template_hash_id"],
        "gone": number not in [row["id"] for row in market.show_instances()],
    }


if __name__ == "__main__":
    here = VastAI(api_key=SETTINGS["key"], server_url=SETTINGS["engine"])
    market = VastAI(api_key=SETTINGS["market_key"], server_url=SETTINGS["market"])
    for function in CASES:
        line = {"case": function.__name__, "ok": True}
        try:
            line["value"] = function(here, market)
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is what the test asks about
            line |= {"ok": False, "error": repr(fault), "trace": traceback.format_exc()[-3000:]}
        print(json.dumps(line, default=str), flush=True)
