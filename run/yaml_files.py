"""Reads user-written YAML; every error is one sentence."""

from pathlib import Path
from typing import Any

import yaml

from run.errors import CommandError


class _Loader(yaml.SafeLoader):
    """A SafeLoader that joins JSON surrogate pairs, which PyYAML leaves apart, and refuses duplicate keys."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        try:
            value.encode()
        except UnicodeEncodeError:
            try:
                return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                what = "a lone surrogate: \\ud800 to \\udfff must come in pairs"
                raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from None
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse duplicate keys, of which PyYAML silently uses the last."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if (key.tag, key.value) in seen:
                    what = f"the key {key.value[:80]!r} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


_MERGE = "tag:yaml.org,2002:merge"
_VALUES_MAX = 100_000


def _count_values(value: Any, counted: dict[int, int], open_ids: set[int]) -> int:
    """The number of values with every alias expanded. Raises ValueError for an alias inside its own value."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) in open_ids:
        raise ValueError("an alias (*name) is inside its own value")
    if id(value) not in counted:
        open_ids.add(id(value))
        inner = value.values() if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(_count_values(each, counted, open_ids) for each in inner)
        open_ids.discard(id(value))
    return counted[id(value)]


def read_yaml(path: Path, expected: str) -> Any:
    """The value in the file. `expected` describes it in error messages.

    Raises:
        CommandError: the file cannot be read, or is not valid YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as fault:
        raise CommandError(f"cannot read {path}: {fault.strerror}; expected {expected}") from fault
    except UnicodeDecodeError as fault:
        raise CommandError(f"{path}: not UTF-8 text at byte {fault.start}; expected {expected}") from fault
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
        if _count_values(value, {}, set()) > _VALUES_MAX:
            raise CommandError(
                f"{path}: its aliases expand to over {_VALUES_MAX} values; expected {expected}"
            )
        return value
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise CommandError(
            f"{path}: is not YAML{where} ({getattr(fault, 'problem', None) or fault}); expected {expected}"
        ) from fault
    except RecursionError as fault:
        raise CommandError(f"{path}: is nested too deeply; expected {expected}") from fault
    except (ValueError, OverflowError) as fault:
        # PyYAML's own types: a date such as 2026-13-45, a number such as 0b_.
        raise CommandError(
            f"{path}: a value cannot be read ({str(fault)[:100]}), quote it; expected {expected}"
        ) from fault
