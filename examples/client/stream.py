"""Print tokens as they arrive.

Set STOKER_URL and STOKER_API_KEY, then: python stream.py
"""

import asyncio

import stoker


async def main() -> None:
    async with stoker.Serverless() as client:
        endpoint = await client.get_endpoint("llm")
        payload = {"prompt": "The stoker", "max_tokens": 32, "stream": True}
        async with endpoint.stream("/v1/completions", payload, cost=32) as stream:
            async for event in stream:
                print(event.json()["choices"][0]["text"], end="", flush=True)
        print(
            f"\nfirst byte after {stream.first_byte.total_s:.3f} s, end after {stream.timing.total_s:.3f} s"
        )


asyncio.run(main())
