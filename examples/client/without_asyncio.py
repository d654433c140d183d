"""The same client for a program without an event loop.

Set STOKER_URL and STOKER_API_KEY, then: python without_asyncio.py
"""

import stoker

with stoker.SyncServerless() as client:
    endpoint = client.get_endpoint("llm")
    job = endpoint.submit("/v1/completions", {"prompt": "In the background", "max_tokens": 16}, cost=16)
    answer = endpoint.request("/v1/completions", {"prompt": "Meanwhile", "max_tokens": 16}, cost=16)
    print(answer.json()["choices"][0]["text"])
    print(job.status, job.result(timeout=300).json()["choices"][0]["text"])
