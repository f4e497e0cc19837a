"""What is read from the environment: the form of truth and times, where the process runs, where the workspace is.

Standard library only: every migration imports this module.
"""

import math
import tomllib
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path

WORKSPACE = Path(__file__).resolve().parent.parent
ALEMBIC_INI = WORKSPACE / "db" / "alembic.ini"

TRUE = frozenset({"true", "1", "yes", "on"})
FALSE = frozenset({"false", "0", "no", "off", ""})

# What copying leaves around a text, and in it.
BLANKS = " \t\r\n\u00a0\u200b\ufeff"
UNSEEN = {"\u200b": "ZERO WIDTH SPACE", "\ufeff": "BYTE ORDER MARK", "\u00a0": "NO-BREAK SPACE"}


class ChassisError(Exception):
    """Something that the reader can mend: the message says what is wrong and what to do."""


class SettingsError(ChassisError, ValueError):
    """A setting is missing or can't be read; the message says which one and what would be right."""


class RuntimeEnv(StrEnum):
    """Where the process runs. Only ``dev`` may fall back to the embedded database."""

    DEV = "dev"
    STG = "stg"
    PRD = "prd"


def trimmed(env: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the environment without what nobody means around the values of these variables.

    That is blanks and line breaks. Of a password (`..._PASS`) it is only the line break with which `echo` ends
    a file; a blank may be part of it.

    Raises:
        SettingsError: for a value that holds what can't be seen, saying what.
    """
    values = dict(env)
    for name in names:
        if name in env:
            values[name] = _trim(name, env[name])
    return values


def _trim(name: str, text: str) -> str:
    if name.endswith("_PASS"):
        value = text.rstrip("\r\n")
        if value != value.strip(BLANKS):
            raise SettingsError(
                f"{name} begins or ends with a blank, which can't be seen: remove it. Where it is meant, write "
                "the password into DATABASE_URL, with %20."
            )
        return value
    value = text.strip(BLANKS)
    for character in value:
        if character in UNSEEN or not (character.isprintable() or character.isspace()):
            what = UNSEEN.get(character, "a character")
            raise SettingsError(
                f"{name} holds {what} (U+{ord(character):04X}), which can't be seen: remove it."
            )
    return value


def read_bool(env: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """Read the truth of `name`: True, 1, yes, on or False, 0, no, off, in any case.

    Raises:
        SettingsError: for anything else, so that a typing error never counts as a silent no.
    """
    value = env.get(name)
    if value is None:
        return default
    if value.strip().lower() in TRUE:
        return True
    if value.strip().lower() in FALSE:
        return False
    raise SettingsError(f"{name} must be True or False, not {value!r}.")


def read_seconds(env: Mapping[str, str], name: str, default: float) -> float:
    """Read a time in seconds, `default` where it isn't set.

    Raises:
        SettingsError: for anything but a number from zero up.
    """
    try:
        seconds = float(env.get(name) or default)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < math.inf:
        raise SettingsError(f"{name} must be a number of seconds, not {env[name]!r}.")
    return seconds


def read_runtime_env(env: Mapping[str, str]) -> RuntimeEnv:
    """Read RUNTIME_ENV, ``dev`` where it isn't set.

    Raises:
        SettingsError: for a name that is none of dev, stg, prd.
    """
    value = env.get("RUNTIME_ENV", "").strip() or RuntimeEnv.DEV.value
    try:
        return RuntimeEnv(value.lower())
    except ValueError:
        raise SettingsError(f"RUNTIME_ENV must be dev, stg or prd, not {value!r}.") from None


@cache
def read_project() -> Mapping[str, str]:
    """Return the table `project` of the workspace's pyproject.toml: its name, description and version."""
    with (WORKSPACE / "pyproject.toml").open("rb") as file:
        project: Mapping[str, str] = tomllib.load(file)["project"]
    return project
