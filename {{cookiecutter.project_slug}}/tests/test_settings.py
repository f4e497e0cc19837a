"""Settings: what each combination of variables means, and the one line for those that mean nothing."""

import pytest
from sqlalchemy import make_url

from agents.models import NoModelError, resolve_model
from agents.settings import DEFAULT_MODEL, AgentSettings
from api.settings import ApiSettings
from db.settings import DatabaseSettings, RuntimeEnv, SettingsError, database_url, read_bool

HOST = {"DB_HOST": "h", "DB_USER": "u", "DB_PASS": "p", "DB_DATABASE": "d"}
ODD = "a@b:c/d#e%f g?ü"


@pytest.mark.parametrize(
    ("env", "url"),
    [
        (HOST, "postgresql+psycopg://u:p@h:5432/d"),
        (HOST | {"DB_PORT": "6543"}, "postgresql+psycopg://u:p@h:6543/d"),
        (HOST | {"DB_PASS": ""}, "postgresql+psycopg://u@h:5432/d"),
        (HOST | {"DATABASE_URL": "postgres://x:y@z/w"}, "postgresql+psycopg://x:y@z/w"),
        (
            {"DATABASE_URL": "postgresql://x@z/w?sslmode=require"},
            "postgresql+psycopg://x@z/w?sslmode=require",
        ),
        ({"DATABASE_URL": "postgresql+psycopg://x@z/w", "RUNTIME_ENV": "prd"}, "postgresql+psycopg://x@z/w"),
        (HOST | {"RUNTIME_ENV": "stg"}, "postgresql+psycopg://u:p@h:5432/d"),
    ],
)
def test_database_url(env: dict[str, str], url: str) -> None:
    assert database_url(DatabaseSettings.from_env(env)) == make_url(url)


def test_no_password_can_break_the_url() -> None:
    settings = DatabaseSettings.from_env(HOST | {"DB_PASS": ODD})
    assert settings.url is not None
    assert settings.url.password == ODD
    assert make_url(settings.url.render_as_string(hide_password=False)).password == ODD
    assert ODD not in repr(settings) + str(settings.url)


@pytest.mark.parametrize(
    "env", [{}, {"RUNTIME_ENV": "dev"}, {"RUNTIME_ENV": "", "DATABASE_URL": "", "DB_HOST": ""}]
)
def test_embedded_database_is_the_default_of_development(env: dict[str, str]) -> None:
    assert DatabaseSettings.from_env(env) == DatabaseSettings(RuntimeEnv.DEV, None, None)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"RUNTIME_ENV": "prod"}, "RUNTIME_ENV must be dev, stg or prd"),
        ({"RUNTIME_ENV": "prd"}, "Set DATABASE_URL, or DB_HOST"),
        ({"RUNTIME_ENV": "stg"}, "Set DATABASE_URL, or DB_HOST"),
        ({"DB_HOST": "h"}, "DB_USER, DB_DATABASE is missing"),
        (HOST | {"RUNTIME_ENV": "prd", "DB_PASS": ""}, "DB_PASS is missing"),
        (HOST | {"DB_PORT": "x"}, "DB_PORT must be a number"),
        (HOST | {"DB_PORT": "0"}, "DB_PORT must be a number"),
        (HOST | {"DB_DRIVER": "postgresql+asyncpg"}, "DB_DRIVER names the driver"),
        ({"DATABASE_URL": "mysql://u:secret@h/d"}, "DATABASE_URL names the driver"),
        ({"DATABASE_URL": "u:secret@h"}, "DATABASE_URL can't be read"),
        ({"DATABASE_URL": "postgresql://u:secret@h:port/d"}, "DATABASE_URL can't be read"),
    ],
)
def test_wrong_database_settings(env: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        DatabaseSettings.from_env(env)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "truth"),
    [(value, True) for value in ("True", "true", "1", "yes", "ON", " true ")]
    + [(value, False) for value in ("False", "false", "0", "no", "OFF", "")],
)
def test_truth(value: str, truth: bool) -> None:
    assert read_bool({"X": value}, "X", default=not truth) is truth


