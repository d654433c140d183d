import gzip

import pytest

from simulation.trace import Trace, TraceFault, read_trace


def test_an_input_token_weighs_a_tenth_of_an_output_token(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("t_s,input_tokens,output_tokens\n1.5,100,20\n0.5,0,7\n")
    trace = read_trace(path)
    assert trace.times == (0.5, 1.5)
    assert trace.works == pytest.approx((7.0, 30.0))
    assert trace.name == "some"


def test_a_gzipped_trace_and_a_request_log_read_alike(tmp_path):
    csv, log = tmp_path / "a.csv.gz", tmp_path / "a.jsonl"
    csv.write_bytes(gzip.compress(b"t_s,work\n0,5\n2,6\n"))
    log.write_text('{"at": 1700000000.0, "cost": 5}\n{"at": 1700000002.0, "cost": 6, "worker": 3}\n')
    assert (read_trace(csv).times, read_trace(csv).works) == (read_trace(log).times, read_trace(log).works)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "expected the columns t_s,input_tokens,output_tokens (or t_s,work), got a, b"),
        ("t_s,work\nsoon,2\n", "line 2: could not convert string to float: 'soon'"),
        ("t_s,work\n1,-2\n", "expected a time and a work of at least 0, got 1 and -2"),
        ("t_s,work\n", "has no requests"),
        (
            "t_s,work\n100,1\n200,1\n7,1\n",
            "line 4: t_s goes back from 200 to 7; expected the requests in the order",
        ),
        (
            '{"at": 1, "cost": 2, "endpoint": "a"}\n{"at": 1, "cost": 2, "endpoint": "b"}\n',
            "has requests of 2 endpoints (a, b)",
        ),
        ('{"at": 1}\n', "line 1: expected `at` (or `arrived_at`) and `cost`, got ['at']"),
        ('{"at": 1, "cost": 1' + "0" * 400 + "}", "line 1: int too large to convert to float"),
        ('{"at": 1, "cost": 2}\n{', "line 2: expected a JSON object per line"),
    ],
)
def test_a_file_that_is_no_trace_says_what_was_expected(tmp_path, text, said):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(TraceFault) as fault:
        read_trace(path)
    assert said in str(fault.value)


def test_scaling_keeps_arrivals_and_parts_lose_none():
    trace = Trace.of("t", [(float(n), 3.0) for n in range(100)], seconds=100.0)
    assert trace.scaled(mean_load=12.0).mean_load == pytest.approx(12.0)
    first, second = trace.part(0.0, 30.0), trace.part(30.0, 101.0)
    assert (len(first), len(second)) == (30, 70)
    assert second.times[0] == 0.0


def test_a_request_log_is_read_for_one_endpoint_and_counts_each_request_once(tmp_path):
    path = tmp_path / "requests.jsonl"
    path.write_text(
        '{"at": 1700000005.0, "endpoint": "llm", "cost": 5, "outcome": "done"}\n'
        '{"at": 1700000000.0, "endpoint": "llm", "cost": 6, "outcome": "expired"}\n'
        '{"at": 1700000001.0, "endpoint": "llm", "cost": 6, "outcome": "done", "again": true}\n'
        '{"at": 1700000002.0, "endpoint": "image", "cost": 7, "outcome": "done"}\n'
    )
    trace = read_trace(path, "llm")
    assert (trace.times, trace.works) == ((0.0, 5.0), (6.0, 5.0))
    with pytest.raises(TraceFault, match=r"has no request of endpoint 'lm'; it has those of: image, llm"):
        read_trace(path, "lm")
