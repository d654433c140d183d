"""What several request bodies of the OpenAPI document share."""

from collections.abc import Iterable
from copy import copy
from typing import Any, Optional

from pydantic import BaseModel, ConfigDict, create_model


def optional(name: str, model: type[BaseModel], *, without: Iterable[str] = (), **more: Any) -> Any:
    """The model with all fields optional and nullable; null means not given."""
    fields: dict[str, Any] = {}
    for field_name, known in model.model_fields.items():
        if field_name in without:
            continue
        field = copy(known)
        field.default = None
        field.annotation = Optional[known.annotation]  # type: ignore[assignment] # noqa: UP045 - at run time
        fields[field_name] = (field.annotation, field)
    made = create_model(name, __config__=ConfigDict(extra="ignore"), **fields, **more)
    made.__doc__ = (model.__doc__ or "").splitlines()[0]
    return made


KEY: dict[str, Any] = {"api_key": (str | None, None)}


class Keyed(BaseModel):
    """The account key may come in the body."""

    api_key: str | None = None


class NamedEndpoint(Keyed):
    """An endpoint by `id`, or by `endpoint`, its name."""

    id: int | None = None
    endpoint: str | None = None
    tail: int | None = None
    """Number of log lines, at most 1000."""
