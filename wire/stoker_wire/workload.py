"""Workload rules: how much load a request brings, computed by the same code in the engine and in the worker.

A rule is data, so that a worker can report it. It is also a function of the payload, so that it can stand in
`HandlerConfig.workload_calculator`. A rule never raises: a missing or invalid field counts as its default.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from stoker_wire.base import TolerantModel
from stoker_wire.parsing.numbers import finite
from stoker_wire.route import COST_MAX, DEFAULT_COST

OUTPUT_TOKEN_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens")
"""Names that model servers give to the limit of generated tokens."""
PROMPT_FIELDS = ("messages", "prompt", "input", "system", "instructions", "query", "documents", "inputs")
_ANSWERS_MAX = 128.0
"""The largest `n` of OpenAI's API."""
_DATA_URL_CHARS = 4000
"""A `data:` url is an image or a sound: the model reads about as much from it as from so many characters."""
_SIZE = re.compile(r"(\d{1,6})[xX](\d{1,6})")

FieldName = Annotated[str, Field(min_length=1, max_length=100)]
Amount = Annotated[float, Field(ge=0, le=COST_MAX)]
FieldNames = Annotated[tuple[FieldName, ...], Field(max_length=16)]


class _Rule(TolerantModel):
    """A rule computes the workload from a JSON payload (None: the body is not a JSON object) and the body's size."""

    def workload(self, payload: Mapping[str, Any] | None, body_bytes: int = 0) -> float:
        """Load that the request brings, 0 to COST_MAX."""
        return min(max(self._load(payload or {}, body_bytes), 0.0), COST_MAX)

    def __call__(self, payload: Mapping[str, Any]) -> float:
        """The workload of a JSON payload, as a `workload_calculator` is called."""
        return self.workload(payload)

    def _load(self, payload: Mapping[str, Any], body_bytes: int) -> float:
        raise NotImplementedError


class ConstantWorkload(_Rule):
    """Every request brings the same load."""

    kind: Literal["constant"] = "constant"
    load: Amount = DEFAULT_COST

    def _load(self, payload: Mapping[str, Any], body_bytes: int) -> float:
        return self.load


class FieldWorkload(_Rule):
    """The first of these fields that holds a number, times `factor`; `default` when none does."""

    kind: Literal["field"] = "field"
    fields: Annotated[FieldNames, Field(min_length=1)]
    """Names of fields; `parameters.max_new_tokens` names a field inside an object."""
    default: Amount = DEFAULT_COST
    """The workload without such a field; `factor` does not apply."""
    factor: Amount = 1.0
    maximum: Amount = COST_MAX
    """The largest number that a client can declare; a larger one counts as this."""

    def _load(self, payload: Mapping[str, Any], body_bytes: int) -> float:
        number = _first_number(payload, self.fields)
        return self.default if number is None else min(number, self.maximum) * self.factor


class TokenWorkload(_Rule):
    """Estimated prompt tokens and the limit of output tokens, each with a weight."""

    kind: Literal["tokens"] = "tokens"
    output_fields: FieldNames = OUTPUT_TOKEN_FIELDS
    output_default: Amount = 256.0
    """Output tokens of a request that sets no limit."""
    output_weight: Amount = 1.0
    output_max: Amount = 131_072.0
    """Output tokens that the model's context can hold. A client that declares more cannot get more."""
    prompt_fields: FieldNames = PROMPT_FIELDS
    prompt_weight: Amount = 0.1
    """Reading a token costs about a tenth of generating one."""
    characters_per_token: Annotated[float, Field(ge=0.1, le=100)] = 4.0

    def _load(self, payload: Mapping[str, Any], body_bytes: int) -> float:
        prompts = map(payload.get, self.prompt_fields)
        characters = sum(_characters(each) for each in prompts if each is not None)
        output = _first_number(payload, self.output_fields)
        answers = min(max(1.0, _first_number(payload, ("n",)) or 1.0), _ANSWERS_MAX)
        output = self.output_default if output is None else min(output, self.output_max)
        return (
            characters / self.characters_per_token * self.prompt_weight
            + output * self.output_weight * answers
        )


