"""Port blocks: free when allocated, and reserved against other marketplaces."""

import socket

import pytest

from hosts.catalog.ports import NoPorts, Ports


def free_range(blocks: int) -> int:
    """The first port of a free range."""
    for base in range(11000, 20000, 10 * blocks):
        ports = Ports(base, base + 10 * blocks - 1, start=0)
        try:
            for _ in range(blocks):
                ports.take()
        except NoPorts:
            continue
        finally:
            ports.close()
        return base
    raise AssertionError("no free ports on this machine")


def test_blocks_do_not_overlap_and_run_out():
    base = free_range(3)
    ports = Ports(base, base + 34, start=1)
    taken = [ports.take() for _ in range(3)]
    assert taken == [base + 10, base + 20, base]
    with pytest.raises(NoPorts, match="port_min"):
        ports.take()
    ports.free(base + 20)
    assert ports.take(base) == base + 20
    ports.close()


def test_a_block_with_a_listener_in_it_is_not_allocated():
    base = free_range(2)
    ports = Ports(base, base + 19, start=0)
    with socket.create_server(("127.0.0.1", base + 4)):
        assert ports.take() == base + 10
    ports.close()


def test_two_marketplaces_never_allocate_the_same_block():
    base = free_range(2)
    one, two = Ports(base, base + 19, start=0), Ports(base, base + 19, start=0)
    assert {one.take(), two.take()} == {base, base + 10}
    one.close()
    two.close()


def test_the_preferred_block_is_returned_if_it_is_free():
    base = free_range(2)
    ports = Ports(base, base + 19, start=0)
    assert ports.take(base + 10) == base + 10
    ports.close()


async def test_an_instance_keeps_its_ports_over_a_stop(bench):
    instance_id = await bench.rent()
    before = (await bench.reaches(instance_id, "running")).ports
    await bench.market.stop(instance_id)
    await bench.reaches(instance_id, "stopped")
    await bench.market.start(instance_id)
    assert (await bench.reaches(instance_id, "running")).ports == before


async def test_the_status_of_an_instance_without_ports_names_the_reason(tmp_path, tools):
    base = free_range(1)
    settings = tools.settings_for(tmp_path / "m", port_min=base, port_max=base + 9)
    async with tools.running(settings) as bench:
        await bench.reaches(await bench.rent(), "running")
        late = await bench.reaches(await bench.rent(), "exited")
        assert "port_min" in late.status_msg
