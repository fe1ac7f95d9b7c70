"""YAML files with the settings of a run: the user's own, or one of the ready-made configs."""

from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings, YamlConfigSettingsSource

CONFIGS = Path(__file__).parent / "configs"


class ConfigFile(YamlConfigSettingsSource):
    """The settings in a YAML file. An unknown setting is an error, like an unknown flag."""

    def __init__(self, settings_cls: type[BaseSettings], file: Path) -> None:
        try:
            super().__init__(settings_cls, file)
        except yaml.YAMLError as error:
            raise ValueError(f"{file} is not valid YAML ({' '.join(str(error).split())})") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} must be a UTF-8 file of settings, written as `name: value`") from error

    def __call__(self) -> dict[str, Any]:
        settings = super().__call__()
        if unknown := sorted(settings.keys() - self.settings_cls.model_fields.keys()):
            raise ValueError(
                f"{self.yaml_file_path} sets {unknown[0]}, which is not a setting of {self.settings_cls.__name__}"
            )
        return settings


def find_config(config: Path) -> Path:
    """Find a YAML file by its path, or a ready-made config by its name.

    Raises:
        ValueError: if neither exists.
    """
    ready = CONFIGS / f"{config}.yaml"
    if config.is_file():
        return config
    if ready.is_file():
        return ready
    names = ", ".join(sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob("*/*.yaml")))
    raise ValueError(f"{config} is neither a file nor a ready-made config ({names})")
