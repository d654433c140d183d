"""`GET /openapi.json` is open to strangers: what it costs is paid once."""

from stoker_pyworker import openapi


async def test_the_document_is_made_once_for_all_who_ask(worker, monkeypatch):
    made, count = openapi.made, []

    def counted(*parts):
        count.append(1)
        return made(*parts)

    monkeypatch.setattr(openapi, "made", counted)
    answers = [await worker.client.get("/openapi.json") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[0].json() == worker.runtime.management.openapi_document()
    head = await worker.client.head("/openapi.json")
    assert (head.status_code, head.content) == (200, b"")
    assert len(count) == 2, "one for those who asked and one for this test"
