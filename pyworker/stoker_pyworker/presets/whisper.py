"""Speech recognition: vLLM's transcription, or with MODEL_COMMAND a server of its own, such as speaches (faster-whisper)."""

import io
import json
import math
import struct
import wave

from stoker_pyworker.config import BenchmarkConfig
from stoker_pyworker.payloads import Form
from stoker_pyworker.presets import vllm
from stoker_pyworker.presets.base.preset import Preset, PresetRoute
from stoker_pyworker.presets.base.settings import PresetSettings
from stoker_wire.workload import AudioWorkload

_RATE = 16_000


def tone(seconds: float) -> bytes:
    """A WAV file, 16-bit mono at 16 kHz, with a tone that changes its pitch."""
    count = int(seconds * _RATE)
    samples = (
        int(9000 * math.sin(2 * math.pi * (180 + 60 * math.sin(i / 9000)) * i / _RATE)) for i in range(count)
    )
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_RATE)
        sound.writeframes(b"".join(struct.pack("<h", each) for each in samples))
    return file.getvalue()


def command(settings: PresetSettings) -> list[str]:
    """`vllm serve`, or the user's command alone."""
    words = vllm.command(settings)
    if settings.command[-1:] == ("serve",):
        return [*settings.command, *words[2:]]
    return list(settings.command) or words


def environment(settings: PresetSettings) -> dict[str, str]:
    """vLLM's variables, and address and model for a server that is started by uvicorn, as speaches is."""
    return {
        **vllm.environment(settings),
        "UVICORN_HOST": "127.0.0.1",
        "UVICORN_PORT": str(settings.port),
        "PRELOAD_MODELS": json.dumps([settings.model]),
        "STT_MODEL_TTL": "-1",
    }


def benchmark(settings: PresetSettings) -> BenchmarkConfig:
    """Recordings of 3, 8 and 15 seconds."""
    return BenchmarkConfig(
        dataset=[
            Form(model=settings.served_name, file=("tone.wav", tone(seconds), "audio/wav"))
            for seconds in (3.0, 8.0, 15.0)
        ],
        runs=2,
        concurrency=4,
    )


PRESET = Preset(
    name="whisper",
    command=command,
    program_words=0,
    environment=environment,
    model="a repository or folder of a speech model, such as openai/whisper-small",
    health_path="/health",
    routes=(
        PresetRoute(path="/v1/audio/transcriptions", rule=AudioWorkload()),
        PresetRoute(path="/v1/audio/translations", rule=AudioWorkload()),
    ),
    benchmark_path="/v1/audio/transcriptions",
    benchmark=benchmark,
    downloaded=vllm.DOWNLOADED,
    metrics=vllm.METRICS,
    perf=20.0,
    causes=vllm.CAUSES,
)
