"""An instance has the environment of a rented machine, without the marketplace's own variables."""

import pytest


async def env_of(bench, instance_id: int) -> dict[str, str]:
    log = await bench.printed(instance_id, "END_OF_ENV")
    lines = log.split("BEGIN_OF_ENV\n")[-1].split("END_OF_ENV")[0].splitlines()
    return dict(line.split("=", 1) for line in lines)


SHOW = "echo BEGIN_OF_ENV; env; echo END_OF_ENV; exec sleep 1000"


async def test_the_environment_has_the_instances_id_and_address(bench):
    instance_id = await bench.rent(onstart=SHOW, env={"-p 3000:3000": "1"})
    env = await env_of(bench, instance_id)
    port = env["WORKER_PORT"]
    assert env["CONTAINER_ID"] == str(instance_id)
    assert env["PUBLIC_IPADDR"] == "127.0.0.1"
    assert env["GPU_COUNT"] == "1"
    assert env["VAST_TCP_PORT_3000"] == env[f"VAST_TCP_PORT_{port}"] == port
    assert env["MODEL_PORT"] == str(int(port) + 2)
    assert len(env["CONTAINER_API_KEY"]) > 20
    row = await bench.row(instance_id)
    assert row["ports"]["3000/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": port}]
    assert "-p 3000:3000" not in env


async def test_the_environment_of_the_marketplace_does_not_leak(bench, monkeypatch):
    monkeypatch.setenv("MARKET_SECRET", "not for instances")
    env = await env_of(bench, await bench.rent(onstart=SHOW))
    assert "MARKET_SECRET" not in env
    assert "not for instances" not in env.values()


async def test_launch_wins_over_template_and_the_host_over_both(bench, tools):
    response = await bench.http.post(
        "/api/v0/template/",
        json={"name": "t", "onstart": SHOW, "env": "-e FROM=template -e KEPT=template -e WORKER_PORT=3000"},
    )
    hash_id = response.json()["template"]["hash_id"]
    instance_id = await bench.rent(
        template_hash=hash_id, env={"FROM": "launch", "CONTAINER_ID": "1", "TEXT": "two words = 'odd' $x"}
    )
    env = await env_of(bench, instance_id)
    assert (env["FROM"], env["KEPT"]) == ("launch", "template")
    assert env["TEXT"] == "two words = 'odd' $x"
    assert env["CONTAINER_ID"] == str(instance_id)
    assert env["WORKER_PORT"] != "3000"


async def test_settings_env_reaches_every_instance_and_templates_override_it(tmp_path, tools):
    settings = tools.settings_for(tmp_path / "m", env={"FROM": "image", "CODE": "/code"})
    async with tools.running(settings) as bench:
        env = await env_of(bench, await bench.rent(onstart=SHOW, env={"FROM": "launch"}))
        assert (env["FROM"], env["CODE"]) == ("launch", "/code")


async def test_further_published_ports_get_ports_of_their_own(bench):
    instance_id = await bench.rent(
        onstart=SHOW, env={"-p 3000:3000": "1", "-p 8080:8080": "1", "-p 9000:9000/tcp": "1"}
    )
    env = await env_of(bench, instance_id)
    outside = {
        env["VAST_TCP_PORT_3000"],
        env["VAST_TCP_PORT_8080"],
        env["VAST_TCP_PORT_9000"],
        env["MODEL_PORT"],
    }
    assert len(outside) == 4
    block = int(env["WORKER_PORT"])
    assert all(block <= int(port) < block + 9 for port in outside)


async def test_the_ports_of_two_instances_do_not_overlap(bench):
    one, two = [await env_of(bench, await bench.rent(onstart=SHOW)) for _ in range(2)]
    assert abs(int(one["WORKER_PORT"]) - int(two["WORKER_PORT"])) >= 10


async def test_args_are_run_without_a_start_command(bench):
    instance_id = await bench.rent(args=("bash", "-c", "echo got '$1' $1; exec sleep 1000", "x", "a  b"))
    assert "got $1 a b" in await bench.printed(instance_id, "got")


async def test_args_follow_the_start_command(bench):
    instance_id = await bench.rent(onstart='printf "<%s>" "$@"; echo; exec sleep 1000', args=("a b", "c"))
    await bench.printed(instance_id, "<a b><c>")


async def test_the_instances_own_key_opens_that_instance_only(bench):
    one, two = await bench.rent(), await bench.rent()
    key = bench.host.instances[one].record.api_key
    bearer = {"Authorization": f"Bearer {key}"}
    assert (await bench.http.get(f"/api/v0/instances/{one}/", headers=bearer)).status_code == 200
    for path in (f"/api/v0/instances/{two}/", "/api/v0/instances/", "/api/v1/instances/", "/host/charges/"):
        assert (await bench.http.get(path, headers=bearer)).status_code == 401


@pytest.mark.parametrize(
    "env", [{"A=B": "x"}, {"": "x"}, {"A": "x\0y"}, {"A": {"deep": 1}}, "-e 'open", ["A=1"]]
)
async def test_an_environment_that_cannot_be_set_is_refused_without_repeating_it(bench, env):
    offer = await bench.offer()
    response = await bench.http.put(
        f"/api/v0/asks/{offer}/", json={"template_hash_id": "sleeper", "disk": 1, "env": env}
    )
    assert (response.status_code, response.json()["error"]) == (400, "invalid_args")
    assert "deep" not in response.text
    assert "'open" not in response.text
