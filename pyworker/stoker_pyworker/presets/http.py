"""Any HTTP server: its command in MODEL_COMMAND, its paths in MODEL_ROUTES."""

from stoker_pyworker.config import ConfigError
from stoker_pyworker.presets.base.preset import Preset
from stoker_pyworker.presets.base.settings import PresetSettings


def command(settings: PresetSettings) -> list[str]:
    """The user's command."""
    if not settings.command:
        raise ConfigError(
            "MODEL_COMMAND (--command): expected the program that serves HTTP, received nothing"
        )
    if not settings.routes:
        raise ConfigError("MODEL_ROUTES (--route): expected at least one path, received nothing")
    return list(settings.command)


PRESET = Preset(
    name="http",
    command=command,
    program_words=0,
    environment=lambda settings: {"PORT": str(settings.port), "MODEL_PORT": str(settings.port)},
    model="",
    health_path="",
    perf=100.0,
)
