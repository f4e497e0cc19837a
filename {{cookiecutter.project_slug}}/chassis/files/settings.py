"""Which files are taken, and how large, from variables that start with ``API_FILE_``."""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from chassis.environment import EnvironmentSettings, Listed

# Those that the models of all four providers read; JSON they are sent as plain text.
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
PDF = "application/pdf"
JSON = "application/json"
TEXTS = ("text/plain", "text/markdown", "text/csv", JSON)
NONE = "none"


def _known(types: tuple[str, ...]) -> tuple[str, ...]:
    types = tuple(name for name in types if name != NONE)
    known = (*IMAGES, PDF, *TEXTS)
    if wrong := [name for name in types if name not in known]:
        raise ValueError(
            f"{wrong[0]} can't be told by its contents: name some of {', '.join(known)}, or none"
        )
    return types


Types = Annotated[Listed, AfterValidator(_known)]


class FileSettings(EnvironmentSettings):
    """What holds for the files of all interfaces."""

    model_config = ConfigDict(alias_generator=lambda name: f"API_FILE_{name}".upper(), populate_by_name=True)

    types: Types = Field(default=(*IMAGES, PDF, *TEXTS), description="those that are taken; none: no files")
    max_bytes: int = Field(default=5_000_000, gt=0, description="of one file")
    max_count: int = Field(default=10, gt=0, description="of files that one request may bring")
    request_bytes: int = Field(
        default=15_000_000, gt=0, description="of all of them, and of those of a history that a model is sent"
    )
    owner_bytes: int = Field(default=1_000_000_000, gt=0, description="of all that is kept for one owner")
    urls: bool = Field(
        default=False, description="whether a picture's address is passed on for the provider to fetch"
    )
