"""`l2v info`."""

import json
from typing import Any

import yaml
from pydantic import Field

from l2v.app.bulk.options import EmbedOptions
from l2v.app.bulk.settings import ClientSettings


class Info(ClientSettings):
    """Describe a model, or several: their base, pooling, template, limits and sources.

    Examples:
        l2v info --model sheared-llama-1.3b-supervised
        l2v info --url http://localhost:8080 --json
    """

    as_json: bool = Field(False, description="Print JSON instead of YAML")

    def cli_cmd(self) -> None:
        info = json.dumps(self._info(), indent=2, ensure_ascii=False)
        print(info if self.as_json else yaml.safe_dump(json.loads(info), sort_keys=False, allow_unicode=True).rstrip())

    def _info(self) -> dict[str, Any]:
        if self.lora_modules and not self.url and self.model_name is None:
            encoder = self.load()
            return {"model": self.chosen_name, **encoder.describe(), "models": encoder.adapters.describe()}
        with self.open_embedder(EmbedOptions()) as embedder:
            return embedder.info
