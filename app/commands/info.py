"""`l2v info`."""

import json

import yaml
from pydantic import Field

from l2v.app.bulk.options import EmbedOptions
from l2v.app.bulk.settings import ClientSettings


class Info(ClientSettings):
    """Describe a model: its base, pooling, template, limits and sources.

    Examples:
        l2v info --model sheared-llama-1.3b-supervised
        l2v info --url http://localhost:8080 --json
    """

    as_json: bool = Field(False, description="Print JSON instead of YAML")

    def cli_cmd(self) -> None:
        with self.open_embedder(EmbedOptions()) as embedder:
            info = json.dumps(embedder.info, indent=2, ensure_ascii=False)
        print(info if self.as_json else yaml.safe_dump(json.loads(info), sort_keys=False, allow_unicode=True).rstrip())
