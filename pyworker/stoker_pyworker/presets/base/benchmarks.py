"""Benchmark payloads: a mix of short and long prompts and answers, as in real use."""

from stoker_pyworker.config import BenchmarkConfig, JsonObject

_TEXT = (
    "The stoker feeds the boiler before the ship needs the steam. He listens to the engine, looks at the water gauge,"
    " and writes the pressure of every hour into the book. When the bridge asks for more speed, the fire is already hot. "
)
_SENTENCE = _TEXT.partition(".")[0]
_SHAPES = ((1, 48), (3, 96), (8, 64), (2, 128), (16, 32))
"""(Prompt length in copies of the text, tokens to generate)."""


def payloads(*, short: bool = False) -> list[JsonObject]:
    """Prompts and limits of tokens. They differ in their first words, so that a prefix cache does not answer.

    A `short` prompt is one sentence: a server on a CPU computes the whole prompt before it notices that the benchmark was
    interrupted, and a client's request waits so long.
    """
    if short:
        return [
            {"prompt": f"{number}. {_SENTENCE}", "max_tokens": tokens}
            for number, tokens in enumerate((24, 16))
        ]
    return [
        {"prompt": f"{number}. {_TEXT * copies}", "max_tokens": tokens}
        for number, (copies, tokens) in enumerate(_SHAPES)
    ]


def completions(
    model: str, *, extra: JsonObject | None = None, concurrency: int = 16, short: bool = False
) -> BenchmarkConfig:
    """Payloads of `/v1/completions`. `short` suits a server on a CPU or one that runs a single request at a time."""
    dataset = [{"model": model, **each, **(extra or {})} for each in payloads(short=short)]
    return BenchmarkConfig(dataset=dataset, runs=2, concurrency=concurrency, do_warmup=not short)


def texts() -> list[str]:
    """Texts of different length for an embedding model."""
    return [f"{number}. {_TEXT * copies}" for number, copies in enumerate((1, 2, 1, 4, 3))]
