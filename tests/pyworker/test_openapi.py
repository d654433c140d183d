"""`GET /openapi.json` needs no ticket, so its document is built only once."""

from stoker_pyworker import openapi


async def test_the_document_is_built_once(worker, monkeypatch):
    build, count = openapi.build_document, []

    def counted(*parts):
        count.append(1)
        return build(*parts)

    monkeypatch.setattr(openapi, "build_document", counted)
    answers = [await worker.client.get("/openapi.json") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[0].json() == worker.runtime.management.openapi_document()
    head = await worker.client.head("/openapi.json")
    assert (head.status_code, head.content) == (200, b"")
    assert len(count) == 2, "one for the clients and one for this test"
