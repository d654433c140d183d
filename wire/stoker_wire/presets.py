"""The presets of model servers as data, for clients that create templates and endpoints from them.

The worker's half (commands, readiness, benchmarks) is `stoker_pyworker.presets`; a test compares the two.
"""

from dataclasses import dataclass
from typing import Literal

ModelKind = Literal["huggingface", "gguf", "ollama", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetSummary:
    """Facts about a preset that a client needs before a worker runs."""

    name: str
    """The argument of `python -m stoker_pyworker.presets`."""
    title: str
    image: str
    """A public container image that carries the model server; empty: install it, or bring an image."""
    model: ModelKind
    """What `MODEL_NAME` holds: a Hugging Face repository or a folder, a GGUF file, an Ollama tag, or nothing."""
    routes: tuple[str, ...]
    """Paths that the worker serves without further settings."""
    needs_gpu: bool = True
    setup: str = ""
    """A shell command that adds to the image what the preset needs and it does not carry."""
    program: tuple[str, ...] = ()
    """The words that `MODEL_COMMAND` replaces; empty: the preset has no program of its own, or more than one."""


PRESETS: dict[str, PresetSummary] = {
    each.name: each
    for each in (
        PresetSummary(
            name="vllm",
            title="vLLM",
            image="vllm/vllm-openai:latest",
            model="huggingface",
            routes=("/v1/chat/completions", "/v1/completions", "/v1/responses"),
            program=("vllm", "serve"),
        ),
        PresetSummary(
            name="sglang",
            title="SGLang",
            image="lmsysorg/sglang:latest",
            model="huggingface",
            routes=("/v1/chat/completions", "/v1/completions", "/generate"),
            program=("python3", "-m", "sglang.launch_server"),
        ),
        PresetSummary(
            name="llama-server",
            title="llama.cpp server",
            image="ghcr.io/ggml-org/llama.cpp:server-cuda",
            model="gguf",
            routes=("/v1/chat/completions", "/v1/completions", "/completion"),
            needs_gpu=False,
            program=("llama-server",),
        ),
        PresetSummary(
            name="llama-cpp-python",
            title="llama-cpp-python's server",
            image="",
            model="gguf",
            routes=("/v1/chat/completions", "/v1/completions"),
            needs_gpu=False,
            program=("python3", "-m", "llama_cpp.server"),
        ),
        PresetSummary(
            name="ollama",
            title="Ollama",
            image="ollama/ollama:latest",
            model="ollama",
            routes=("/v1/chat/completions", "/v1/completions", "/api/chat", "/api/generate"),
            needs_gpu=False,
        ),
        PresetSummary(
            name="tgi",
            title="Text Generation Inference",
            image="ghcr.io/huggingface/text-generation-inference:latest",
            model="huggingface",
            routes=("/v1/chat/completions", "/generate", "/generate_stream"),
            program=("text-generation-launcher",),
        ),
        PresetSummary(
            name="embeddings",
            title="Embeddings with vLLM",
            image="vllm/vllm-openai:latest",
            model="huggingface",
            routes=("/v1/embeddings",),
            needs_gpu=False,
            program=("vllm", "serve"),
        ),
        PresetSummary(
            name="whisper",
            title="Transcription with vLLM or a faster-whisper server",
            image="vllm/vllm-openai:latest",
            model="huggingface",
            routes=("/v1/audio/transcriptions", "/v1/audio/translations"),
            # vLLM's images leave out the packages that read audio; its own version stays.
            setup='uv pip install --system --quiet "vllm[audio]" || python3 -m pip install --quiet "vllm[audio]"',
        ),
        PresetSummary(
            name="comfyui",
            title="ComfyUI",
            image="",
            model="none",
            routes=("/api/prompt", "/prompt", "/ws", "/history/{id}", "/view", "/upload/image"),
        ),
        PresetSummary(
            name="http",
            title="Any HTTP server",
            image="",
            model="none",
            routes=(),
            needs_gpu=False,
        ),
    )
}
