"""Every key of a profile as its schema describes it: for people, tables and the page."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from firmware_config.profile import Profile

_TYPES = {
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
}


@dataclass(frozen=True)
class Key:
    """One key: its dotted name and its JSON schema."""

    name: str
    schema: dict[str, Any]

    @property
    def section(self) -> str:
        """The table it is in; empty at the top of the file."""
        return self.name.rpartition(".")[0]

    @property
    def live(self) -> bool:
        """Whether it may change while the program runs."""
        return bool(self.schema.get("live"))

    @property
    def description(self) -> str:
        """What it is, with its unit."""
        return str(self.schema["description"])

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return "default" not in self.schema

    @property
    def values(self) -> str:
        """What it may be, in words."""
        return _values(self.schema)


def _values(schema: Mapping[str, Any]) -> str:
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of: {_values(schema.get('items', {}))}"
    if "anyOf" in schema:
        either = [each for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(map(_values, either))
    name = str(schema.get("type", "string"))
    if schema.get("format") == "path":
        return "path"
    bounds = [
        f"{words} {schema[bound]:g}"
        for bound, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if bound in schema
    ]
    return " ".join((_TYPES.get(name, name), *bounds))


def _reference(schema: Mapping[str, Any]) -> str | None:
    """The name of the section that a property is, perhaps an optional one."""
    for each in (schema, *schema.get("anyOf", []), *schema.get("allOf", [])):
        if "$ref" in each:
            return str(each["$ref"]).rpartition("/")[2]
    return None


def _walk(model: Mapping[str, Any], sections: Mapping[str, Any], above: str) -> Iterator[Key]:
    for name, schema in model["properties"].items():
        section = _reference(schema)
        if section is None:
            yield Key(above + name, schema)
        else:
            yield from _walk(sections[section], sections, f"{above}{name}.")


@cache
def keys() -> Mapping[str, Key]:
    """Every key of a profile by its dotted name, in the order of the sections."""
    schema = Profile.model_json_schema()
    return MappingProxyType({key.name: key for key in _walk(schema, schema["$defs"], "")})


def sections() -> dict[str, str]:
    """Every section by its dotted name, with what it is about."""
    schema = Profile.model_json_schema()
    found: dict[str, str] = {}

    def walk(model: Mapping[str, Any], above: str) -> None:
        for name, each in model["properties"].items():
            if section := _reference(each):
                found[above + name] = str(schema["$defs"][section].get("description", ""))
                walk(schema["$defs"][section], f"{above}{name}.")

    walk(schema, "")
    return found


def values_of(profile: Profile) -> dict[str, Any]:
    """The JSON form of every key's value, by its dotted name."""
    content = profile.model_dump(mode="json")

    def value(name: str) -> Any:
        found: Any = content
        for part in name.split("."):
            found = found[part]
        return found

    return {name: value(name) for name in keys()}
