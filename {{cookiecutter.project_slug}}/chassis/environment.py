"""Settings of the service as pydantic models, each field from the environment variable of its alias."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from chassis.settings import SettingsError, trimmed


def _split(value: Any) -> Any:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


# Several with commas between them.
Listed = Annotated[tuple[str, ...], BeforeValidator(_split)]


class EnvironmentSettings(BaseModel):
    """The base of such models."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the settings; an empty variable counts as one that isn't set.

        Raises:
            SettingsError: naming each that is missing or wrong.
        """
        values = trimmed(env, [str(field.alias) for field in cls.model_fields.values()])
        try:
            return cls.model_validate({name: value for name, value in values.items() if value})
        except ValidationError as error:
            # One whose default depends on a wrong one is well.
            wrong = [item for item in error.errors() if item["type"] != "default_factory_not_called"]
            raise SettingsError("; ".join(_explain(item) for item in wrong)) from None


def _explain(item: ErrorDetails) -> str:
    own = item["type"] == "value_error"
    words = item["msg"].removeprefix("Value error, ") if own else f"{item['msg']}, not {item['input']!r}"
    # What is wrong with several of them together says itself which.
    return f"{item['loc'][0]}: {words}" if item["loc"] else words
