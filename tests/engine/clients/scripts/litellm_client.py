"""LiteLLM as a client, with the provider for servers that speak OpenAI's API."""

import asyncio
import io

import litellm
from report import (
    AUDIO,
    BASE_URL,
    ENDPOINT,
    KEY,
    MESSAGES,
    MODEL,
    SPEECH_BYTES,
    WEATHER,
    call,
    expect,
    raises,
    run,
    slow,
)

TO = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": KEY}


def ask(**options):
    return litellm.completion(**({"messages": MESSAGES} | TO | options))


@call("chat")
def _chat():
    expect(ask(max_tokens=4000).choices[0].message.content, "hello")
    expect(ask(model=f"openai/{ENDPOINT}").choices[0].message.content, "hello")


@call("completions")
def _completions():
    to = TO | {"model": f"text-completion-openai/{MODEL}"}
    expect(litellm.text_completion(prompt="hello", max_tokens=500, **to).choices[0].text, "hello")


@call("stream")
def _stream():
    words = [chunk.choices[0].delta.content for chunk in ask(stream=True)]
    expect([word for word in words if word], ["hel", "lo"])


@call("tools")
def _tools():
    asked = ask(tools=[WEATHER]).choices[0].message.tool_calls[0].function
    expect((asked.name, asked.arguments), ("weather", '{"city": "Bonn"}'))


@call("usage")
def _usage():
    expect(ask().usage.total_tokens, 4)
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    expect(chunks[-1].usage.total_tokens, 4)


@call("embeddings")
def _embeddings():
    expect(litellm.embedding(input=["x"], **TO).data[0]["embedding"], [0.5, 0.25])


@call("models")
def _models():
    # LiteLLM keeps only the host of the address and asks for /v1/models there.
    models = litellm.get_valid_models(
        check_provider_endpoint=True, custom_llm_provider="openai", api_base=BASE_URL, api_key=KEY
    )
    assert MODEL in models, models


@call("audio in")
def _audio_in():
    file = io.BytesIO(AUDIO)
    file.name = "a.mp3"
    expect(litellm.transcription(file=file, **TO).text, f"{len(AUDIO)} bytes")


@call("speech out")
def _speech_out():
    expect(len(litellm.speech(input="x", voice="a", **TO).content), SPEECH_BYTES)


@call("images")
def _images():
    expect(litellm.image_generation(prompt="x", **TO).data[0].b64_json, "aGk=")


@call("errors")
def _errors():
    fault = raises(litellm.NotFoundError, ask, model="openai/gpt-none")
    assert "does not exist" in fault.message, fault.message
    raises(litellm.AuthenticationError, ask, api_key="sk-wrong")


@call("cancel")
async def _cancel():
    stream = await litellm.acompletion(messages=slow("cancel"), stream=True, **TO)
    await anext(aiter(stream))
    await stream.aclose()


@call("timeout")
def _timeout():
    raises(litellm.Timeout, ask, messages=slow("timeout"), timeout=1, num_retries=0, max_retries=0)


@call("50 at once")
async def _many():
    asked = [litellm.acompletion(messages=MESSAGES, **TO) for _ in range(50)]
    expect({one.choices[0].message.content for one in await asyncio.gather(*asked)}, {"hello"})


run()
