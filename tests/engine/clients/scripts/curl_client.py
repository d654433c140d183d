"""curl."""

import json
import subprocess
import tempfile
from pathlib import Path

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
    run,
    slow,
)

TIMED_OUT = 28


def curl(path, *options, payload=None, key=KEY, http2=True):
    """The command. An offer of HTTP/2 is what `curl --http2` adds."""
    command = ["curl", "--no-progress-meter", BASE_URL + path, "-H", f"Authorization: Bearer {key}", *options]
    if http2:
        command.append("--http2")
    if payload is not None:
        command += ["-H", "Content-Type: application/json", "-d", json.dumps({"model": MODEL} | payload)]
    return command


def run_curl(*args, **options):
    return subprocess.run(curl(*args, **options), stdout=subprocess.PIPE, check=True).stdout


def ask(path, **payload):
    return json.loads(run_curl(path, "--fail-with-body", payload=payload))


def events(**payload):
    lines = run_curl("/chat/completions", "-N", payload={"stream": True, "messages": MESSAGES} | payload)
    return [json.loads(line[6:]) for line in lines.decode().splitlines() if line.startswith("data: {")]


@call("chat")
def _chat():
    answer = ask("/chat/completions", messages=MESSAGES, max_tokens=4000)
    expect(answer["choices"][0]["message"]["content"], "hello")
    expect(ask("/chat/completions", messages=MESSAGES, model=ENDPOINT)["model"], MODEL)


@call("completions")
def _completions():
    expect(ask("/completions", prompt="hello")["choices"][0]["text"], "hello")


@call("stream")
def _stream():
    expect([event["choices"][0]["delta"]["content"] for event in events()], ["hel", "lo"])


@call("tools")
def _tools():
    answer = ask("/chat/completions", messages=MESSAGES, tools=[WEATHER])
    expect(answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "weather")


@call("usage")
def _usage():
    expect(ask("/chat/completions", messages=MESSAGES)["usage"]["total_tokens"], 4)
    expect(events(stream_options={"include_usage": True})[-1]["usage"]["total_tokens"], 4)


@call("embeddings")
def _embeddings():
    expect(ask("/embeddings", input="x")["data"][0]["embedding"], [0.5, 0.25])


@call("models")
def _models():
    expect([one["id"] for one in json.loads(run_curl("/models"))["data"]], [MODEL])
    expect(json.loads(run_curl(f"/models/{MODEL}"))["id"], MODEL)


@call("audio in")
def _audio_in():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.mp3"
        file.write_bytes(AUDIO)
        answer = run_curl("/audio/transcriptions", "-F", f"model={MODEL}", "-F", f"file=@{file}")
    expect(json.loads(answer)["text"], f"{len(AUDIO)} bytes")


@call("speech out")
def _speech_out():
    expect(len(run_curl("/audio/speech", payload={"voice": "a", "input": "x"})), SPEECH_BYTES)


@call("images")
def _images():
    expect(ask("/images/generations", prompt="x")["data"][0]["b64_json"], "aGk=")


@call("errors")
def _errors():
    answer = json.loads(run_curl("/chat/completions", payload={"model": "gpt-none", "messages": MESSAGES}))
    assert "does not exist" in answer["error"]["message"], answer
    expect(json.loads(run_curl("/models", key="sk-wrong"))["error"]["code"], "auth_error")


@call("cancel")
def _cancel():
    command = curl("/chat/completions", "-N", payload={"messages": slow("cancel"), "stream": True})
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout.readline().startswith(b"data: ")
    process.terminate()
    process.wait()


@call("timeout")
def _timeout():
    command = curl("/chat/completions", "--max-time", "1", payload={"messages": slow("timeout")})
    expect(subprocess.run(command, check=False).returncode, TIMED_OUT)


@call("50 at once")
def _many():
    options = ["--parallel", "--parallel-max", "50"] + [BASE_URL + "/chat/completions"] * 49
    answers = run_curl("/chat/completions", *options, payload={"messages": MESSAGES}, http2=False)
    expect(answers.count(b'"content": "hello"'), 50)


run()
