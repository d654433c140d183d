"""A forced delete: for an endpoint whose workflow makes no progress, and for a person in a hurry."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError

from controller.controller import LIST_LAG_SECONDS
from stoker_wire.control import RELEASE_WORKFLOW_TYPE, Release, Released
from workflows import options
from workflows.sweep.sweep import EndEndpoint, SweepActivities, destroy_instance, end_endpoint

SECONDS_MAX = 900.0
"""Then it ends and names what is left; the sweep goes on with it."""
ROUND_SECONDS = 10.0
_FAULT_CHARS_MAX = 300


@workflow.defn(name=RELEASE_WORKFLOW_TYPE)
class ReleaseWorkflow:
    """Terminates one endpoint's workflow and destroys every instance that carries its label.

    Nothing is drained. The instances are listed before the workflow is terminated: a marketplace that does not answer
    changes nothing.
    """

    @workflow.init
    def __init__(self, asked: Release) -> None:
        self._name = asked.endpoint_name
        self._reason = asked.reason
        self._ended = False
        self._found: list[int] = []
        self._left: tuple[int, ...] = ()
        self._fault = ""

    @workflow.run
    async def run(self, asked: Release) -> Released:
        """Answers what was done and what is left."""
        if not (await self._list() and await self._end()):
            return self.so_far()
        # A create that was under way may show up only now.
        await workflow.sleep(LIST_LAG_SECONDS, summary="a listing may lag")
        began = workflow.time()
        while await self._list() and self._left and workflow.time() - began < SECONDS_MAX:
            await asyncio.gather(*(self._destroy(each) for each in self._left))
            await self._list()
            if self._left:
                await workflow.sleep(ROUND_SECONDS, summary="until the next round")
        if not self._left:
            self._fault = ""
        return self.so_far()

    @workflow.query(name="released", description="what was done so far")
    def so_far(self) -> Released:
        """The instances that are destroyed, and those that are left."""
        left = set(self._left)
        return Released(
            endpoint_name=self._name,
            ended=self._ended,
            destroyed=tuple(each for each in self._found if each not in left) if self._ended else (),
            left=self._left,
            fault=self._fault,
        )

    async def _list(self) -> bool:
        try:
            self._left = await workflow.execute_activity_method(
                SweepActivities.instances_of, self._name, **options.list_options("a forced delete")
            )
        except ActivityError as error:
            self._fault = f"the marketplace could not be listed: {error.cause or error}"[:_FAULT_CHARS_MAX]
            return False
        known = set(self._found)
        self._found += [each for each in self._left if each not in known]
        return True

    async def _end(self) -> bool:
        fault = await end_endpoint(EndEndpoint(name=self._name, reason=self._reason))
        if fault:
            self._fault = f"its workflow could not be terminated: {fault}"[:_FAULT_CHARS_MAX]
        self._ended = not fault
        return self._ended

    async def _destroy(self, instance_id: int) -> None:
        fault = await destroy_instance(instance_id, "by a forced delete")
        if fault:
            self._fault = f"instance {instance_id}: {fault}"[:_FAULT_CHARS_MAX]
