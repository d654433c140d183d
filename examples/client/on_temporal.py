"""An endpoint directly on Temporal, without an engine. Needs: pip install "stoker[temporal]"

Set TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE and TEMPLATE_HASH, then: python on_temporal.py
"""

import asyncio
import os

from stoker.control import Control
from stoker_wire.endpoint import EndpointConfig
from stoker_wire.workergroup import Workergroup


async def main() -> None:
    control = await Control.connect()
    await control.create_endpoint(
        "my-endpoint",
        EndpointConfig(max_workers=4, min_workers=1, min_load=0, dollars_per_hour_max=2.0),
        workergroups=[Workergroup(id=1, template_hash=os.environ["TEMPLATE_HASH"])],
    )
    print(await control.update_config("my-endpoint", target_util=0.8))
    for decision in await control.decisions("my-endpoint"):
        print(decision["kind"], decision["reason"])


asyncio.run(main())
