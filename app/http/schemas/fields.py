"""The base classes of requests, and markers for fields that have no effect or are rejected.

A schema declares every field that clients are known to send. Each field is used, accepted without effect, or rejected
with an error that says what to do instead.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, PydanticUseDefault

NO_EFFECT, REJECTED = "No effect: ", "Rejected: "


class Request(BaseModel):
    """The base of all requests. An optional field that is null counts as absent."""

    model_config = ConfigDict(frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and not cls.model_fields[str(info.field_name)].is_required():
            raise PydanticUseDefault
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Adds null to the types of optional fields."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, field in schema.get("properties", {}).items():
            if name not in schema.get("required", ()):
                schema["properties"][name] = _nullable(field)
        return schema


class Strict(BaseModel):
    """An object that rejects unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _keep_one_unknown(cls, value: Any) -> Any:
        """If there are more fields than the model has, drops all unknown fields but the first.

        Otherwise, pydantic would create an error for each of them.
        """
        if not isinstance(value, dict) or len(value) <= len(cls.model_fields):
            return value
        first = next(name for name in value if name not in cls.model_fields)
        return {name: item for name, item in value.items() if name in cls.model_fields or name == first}


class StrictRequest(Strict, Request):
    """A request that rejects unknown fields."""


@dataclass(frozen=True, slots=True)
class NoEffect:
    """Marks a field that is accepted with any value and has no effect.

    Attributes:
        reason: why it has no effect.
    """

    reason: str

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"description": f"{NO_EFFECT}{self.reason}"}


@dataclass(frozen=True, slots=True)
class Rejected:
    """Marks a field that is rejected unless it is null or asks for what the service does anyway.

    Attributes:
        reason: a sentence without a period that says what to do instead.
        allowed: values that are accepted.
    """

    reason: str
    allowed: tuple[Any, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return BeforeValidator(self._reject).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        # Separate constants rather than one enum, since client generators reject enums of booleans.
        allowed: list[dict[str, Any]] = [{"const": value} for value in self.allowed]
        return {"anyOf": [*allowed, {"type": "null"}], "description": f"{REJECTED}{self.reason}"}

    def _reject(self, value: Any) -> Any:
        if any(type(value) is type(each) and value == each for each in self.allowed):
            return value
        what = "value" if self.allowed else "parameter"
        raise PydanticCustomError("unsupported", "{reason}", {"reason": self.reason, "what": what})


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    about = {name: item for name, item in schema.items() if name in ("title", "description", "default")}
    kind = {name: item for name, item in schema.items() if name not in about}
    options = kind.get("anyOf", [kind])
    if not kind or {"type": "null"} in options or None in kind.get("enum", ()):
        return schema
    return {"anyOf": [*options, {"type": "null"}], **about}
