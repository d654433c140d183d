"""LangChain's chat model, completion model and embeddings. It has no calls for models, audio and images."""

import asyncio

import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from report import ENDPOINT, MODEL, call, expect, raises, run

chat = ChatOpenAI(model=MODEL, max_tokens=4000)


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return city


@call("chat")
def _chat():
    expect(chat.invoke("hello").content, "hello")
    expect(ChatOpenAI(model=ENDPOINT).invoke("hello").content, "hello")


@call("completions")
def _completions():
    expect(OpenAI(model=MODEL, max_tokens=500).invoke("hello"), "hello")


@call("stream")
def _stream():
    expect([chunk.content for chunk in chat.stream("hello") if chunk.content], ["hel", "lo"])


@call("tools")
def _tools():
    asked = chat.bind_tools([weather]).invoke("hello").tool_calls[0]
    expect((asked["name"], asked["args"]), ("weather", {"city": "Bonn"}))


@call("usage")
def _usage():
    expect(chat.invoke("hello").usage_metadata["total_tokens"], 4)
    streamed = ChatOpenAI(model=MODEL, stream_usage=True).stream("hello")
    expect(max(chunk.usage_metadata["total_tokens"] for chunk in streamed if chunk.usage_metadata), 4)


@call("embeddings")
def _embeddings():
    # The check counts tokens with OpenAI's tokenizer, which belongs to OpenAI's models.
    expect(OpenAIEmbeddings(model=MODEL, check_embedding_ctx_length=False).embed_query("x"), [0.5, 0.25])


@call("errors")
def _errors():
    fault = raises(openai.NotFoundError, ChatOpenAI(model="gpt-none").invoke, "hello")
    assert "does not exist" in fault.message, fault.message
    fault = raises(openai.AuthenticationError, ChatOpenAI(model=MODEL, api_key="sk-wrong").invoke, "hello")
    expect(fault.code, "auth_error")


@call("cancel")
def _cancel():
    stream = chat.stream("slow cancel")
    next(stream)
    stream.close()


@call("timeout")
def _timeout():
    hurried = ChatOpenAI(model=MODEL, timeout=1, max_retries=0)
    raises(openai.APITimeoutError, hurried.invoke, "slow timeout")


@call("50 at once")
async def _many():
    answers = await asyncio.gather(*(chat.ainvoke("hello") for _ in range(50)))
    expect({answer.content for answer in answers}, {"hello"})


run()
