"""A session: requests that need the state of earlier ones on the same worker.

Set STOKER_URL and STOKER_API_KEY, then: python session.py
"""

import asyncio

import stoker


async def main() -> None:
    async with stoker.Serverless() as client:
        endpoint = await client.get_endpoint("llm")
        # the session occupies the worker with `cost` until the block ends or 60 s after the last request
        async with endpoint.session(cost=100, lifetime=60) as session:
            for prompt in ("First the coal,", "then the fire,"):
                answer = await session.request("/v1/completions", {"prompt": prompt, "max_tokens": 16})
                print(answer.json()["choices"][0]["text"])


asyncio.run(main())
