"""Settings: what each combination of variables means, and the one line for those that mean nothing."""

from typing import Any

import pytest
from sqlalchemy import make_url

from chassis.agents.models import NoModelError, resolve_model
from chassis.agents.settings import AgentSettings
from chassis.database.settings import DatabaseSettings
from chassis.database.url import database_url
from chassis.http.settings import ApiSettings
from chassis.settings import RuntimeEnv, SettingsError, read_bool

MODEL = "openai:gpt-6.1-terra"
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


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_line_break_that_echo_leaves_at_the_end_of_a_secret(end: str) -> None:
    env = HOST | {"DB_PORT": "6543", "MIGRATE_DB_USER": "m", "MIGRATE_DB_PASS": "q"}
    expected = DatabaseSettings.from_env(env)
    assert DatabaseSettings.from_env({name: value + end for name, value in env.items()}) == expected
    url = {"DATABASE_URL": "postgresql://u:p@h/d"}
    assert DatabaseSettings.from_env(
        {"DATABASE_URL": url["DATABASE_URL"] + end}
    ) == DatabaseSettings.from_env(url)


@pytest.mark.parametrize("name", ["DB_HOST", "DB_PORT", "DB_USER", "DB_DATABASE"])
@pytest.mark.parametrize("blank", [" ", "\t", "\u00a0", "\u200b", "\ufeff"], ids=ascii)
def test_blank_around_a_name_is_none_of_it(name: str, blank: str) -> None:
    env = HOST | {"DB_PORT": "5432"}
    assert DatabaseSettings.from_env(env | {name: f"{blank}{env[name]}{blank}"}) == DatabaseSettings.from_env(
        env
    )


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"DB_PASS": "p "}, "DB_PASS begins or ends with a blank, which can't be seen"),
        ({"DB_PASS": " p\n"}, "DB_PASS begins or ends with a blank, which can't be seen"),
        ({"DB_HOST": "h\u200bost"}, "DB_HOST holds ZERO WIDTH SPACE (U+200B), which can't be seen"),
        ({"DB_USER": "u\u00a0v"}, "DB_USER holds NO-BREAK SPACE (U+00A0), which can't be seen"),
    ],
    ids=ascii,
)
def test_what_nobody_sees_is_named(env: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        DatabaseSettings.from_env(HOST | env)
    assert words in str(caught.value)


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
    assert AgentSettings.from_env({"AGENT_MODEL": ""}) == AgentSettings()
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
        (PRD | {"API_CORS_ORIGINS": "https://x,null"}, "open: API_CORS_ORIGINS=null lets every website in"),
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


@pytest.mark.parametrize(
    ("env", "values"),
    [
        ({"LOG_LEVEL": "info", "LOG_FORMAT": "JSON"}, {"log_level": "INFO", "log_format": "json"}),
        ({"LOG_LEVEL": " Warn\n", "LOG_FORMAT": "Text\r\n"}, {"log_level": "WARNING", "log_format": "text"}),
        ({"RUNTIME_ENV": "DEV"}, {"runtime_env": RuntimeEnv.DEV, "docs": True}),
        (
            HOST | {"RUNTIME_ENV": "Prd\n"},
            {"runtime_env": RuntimeEnv.PRD, "docs": False, "log_format": "json"},
        ),
        ({"API_DOCS": "FALSE ", "API_PING_SECONDS": " 5\n"}, {"docs": False, "ping_seconds": 5}),
        ({"API_DOCS": "", "LOG_LEVEL": " "}, {"docs": True, "log_level": "INFO"}),
    ],
    ids=str,
)
def test_what_can_only_be_meant_in_one_way(env: dict[str, str], values: dict[str, Any]) -> None:
    assert values.items() <= ApiSettings.from_env(env).model_dump().items()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"LOG_FORMAT": "xml"}, "LOG_FORMAT: Input should be 'json' or 'text', not 'xml'"),
        (
            {"LOG_LEVEL": "lo\u200bud"},
            "LOG_LEVEL holds ZERO WIDTH SPACE (U+200B), which can't be seen: remove it.",
        ),
        (
            {"RUNTIME_ENV": "d\x07ev"},
            "RUNTIME_ENV holds a character (U+0007), which can't be seen: remove it.",
        ),
    ],
    ids=str,
)
def test_message_names_what_is_wrong_and_nothing_else(env: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ApiSettings.from_env(env)
    assert str(caught.value) == message


def test_wrong_runtime_env_blames_no_setting_that_is_well() -> None:
    with pytest.raises(SettingsError) as caught:
        ApiSettings.from_env({"RUNTIME_ENV": "prod"})
    assert str(caught.value).startswith("RUNTIME_ENV: ")
    assert ";" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-x\n", " sk-x", "sk-x\t"])
def test_key_with_an_end_that_nobody_sees(key: str) -> None:
    with pytest.raises(
        NoModelError,
        match=r"OPENAI_API_KEY has a character at an end that can't be seen, a blank or a line break",
    ):
        resolve_model("openai:gpt", RuntimeEnv.PRD, {"OPENAI_API_KEY": key})


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://App.Example.com", ("https://app.example.com",)),
        ("https://x:443 http://x:80,http://x:8080", ("https://x", "http://x", "http://x:8080")),
        ("https://*.Example.com", ("https://*.example.com",)),
        ("app://obsidian.md, capacitor://localhost", ("app://obsidian.md", "capacitor://localhost")),
        ("tauri://localhost,http://tauri.localhost", ("tauri://localhost", "http://tauri.localhost")),
        ("vscode-webview://*,null,file://", ("vscode-webview://*", "null", "file://")),
        ("https://bücher.example", ("https://xn--bcher-kva.example",)),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
        ("http://*.localhost:3000", ("http://*.localhost:3000",)),
    ],
)
def test_origins(text: str, origins: tuple[str, ...]) -> None:
    assert ApiSettings.from_env({"API_CORS_ORIGINS": text}).cors_origins == origins


@pytest.mark.parametrize(
    "origin",
    [
        "https://a.example/", "https://a.example/app", "app.example.com", "localhost:3000", "https://*",
        "https://*.com", "https://a.*.example", "https://*a.example", "https://u@a.example", "https://x:99999",
        "https://", "https://x?y", "'https://x'", '"https://x"', "//x", "https:x", "NULL ORIGIN", "x*",
    ],
)  # fmt: skip
def test_message_says_what_an_origin_looks_like(origin: str) -> None:
    with pytest.raises(SettingsError, match=r"^API_CORS_ORIGINS: .*is no origin: write SCHEME://HOST or"):
        ApiSettings.from_env({"API_CORS_ORIGINS": origin})


def test_model_of_the_settings() -> None:
    """The default model can be made: its name and its package are there."""
    assert resolve_model(MODEL, RuntimeEnv.DEV, {}).model_name == "demonstration"
    with pytest.raises(NoModelError, match=r"set [A-Z]+_API_KEY"):
        resolve_model(MODEL, RuntimeEnv.STG, {})


def test_model_with_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.setenv(variable, "not-a-real-key")
    provider, _, name = MODEL.partition(":")
    model = resolve_model(MODEL, RuntimeEnv.PRD)
    assert model.model_name == name
    assert provider in model.system


@pytest.mark.parametrize("name", ["nobody:model", "no-provider"])
def test_model_that_nobody_knows(name: str) -> None:
    with pytest.raises(NoModelError, match=f"The model {name}"):
        resolve_model(name, RuntimeEnv.DEV, {})
