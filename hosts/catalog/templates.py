"""Templates: the code that instances run, found by id or by hash."""

import hashlib
import json
import shlex
from typing import Any

from hosts.catalog.store import Store
from hosts.settings import TemplateSettings
from market.query import GrammarError, matches, parse_env
from stoker_wire.errors.problem import Problem, describe


class Templates:
    """The templates of the settings and those created through the API."""

    def __init__(self, store: Store, given: tuple[TemplateSettings, ...]) -> None:
        self._store = store
        for template in given:
            self._put(template)

    def _put(self, template: TemplateSettings) -> dict[str, Any]:
        body = template.model_dump(exclude={"hash_id"})
        content = json.dumps(body, sort_keys=True).encode()
        hash_id = template.hash_id or hashlib.sha256(content).hexdigest()[:32]
        return {"id": self._store.put_template(hash_id, body), "hash_id": hash_id, **body}

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create a template from an API body; equal content gives the same template. Raises Problem."""
        known = {name: body[name] for name in TemplateSettings.model_fields if body.get(name) is not None}
        known.pop("hash_id", None)
        known.setdefault("name", "unnamed")
        if isinstance(known.get("env"), dict):
            known["env"] = " ".join(_flag(key, value) for key, value in known["env"].items())
        if isinstance(known.get("extra_filters"), dict):
            known["extra_filters"] = json.dumps(known["extra_filters"], sort_keys=True)
        try:
            return self._put(TemplateSettings.model_validate(known))
        except ValueError as error:
            raise Problem(400, "invalid_args", describe(error)) from None

    def all(self) -> list[dict[str, Any]]:
        """Every template, oldest first."""
        return [
            {"id": number, "hash_id": hash_id, **body} for number, hash_id, body in self._store.templates()
        ]

    def search(self, filters: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Templates that match the filters."""
        # Searches treat `_` as a blank, but a hash may contain `_`, so it is compared exactly.
        exact = filters.get("hash_id", {}).get("eq")
        return [
            template
            for template in self.all()
            if matches(filters, template) and (exact is None or template["hash_id"] == exact)
        ]

    def find(self, *, hash_id: str | None, template_id: int | None) -> dict[str, Any] | None:
        """The template with this hash, or with this id; None if it does not exist."""
        for template in self.all():
            if template["hash_id"] == hash_id if hash_id is not None else template["id"] == template_id:
                return template
        return None

    def drop(self, *, hash_id: str | None, template_id: int | None) -> bool:
        """Delete the template. Return False if it does not exist."""
        found = self.find(hash_id=hash_id, template_id=template_id)
        if found is not None:
            self._store.drop_template(found["id"])
        return found is not None


def _flag(key: Any, value: Any) -> str:
    """One entry of an env object as a docker flag, quoted so that parsing returns the same entry."""
    key = str(key)
    if key == "-h":
        return shlex.join(["-h", str(value)])
    return key if key.startswith("-") else shlex.join(["-e", f"{key}={value}"])


def env_of(template: dict[str, Any] | None) -> dict[str, str]:
    """The template's docker flags as an env object."""
    try:
        return parse_env((template or {}).get("env") or "")
    except GrammarError as error:
        raise Problem(400, "invalid_args", f"the template's env cannot be read: {error}") from None
