"""The application: `uvicorn api.main:app`."""

import logging
import os
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from pydantic_ai.models import Model
from pydantic_ai.models.function import FunctionModel

from agents.callers import Keys
from agents.models import NoModelError, resolve_model
from agents.runs import Runner
from agents.settings import AgentSettings
from agents.store import DatabaseConversationStore
from agents.upkeep import upkeep
from api import limits, logs, problems, telemetry
from api.readiness import Readiness
from api.routes import routers
from api.services import Services
from api.settings import ApiSettings
from db import embedded
from db.migrations.options import Options as MigrationOptions
from db.session import async_engine, session_factory
from db.settings import WORKSPACE, DatabaseSettings, RuntimeEnv, SettingsError, database_url

logger = logging.getLogger(__name__)


def create_app(env: Mapping[str, str] = os.environ, model: Model | None = None) -> FastAPI:
    """Make the application. The database is first touched when it starts to serve.

    Args:
        env: where all settings are read from.
        model: answers all runs in place of the one that the settings name.

    Raises:
        SettingsError: where a setting is missing or wrong.
    """
    settings = ApiSettings.from_env(env)
    agent_settings = AgentSettings.from_env(env)
    database = DatabaseSettings.from_env(env)
    when_ahead = MigrationOptions.read(env, {}).when_ahead
    project = _project()
    logs.configure(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        engine = async_engine(database_url(database), application_name=project["name"])
        if telemetry.is_on(env):
            telemetry.instrument(engine)
        try:
            sessions = session_factory(engine)
            store = DatabaseConversationStore(sessions)
            chosen = model or _choose_model(agent_settings.model, settings.runtime_env, env)
            runner = Runner(sessions, store, chosen, agent_settings)
            readiness = Readiness(engine, when_ahead)
            async with upkeep(runner, agent_settings):
                yield {"services": Services(settings, sessions, readiness, Keys(sessions), runner, store)}
                await runner.close()
        finally:
            await engine.dispose()
            if database.url is None:
                embedded.stop()

    app = FastAPI(
        title=project["name"],
        description=project["description"],
        version=project["version"],
        lifespan=lifespan,
        telemetry=telemetry.config(project["name"], env),
        openapi_url="/openapi.json" if settings.docs else None,
        redoc_url=None,
        responses={"4XX": problems.OPENAPI, "5XX": problems.OPENAPI},
    )
    problems.install(app)
    limits.install(app, settings)
    for router in routers(settings, env):
        app.include_router(router)
    return app


def _choose_model(name: str, runtime_env: RuntimeEnv, env: Mapping[str, str]) -> Model | NoModelError:
    # The service starts without a model too: health checks and conversations don't need one.
    try:
        model = resolve_model(name, runtime_env, env)
    except NoModelError as reason:
        logger.warning("Runs will be refused. %s", reason)
        return reason
    if isinstance(model, FunctionModel):
        logger.warning("There is no key for %s, so a demonstration model answers.", name)
    return model


def _project() -> Mapping[str, str]:
    with (WORKSPACE / "pyproject.toml").open("rb") as file:
        project: Mapping[str, str] = tomllib.load(file)["project"]
    return project


try:
    app = create_app()
except SettingsError as error:
    sys.exit(f"The service can't start: {error}")
