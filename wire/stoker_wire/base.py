"""The two attitudes of a wire type: strict where a person types, tolerant where an official peer sends."""

from pydantic import BaseModel, ConfigDict


class Typed(BaseModel):
    """What a person types: an unknown field is a spelling mistake, and is refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class Received(BaseModel):
    """What a peer sends: a newer peer may say more than we know, and what it says is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, populate_by_name=True)
