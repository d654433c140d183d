"""A state book for tests of the controller: one endpoint without load, at `NOW`."""

from controller.state import EndpointStateBook
from policy.state.worker import Worker
from stoker_wire.control import EndpointSpec
from stoker_wire.workergroup import Workergroup
from tests.policy.builders import NOW, endpoint


def a_book(*workers: Worker, groups: tuple[Workergroup, ...] = (), **config: object) -> EndpointStateBook:
    """The state of an endpoint that is 1000 s old."""
    spec = EndpointSpec(
        endpoint_name="llm",
        endpoint_id=3,
        config=endpoint(**config),
        workergroups=groups,
        created_at=NOW - 1000,
    )
    book = EndpointStateBook(spec)
    book.record.workers = {worker.launch_id: worker for worker in workers}
    return book


def reasons(book: EndpointStateBook) -> list[str]:
    """The reasons in the decision log, oldest first."""
    return [line.reason for line in book.log.lines]
