"""One request and its timing.

Set STOKER_URL and STOKER_API_KEY, then: python one_request.py
"""

import asyncio

import stoker


async def main() -> None:
    async with stoker.Serverless() as client:
        endpoint = await client.get_endpoint("llm")
        answer = await endpoint.request(
            "/v1/completions",
            {"prompt": "The stoker", "max_tokens": 32},
            cost=32,  # tokens: the unit of the worker's benchmark
            timeout=300,
            on_wait=lambda wait: print(f"waiting: {wait}"),
        )
        print(answer.json())
        print(f"worker {answer.worker_id}: {answer.timing}")


asyncio.run(main())
