"""Many requests of the official client, some concurrent: their results, and the number of workers used."""

import asyncio
import collections

from report import case, run_all, say, setting
from vastai import CoroutineServerless

ENGINE = setting("engine")


class Client(CoroutineServerless):
    SSL_CERT_URL = f"{ENGINE}/static/jvastai_root.cer"


@case
async def burst(client, endpoint):
    statuses, urls = collections.Counter(), set()
    turn = asyncio.Semaphore(setting("at_once"))

    async def one(number):
        async with turn:
            payload = {"tokens": 1, "number": number, "seconds": setting("seconds")}
            answer = await endpoint.request("/json", payload, cost=1, timeout=60)
            statuses[str(answer["status"])] += 1
            if statuses.total() == setting("at_once"):
                say(case="begun")
            urls.add(answer["url"])

    await asyncio.gather(*(one(number) for number in range(setting("requests"))))
    return {"statuses": statuses, "workers": len(urls)}


async def main():
    async with Client(
        setting("key"), autoscaler_url=ENGINE, webserver_url=ENGINE, max_poll_interval=1.0
    ) as client:
        await run_all(client, await client.get_endpoint(setting("endpoint")))


if __name__ == "__main__":
    asyncio.run(main())
