"""Reading YAML that a person wrote: whatever is wrong with the file is one sentence."""

from pathlib import Path
from typing import Any

import yaml

from run.faults import Fault


class _Loader(yaml.SafeLoader):
    """YAML is meant to read JSON, where a character beyond 16 bits is written as two escapes; PyYAML leaves them two."""

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        try:
            value.encode()
        except UnicodeEncodeError:
            try:
                return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                what = "half of a character: \\ud800 to \\udfff come in pairs"
                raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from None
        return value


def read_yaml(path: Path, expected: str) -> Any:
    """What the file says; `expected` names what it should hold.

    Raises:
        Fault: it cannot be read, or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as fault:
        raise Fault(f"cannot read {path}: {fault.strerror}; expected {expected}") from fault
    except UnicodeDecodeError as fault:
        raise Fault(f"{path}: not UTF-8 text at byte {fault.start}; expected {expected}") from fault
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise Fault(
            f"{path}: is not YAML{where} ({getattr(fault, 'problem', None) or fault}); expected {expected}"
        ) from fault
    except RecursionError as fault:
        raise Fault(f"{path}: is nested too deeply; expected {expected}") from fault
    except (ValueError, OverflowError) as fault:
        # PyYAML's own types: a date such as 2026-13-45, a number such as 0b_.
        raise Fault(
            f"{path}: a value cannot be read ({str(fault)[:100]}), quote it; expected {expected}"
        ) from fault
