"""What commands print as JSON, held to their schemas."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

SCHEMAS = {
    path.name.removesuffix(".json"): json.loads(path.read_text())
    for path in files("bpfpatch").joinpath("data", "schemas").iterdir()
}


def strict(schema: Any) -> Any:
    """A schema by which objects have no keys but those that it names."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: strict(one) for key, one in schema.items()}
    if "properties" in schema and "type" in schema:
        out.setdefault("additionalProperties", False)
    return out


def check(name: str, value: Any) -> None:
    """Hold a value to the schema of a command, and to nothing more than that."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = strict(SCHEMAS[name])
    error = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema).iter_errors(value)
    )
    assert error is None, f"{error.json_path}: {error.message[:300]}"
