"""Many requests with bounded concurrency; answers and errors in order.

Set STOKER_URL and STOKER_API_KEY, then: python many.py
"""

import asyncio

import stoker


async def main() -> None:
    requests = (
        stoker.Request(route="/v1/completions", payload={"prompt": f"Chapter {n}", "max_tokens": 16}, cost=16)
        for n in range(200)
    )
    async with stoker.Serverless() as client:
        endpoint = await client.get_endpoint("llm")
        async for answer in endpoint.map(requests, concurrency=50, return_errors=True):
            if isinstance(answer, stoker.StokerError):
                print(f"failed: {answer}")
            else:
                print(answer.json()["choices"][0]["text"])


asyncio.run(main())