def test_truth_that_is_none() -> None:
    assert read_bool({}, "X", default=True) is True
    with pytest.raises(SettingsError, match="X must be True or False, not 'ture'"):
        read_bool({"X": "ture"}, "X")


def test_agent_settings() -> None:
    assert AgentSettings.from_env({"AGENT_MODEL": ""}) == AgentSettings(model=DEFAULT_MODEL)
    assert AgentSettings.from_env({"AGENT_TIMEOUT": "1.5"}).timeout == 1.5
    with pytest.raises(SettingsError, match=r"AGENT_TIMEOUT: .*; AGENT_REQUEST_LIMIT: .*greater than 0"):
        AgentSettings.from_env({"AGENT_TIMEOUT": "soon", "AGENT_REQUEST_LIMIT": "0"})


PRD = HOST | {"RUNTIME_ENV": "prd"}


def test_api_settings() -> None:
    dev = ApiSettings.from_env({"API_CORS_ORIGINS": "https://a.example, http://localhost:3000,"})
    assert (dev.keys_required, dev.docs, dev.log_format) == (False, True, "text")
    assert dev.cors_origins == ("https://a.example", "http://localhost:3000")
    prd = ApiSettings.from_env(PRD)
    assert (prd.keys_required, prd.docs, prd.log_format) == (True, False, "json")
    assert prd.cors_origins == ()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (
            {"API_KEYS_REQUIRED": "maybe", "API_BODY_SECONDS": "0"},
            "API_KEYS_REQUIRED: .*; API_BODY_SECONDS: ",
        ),
        ({"API_CORS_ORIGINS": "https://a.example/"}, "API_CORS_ORIGINS: "),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL: "),
        ({"RUNTIME_ENV": "prd"}, "No database is set"),
        (PRD | {"API_KEYS_REQUIRED": "False"}, "RUNTIME_ENV=prd no door may be open: API_KEYS_REQUIRED"),
        (PRD | {"RUNTIME_ENV": "stg", "API_DOCS": "True"}, "RUNTIME_ENV=stg no door may be open: API_DOCS"),
        (PRD | {"API_CORS_ORIGINS": "*"}, "open: API_CORS_ORIGINS"),
        (PRD | {"DB_PASS": "for-development-only"}, "open: the database has the password of compose.yaml"),
        (PRD | {"MIGRATE_DB_USER": "m", "MIGRATE_DB_PASS": "for-development-only"}, "open: the database"),
        (
            {
                "RUNTIME_ENV": "prd",
                "DATABASE_URL": "postgresql://u:for-development-only@h/d",
                "API_DOCS": "1",
            },
            "open: API_DOCS=.*; the database has",
        ),
    ],
)
def test_wrong_api_settings(env: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        ApiSettings.from_env(env)
    assert "\n" not in str(caught.value)


def test_model_of_the_settings() -> None:
    """The default model can be made: its name and its package are there."""
    assert resolve_model(DEFAULT_MODEL, RuntimeEnv.DEV, {}).model_name == "demonstration"
    with pytest.raises(NoModelError, match=r"set [A-Z]+_API_KEY"):
        resolve_model(DEFAULT_MODEL, RuntimeEnv.STG, {})


def test_model_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.setenv(variable, "not-a-real-key")
    provider, _, name = DEFAULT_MODEL.partition(":")
    model = resolve_model(DEFAULT_MODEL, RuntimeEnv.PRD)
    assert model.model_name == name
    assert provider in model.system


@pytest.mark.parametrize("name", ["nobody:model", "no-provider"])
def test_model_that_nobody_knows(name: str) -> None:
    with pytest.raises(NoModelError, match=f"AGENT_MODEL={name}"):
        resolve_model(name, RuntimeEnv.DEV, {})
