"""What every section of the settings is made of.

A field either changes the result, and is part of the fingerprint, or it only changes how the work is carried out; the
latter are declared with `execution(...)`. A golden test lists them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Share = Annotated[float, Field(ge=0.0, le=1.0)]
OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]
Address = Annotated[str, Field(min_length=1)]
Ranks = Annotated[list[PositiveInt], Field(min_length=1)]


def execution(default: Any = ..., *, description: str, **limits: Any) -> Any:
    """A field that changes how the work is carried out, never its result."""
    return Field(default, description=description, json_schema_extra={"execution": True}, **limits)


class Section(BaseModel):
    """A closed section: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", validate_default=True, use_attribute_docstrings=True, frozen=True)

    def result_fields(self) -> dict[str, Any]:
        """The fields that change the result, as plain JSON values: what the fingerprint hashes."""
        plain = self.model_dump(mode="json")
        kept: dict[str, Any] = {}
        for name, info in type(self).model_fields.items():
            if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("execution"):
                continue
            value = getattr(self, name)
            kept[name] = value.result_fields() if isinstance(value, Section) else plain[name]
        return kept
