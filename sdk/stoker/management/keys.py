"""Named keys of an endpoint through the engine's console API."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from pydantic import SecretStr, ValidationError

from stoker.engine import Engine
from stoker.errors import Invalid, MalformedAnswer
from stoker.management.console_api import ConsoleApi, endpoint_candidates, read_rows
from stoker.management.endpoints import ENDPOINTS, Endpoints
from stoker.management.records import KeyRecord
from stoker_wire.errors.problem import describe
from stoker_wire.security.client_key import KeyEdit
from stoker_wire.security.token import client_key_digest

_NO_KEY = client_key_digest("")


class Keys(ConsoleApi):
    """`client.keys`: an endpoint is given by its name or id, a key by its name."""

    def __init__(self, engine: Engine, key: str, endpoints: Endpoints) -> None:
        super().__init__(engine, key)
        self._endpoints = endpoints

    async def list(self, endpoint: str | int) -> list[KeyRecord]:
        """The named keys with their limits and today's use, without their texts."""
        path = await self._path(endpoint)
        return read_rows(KeyRecord, await self._call("GET", path, what=str(endpoint)), "keys", path)

    async def create(self, endpoint: str | int, name: str, **limits: Any) -> SecretStr:
        """Create a key for one client and return its text, which no other call shows.

        Args:
            limits: `load_per_second`, `dollars_per_day`, and `priority` (high, normal or low).

        Raises:
            Invalid: a limit is unknown or out of bounds; nothing was sent.
            Refused: the name is taken.
        """
        edit = _edit({"op": "create", "name": name, "digest": _NO_KEY}, limits)
        path = await self._path(endpoint)
        body = {"name": edit.name} | edit.message()["limits"]
        answer = await self._call("POST", path, body, what=str(endpoint), repeatable=False)
        key = answer.get("api_key") if isinstance(answer, dict) else None
        if not isinstance(key, str) or not key:
            raise MalformedAnswer(f"{path} answered without the new api_key")
        return SecretStr(key)

    async def update(self, endpoint: str | int, name: str, **limits: Any) -> None:
        """Change limits of a key; None removes one, and the others stay as they are."""
        edit = _edit({"op": "change", "name": name}, limits)
        if not edit.given():
            raise Invalid("nothing to change: give at least one limit, e.g. load_per_second=100")
        path = await self._path(endpoint, edit.name)
        await self._call("PUT", path, edit.message()["limits"], what=str(endpoint))

    async def revoke(self, endpoint: str | int, name: str) -> None:
        """Make a key invalid. Requests that are on workers finish."""
        edit = _edit({"op": "revoke", "name": name}, {})
        await self._call("DELETE", await self._path(endpoint, edit.name), what=str(endpoint))

    async def _path(self, endpoint: str | int, name: str = "") -> str:
        asked = endpoint_candidates(endpoint)[0]
        number = asked if isinstance(asked, int) else (await self._endpoints.get(endpoint)).id
        return f"{ENDPOINTS}{number}/keys/" + (f"{quote(name, safe='')}/" if name else "")


def _edit(fields: dict[str, Any], limits: dict[str, Any]) -> KeyEdit:
    try:
        return KeyEdit.model_validate(fields | {"limits": limits})
    except ValidationError as fault:
        raise Invalid(describe(fault).replace("limits.", "")) from None
