"""What every section of a profile is made of."""

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict


class Section(BaseModel):
    """A table of a profile: no key that is not known, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def live(unit: str = "") -> JsonDict:
    """`json_schema_extra` of a key that may change while the program runs, with its unit."""
    return {"live": True, "unit": unit} if unit else {"live": True}
