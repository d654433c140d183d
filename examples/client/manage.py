"""Create an endpoint with a workergroup and print its state. Delete it with: stoker endpoints delete my-endpoint

Set STOKER_URL, STOKER_API_KEY and TEMPLATE_HASH, then: python manage.py
"""

import asyncio
import os

import stoker


async def main() -> None:
    async with stoker.Serverless() as client:
        try:
            record = await client.endpoints.get("my-endpoint")
        except stoker.EndpointNotFound:
            record = await client.endpoints.create(
                "my-endpoint", max_workers=4, min_workers=1, min_load=0, inactivity_timeout=300
            )
            await client.workergroups.create(
                "my-endpoint",
                template_hash=os.environ["TEMPLATE_HASH"],
                search_params="gpu_name=RTX_4090 num_gpus=1 dph_total<0.6",
            )
        print(record)
        for worker in await client.endpoints.workers("my-endpoint"):
            print(worker.id, worker.status, worker.measured_perf)
        for decision in await client.endpoints.decisions("my-endpoint", tail=10):
            print(decision["kind"], decision["reason"])


asyncio.run(main())
