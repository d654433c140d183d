"""OpenAI's Python package."""

import asyncio

import openai
from report import AUDIO, ENDPOINT, MESSAGES, MODEL, SPEECH_BYTES, WEATHER, call, expect, raises, run, slow

client = openai.OpenAI()
chat = client.chat.completions


@call("chat")
def _chat():
    answer = chat.create(model=MODEL, messages=MESSAGES, max_tokens=4000)
    expect(answer.choices[0].message.content, "hello")
    expect(chat.create(model=ENDPOINT, messages=MESSAGES).model, MODEL)


@call("completions")
def _completions():
    expect(client.completions.create(model=MODEL, prompt="hello", max_tokens=500).choices[0].text, "hello")


@call("stream")
def _stream():
    words = [
        chunk.choices[0].delta.content for chunk in chat.create(model=MODEL, messages=MESSAGES, stream=True)
    ]
    expect(words, ["hel", "lo"])
    words = [
        chunk.choices[0].text for chunk in client.completions.create(model=MODEL, prompt="x", stream=True)
    ]
    expect(words, ["hel", "lo"])


@call("tools")
def _tools():
    answer = chat.create(model=MODEL, messages=MESSAGES, tools=[WEATHER])
    asked = answer.choices[0].message.tool_calls[0].function
    expect((asked.name, asked.arguments), ("weather", '{"city": "Bonn"}'))


@call("usage")
def _usage():
    expect(chat.create(model=MODEL, messages=MESSAGES).usage.total_tokens, 4)
    options = {"include_usage": True}
    chunks = list(chat.create(model=MODEL, messages=MESSAGES, stream=True, stream_options=options))
    expect(chunks[-1].usage.total_tokens, 4)


@call("embeddings")
def _embeddings():
    expect(client.embeddings.create(model=MODEL, input="x").data[0].embedding, [0.5, 0.25])


@call("models")
def _models():
    expect([model.id for model in client.models.list()], [MODEL])
    expect(client.models.retrieve(MODEL).id, MODEL)


@call("audio in")
def _audio_in():
    text = client.audio.transcriptions.create(model=MODEL, file=("a.mp3", AUDIO)).text
    expect(text, f"{len(AUDIO)} bytes")


@call("speech out")
def _speech_out():
    expect(len(client.audio.speech.create(model=MODEL, voice="a", input="x").content), SPEECH_BYTES)


@call("images")
def _images():
    expect(client.images.generate(model=MODEL, prompt="x").data[0].b64_json, "aGk=")


@call("errors")
def _errors():
    fault = raises(openai.NotFoundError, chat.create, model="gpt-none", messages=MESSAGES)
    assert "does not exist" in fault.message, fault.message
    fault = raises(openai.AuthenticationError, client.with_options(api_key="sk-wrong").models.list)
    expect(fault.code, "auth_error")


@call("cancel")
def _cancel():
    stream = chat.create(model=MODEL, messages=slow("cancel"), stream=True)
    next(iter(stream))
    stream.close()


@call("timeout")
def _timeout():
    hurried = client.with_options(timeout=1, max_retries=0).chat.completions
    raises(openai.APITimeoutError, hurried.create, model=MODEL, messages=slow("timeout"))


@call("50 at once")
async def _many():
    async with openai.AsyncOpenAI() as many:
        asked = [many.chat.completions.create(model=MODEL, messages=MESSAGES) for _ in range(50)]
        expect({one.choices[0].message.content for one in await asyncio.gather(*asked)}, {"hello"})


run()
