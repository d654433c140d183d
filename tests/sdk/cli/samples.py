"""Answers of the console API for the tests of the command."""

STATUS = {
    "state": "active",
    "workers": {"IDLE": 1, "STOPPED": 2},
    "targets": {"hot_ready": 100.0, "hot_wanted": 90.0, "queue_seconds": 1.5},
    "load_per_second": 42.0,
    "queued_requests": 3,
    "dollars_per_hour": 0.31,
    "dollars": 1.2,
    "waits": [{"reason": "the budget is used up", "until": 1763906000.0}],
}
WORKER = {
    "id": 41,
    "status": "idle",
    "cur_load": 5.0,
    "perf": 9.0,
    "measured_perf": 8.5,
    "reqs_working": 1,
    "gpu_name": "H100",
    "dph_total": 2.5,
    "url": "http://w:1",
}
DECISION = {"at": 1763906000.0, "kind": "recruit", "subject": "0a1b", "reason": "load 42/s [needs] more"}
ADVICE = {
    "active": True,
    "config": {"target_util": 0.8, "error_budget": 0.02},
    "since": 1763906000.0,
    "live": {"hot": 6, "booting": 1, "cold": 2, "dollars_per_hour": 2.5, "hot_mean": None},
    "live_imagined": {
        "hot": 6,
        "hot_mean": 6.2,
        "dollars_per_hour_mean": 2.51,
        "late_share": 0.001,
        "starts": 1,
        "creates": 0,
        "stops": 2,
    },
    "advised": {
        "hot": 4,
        "hot_mean": 4.1,
        "dollars_per_hour_mean": 1.71,
        "late_share": 0.02,
        "starts": 0,
        "creates": 0,
        "stops": 3,
    },
    "summary": "over 1.0 h, in imagination: …",
}
HOSTS = {
    "blocked": [
        {"machine_id": 17, "until": 1763906000.0, "reason": "Xid [79]", "workergroup_id": 5, "failed_at": 1.0}
    ],
    "not_to_blame": [{"machine_id": 18, "until": 1763906000.0, "reason": "CUDA error", "workergroup_id": 5}],
    "paused": [{"subject": "workergroup 5", "until": 1763906000.0, "reason": "workergroup 5 pauses"}],
}
GROUP = {"id": 5, "endpoint_id": 7, "endpoint_name": "llm", "template_hash": "abc", "search_params": "x=1"}

HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\r[red]x[/red][link=http://evil]y[/link]:smile:\nfaked line"
)
"""Text that would change a terminal's title, screen and colours, reorder text, and fake markup and lines."""
