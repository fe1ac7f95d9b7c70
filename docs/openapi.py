"""The API reference in Markdown, generated from the application's OpenAPI document and its table of errors."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from l2v.app.engine.errors import EmptyError
from l2v.app.http.errors import BY_STATUS, ERROR_CLASSES
from l2v.app.http.schemas.fields import NO_EFFECT, REJECTED
from l2v.app.main import create_app
from l2v.app.settings import Settings

Schema = dict[str, Any]
_SECTIONS = {
    "embeddings": "Native API",
    "OpenAI": "OpenAI surface",
    "Cohere": "Cohere surface",
    "TEI": "TEI surface",
    "adapters": "Adapters",
    "operations": "Operations",
}
# Every path has these statuses; they are not repeated for each.
_COMMON = {"404", "405"}


def reference() -> str:
    """The whole reference: all paths by section, then the errors."""
    # With all endpoints, some of which a setting enables.
    document = create_app(Settings(runtime_adapters=Path(), api_keys="key")).openapi()
    schemas = document["components"]["schemas"]
    sections: dict[str, list[str]] = {tag: [] for tag in _SECTIONS}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            sections[operation["tags"][0]].append(_operation(method, path, operation, schemas))
    parts = [part for tag, title in _SECTIONS.items() for part in (f"## {title}", *sections[tag])]
    return "\n\n".join([*parts, "## Errors", _errors()])


def _operation(method: str, path: str, operation: Schema, schemas: dict[str, Schema]) -> str:
    parts = [f"### {method.upper()} {path}", operation.get("description", "")]
    if "requestBody" in operation:
        schema = _body(operation["requestBody"])
        fields = [field for field in _fields(schema, schemas) if not _treatment(field[2])]
        parts += ["Request:", _table(fields, request=True), _other_fields(_resolve(schema, schemas))]
    response = _body(operation["responses"]["200"])
    fields = list(_fields(response, schemas))
    if fields:
        parts += ["Response:", _table(fields, request=False)]
    elif response:
        parts.append(f"Response: {_kind(response, schemas)}.")
    parts.append(f"Statuses: {', '.join(_statuses(operation['responses']))}.")
    return "\n\n".join(part for part in parts if part)


def _body(holder: Schema) -> Schema:
    return next((content.get("schema", {}) for content in holder.get("content", {}).values()), {})


def _statuses(responses: dict[str, Schema]) -> list[str]:
    """The sorted statuses, without common ones and without the 422 that FastAPI adds but the service never sends."""
    return [
        status
        for status in sorted(responses)
        if status not in _COMMON and "HTTPValidationError" not in _body(responses[status]).get("$ref", "")
    ]


def _resolve(schema: Schema, schemas: dict[str, Schema]) -> Schema:
    """Resolve a reference, which may be nullable."""
    options = [option for option in schema.get("anyOf", []) if option.get("type") != "null"]
    schema = options[0] if len(options) == 1 else schema
    return schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def _fields(schema: Schema, schemas: dict[str, Schema], prefix: str = "") -> Iterator[tuple[str, bool, Schema]]:
    """Iterate over the leaves of an object: dotted name, whether it is required, schema."""
    schema = _resolve(schema, schemas)
    if schema.get("type") == "array" and not prefix:
        return
    for name, field in schema.get("properties", {}).items():
        inner, path = _resolve(field, schemas), f"{prefix}{name}"
        items = _resolve(inner.get("items", {}), schemas)
        if "properties" in inner:
            yield from _fields(inner, schemas, f"{path}.")
        elif "properties" in items:
            yield from _fields(items, schemas, f"{path}[].")
        else:
            yield path, name in schema.get("required", []), field


def _treatment(schema: Schema) -> str:
    """How the service treats a field that it does not support; "" for any other field."""
    description: str = schema.get("description", "")
    if description.startswith(NO_EFFECT):
        return f"accepted without effect: {description.removeprefix(NO_EFFECT)}"
    allowed = [f"`{json.dumps(option['const'])}`" for option in schema.get("anyOf", []) if "const" in option]
    kept = f", except {allowed[0]}" if allowed else ""
    return f"rejected{kept}: {description.removeprefix(REJECTED)}" if description.startswith(REJECTED) else ""


def _other_fields(request: Schema) -> str:
    """The table of unsupported fields, and what happens to unknown ones."""
    found = {name: _treatment(field) for name, field in request["properties"].items()}
    rest = "rejected" if request.get("additionalProperties") is False else "accepted without effect, as in TEI"
    if not any(found.values()):
        return f"Any other field is {rest}."
    rows = [f"| `{name}` | {treatment} |" for name, treatment in found.items() if treatment]
    return "\n".join(["| other field | |", "|---|---|", *rows, f"| any other | {rest} |"])


def _table(fields: Any, *, request: bool) -> str:
    head = ["field", "type", "default", "meaning"] if request else ["field", "type", "meaning"]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, required, schema in fields:
        default = schema.get("default")
        shown = "required" if required else f"`{json.dumps(default)}`" if default is not None else ""
        cells = [f"`{name}`", _kind(schema, {}), *([shown] if request else []), _meaning(schema)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _meaning(schema: Schema) -> str:
    limits = {"minimum": "at least {:g}", "maximum": "at most {:g}", "maxLength": "at most {} characters"}
    options = [schema, *schema.get("anyOf", [])]
    found = [text.format(option[key]) for option in options for key, text in limits.items() if key in option]
    return "; ".join([*filter(None, [schema.get("description")]), *found])


def _kind(schema: Schema, schemas: dict[str, Schema]) -> str:
    """The type in words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return {"TextInput": '`{"text", "instruction"}`', "Token": "token", "Match": '`{"index", "score"}`'}.get(
            name, name
        )
    for union in ("anyOf", "oneOf"):
        if union in schema:
            options = [option for option in schema[union] if option.get("type") != "null"]
            kinds = list(dict.fromkeys(_kind(option, schemas) for option in options))
            items = _kind(options[-1]["items"], schemas) if options[-1].get("type") == "array" else None
            return f"{kinds[0]}, or a list of them" if [items] == kinds[:-1] else " or ".join(kinds)
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        return "pair of strings"
    if schema.get("type") == "array":
        inner = _kind(schema.get("items", {}), schemas)
        return f"list of ({inner})" if " or " in inner else f"list of {_plural(inner)}"
    return {"object": "object", "boolean": "true or false"}.get(schema.get("type", ""), schema.get("type", "any"))


def _plural(kind: str) -> str:
    first, separator, rest = kind.partition(" of ")
    return kind if kind.startswith("`") else f"{first}s{separator}{rest}"


def _errors() -> str:
    rows = ["| native | `type` | OpenAI | TEI | meaning |", "|---|---|---|---|---|"]
    for status, error in sorted(BY_STATUS.items()):
        (openai, openai_type), (tei, tei_type) = error.openai, error.tei
        rows.append(f"| {status} | `{error.type}` | {openai} `{openai_type}` | {tei} `{tei_type}` | {error.meaning} |")
    empty, kind = ERROR_CLASSES[EmptyError].tei
    rows += ["", f"An empty list or a blank text is a 422; on the TEI surface it is {empty} `{kind}`."]
    rows += ["", 'The Cohere surface has the statuses of the OpenAI surface, and the body `{"message"}`.']
    return "\n".join(rows)