class PixelWorkload(_Rule):
    """Megapixels times steps times images, for image generators."""

    kind: Literal["pixels"] = "pixels"
    width_default: Amount = 1024.0
    height_default: Amount = 1024.0
    steps_fields: FieldNames = ("steps", "num_inference_steps")
    steps_default: Amount = 30.0
    count_fields: FieldNames = ("n", "batch_size", "num_images_per_prompt")
    load_max: Amount = 100_000.0
    """A request that declares more counts as this: 100 images of 4096 x 4096 pixels in 60 steps."""

    def _load(self, payload: Mapping[str, Any], body_bytes: int) -> float:
        width, height = self._size(payload)
        steps = _first_number(payload, self.steps_fields)
        count = max(1.0, _first_number(payload, self.count_fields) or 1.0)
        load = width * height / 1e6 * (self.steps_default if steps is None else steps) * count
        return min(load, self.load_max)

    def _size(self, payload: Mapping[str, Any]) -> tuple[float, float]:
        size = payload.get("size")
        if isinstance(size, str) and (found := _SIZE.fullmatch(size)):
            return float(found[1]), float(found[2])
        width, height = _first_number(payload, ("width",)), _first_number(payload, ("height",))
        return (
            self.width_default if width is None else width,
            self.height_default if height is None else height,
        )


class AudioWorkload(_Rule):
    """Seconds of audio, estimated from the size of the body."""

    kind: Literal["audio"] = "audio"
    bytes_per_second: Annotated[float, Field(ge=1, le=1e9)] = 16_000.0
    """128 kbit/s; 16-bit PCM at 16 kHz has 32,000."""
    load_per_second: Amount = 1.0

    def _load(self, payload: Mapping[str, Any], body_bytes: int) -> float:
        return body_bytes / self.bytes_per_second * self.load_per_second


WorkloadRule = ConstantWorkload | FieldWorkload | TokenWorkload | PixelWorkload | AudioWorkload

_rule: TypeAdapter[WorkloadRule] = TypeAdapter(Annotated[WorkloadRule, Field(discriminator="kind")])


def _known_rule(given: Any) -> Any:
    """The report of a newer worker may hold a rule of an unknown kind: its number is learned instead."""
    if given is None or isinstance(given, _Rule):
        return given
    try:
        return _rule.validate_python(given)
    except ValidationError:
        return None


class ServedRoute(TolerantModel):
    """A path that a worker serves, and how it computes the workload of a request to it."""

    path: Annotated[str, Field(max_length=512)]
    """A path, or a pattern (`stoker_wire.http.path_pattern`)."""
    methods: Annotated[tuple[Annotated[str, Field(max_length=16)], ...], Field(max_length=16)] = ("POST",)
    websocket: bool = False
    """It takes WebSocket handshakes, and `methods` does not count."""
    in_job: bool = False
    """One ticket is valid for several calls (`HandlerConfig.in_job`)."""
    rule: Annotated[WorkloadRule | None, BeforeValidator(_known_rule)] = None
    """None: `calculated` says how the worker gets the workload."""
    calculated: bool = True
    """True: by code that only the worker has; each answer names the workload. False: it is the cost of the ticket."""


WORKLOAD_HEADER = "X-Stoker-Workload"
"""Field of a worker's answer: the computed workload, if only the worker can compute it or the ticket is too small."""


def _first_number(payload: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        value = _inside(payload, name) if "." in name else payload.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            number = finite(value)
            if number is not None and number >= 0:
                return number
    return None


def _inside(payload: Mapping[str, Any], name: str) -> Any:
    """The value of `outer.inner`; None: absent."""
    value: Any = payload
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _characters(value: Any) -> int:
    """Characters of all texts inside the value; keys do not count."""
    total, rest = 0, [value]
    while rest:
        each = rest.pop()
        if isinstance(each, str):
            total += _DATA_URL_CHARS if each.startswith("data:") else len(each)
        elif isinstance(each, list):
            rest.extend(each)
        elif isinstance(each, dict):
            rest.extend(each.values())
        elif isinstance(each, int) and not isinstance(each, bool):
            total += 4  # a token id
    return total
