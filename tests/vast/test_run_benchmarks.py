"""`vastai run benchmarks` from its first search to its last delete, with an official worker under test."""

from tests.vast.stage.calls import call
from tests.vast.stage.deployment import Benchmarks


@call("cli-benchmarks", "benchmarks", "search-asks", "templates", "instance-show")
def test_a_template_is_measured_and_everything_is_given_back(benchmarks: Benchmarks) -> None:
    (row,) = benchmarks.rows()
    assert row["status"] == "ok"
    assert row["measured_perf"] > 0
    assert row["rental_dph"] == 0.1
    assert row["perf_per_dollar"] == row["measured_perf"] / row["rental_dph"]
    left = benchmarks.deployment.api("GET", "/api/v0/endptjobs/")["results"]
    names = [one["endpoint_name"] for one in left if one["endpoint_state"] != "deleting"]
    assert not [name for name in names if name.startswith("benchmark ")]
