"""Presets: workers for known model servers (`python -m stoker_pyworker.presets NAME`)."""

from importlib import import_module

from stoker_pyworker.presets.base.preset import Preset
from stoker_wire.presets import PRESETS

NAMES = tuple(PRESETS)


def load(name: str) -> Preset:
    """The preset of this name.

    Raises:
        KeyError: there is no such preset.
    """
    if name not in PRESETS:
        raise KeyError(name)
    preset: Preset = import_module(f"stoker_pyworker.presets.{name.replace('-', '_')}").PRESET
    return preset
