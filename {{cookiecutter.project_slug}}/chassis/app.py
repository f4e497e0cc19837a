"""The application: `create_app` puts the chassis together with the agents and routers that it is given."""

import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.params import Depends as DependsOn
from pydantic_ai.models import Model
from sqlalchemy import URL

from chassis import __version__, telemetry
from chassis.agents.choice import Models
from chassis.agents.registry import Agents, find_agents
from chassis.agents.settings import AgentSettings
from chassis.background.schedules import Schedule, check
from chassis.background.settings import BackgroundSettings
from chassis.conversations.store import DatabaseConversationStore
from chassis.database import embedded
from chassis.database.engine import Sessions, async_engine, session_factory
from chassis.database.settings import DatabaseSettings
from chassis.database.url import database_url
from chassis.files.settings import FileSettings
from chassis.files.store import FileStore
from chassis.health.readiness import Readiness
from chassis.http import logs, middleware, problems
from chassis.http.settings import ApiSettings
from chassis.keys.authentication import authenticate
from chassis.keys.caller import Caller, Keys
from chassis.keys.limits import admit_later
from chassis.migrations.options import Options as MigrationOptions
from chassis.retention.housekeeping import HAS_DOCUMENTS, housekeeping
from chassis.retention.settings import RetentionSettings
from chassis.runs.heartbeat import heartbeat
from chassis.runs.history import WindowedModel
from chassis.runs.runner import Runner
from chassis.settings import ALEMBIC_INI, RuntimeEnv, SettingsError, read_project
from chassis.telemetry import TelemetrySettings
from chassis.users.accounts import Users
from chassis.users.settings import UserSettings
from chassis.users.tokens import TokenIssuer

__all__ = ["Lifespan", "Schedule", "create_app", "find_agents", "find_routers"]

# What a service does around its serving; what it yields, routes find in `request.state` and tools in `ctx.deps.resources`.
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]

# In the order of the documentation. Those that an answer left out aren't there.
FEATURES = (
    "health.routes",
    "runs.routes",
    "runs.feedback",
    "conversations.routes",
    "files.routes",
    "knowledge.routes",
    "keys.routes",
    "retention.routes",
    "protocols.vercel",
    "protocols.ag_ui",
    "protocols.openai",
    "protocols.responses",
    "chat.routes",
)
HERE = Path(__file__).parent

logger = logging.getLogger(__name__)


def find_routers(package: ModuleType) -> list[APIRouter]:
    """Return the router of each of the package's modules that sets `router`.

    Its paths ask for an API key where one is needed, unless the module says `PUBLIC = True`.
    """
    routers = []
    for found in iter_modules(package.__path__):
        module = import_module(f"{package.__name__}.{found.name}")
        if hasattr(module, "router"):
            routers.append(APIRouter(dependencies=_guards(module)))
            routers[-1].include_router(module.router)
    return routers


def create_app(
    *,
    agents: Agents,
    default_model: str,
    routers: Sequence[APIRouter] = (),
    lifespan: Lifespan | None = None,
    schedules: Sequence[Schedule] = (),
    alembic_ini: Path = ALEMBIC_INI,
    env: Mapping[str, str] = os.environ,
    model: Model | None = None,
    redact: Sequence[str] = (),
) -> FastAPI:
    """Make the application. The database is first touched when it starts to serve.

    Args:
        agents: what to serve, see `find_agents`.
        default_model: PROVIDER:MODEL, which answers unless AGENT_MODEL names another.
        routers: the service's own endpoints, see `find_routers`.
        lifespan: what to do around the serving; it finds the database's sessions in `app.state.sessions`.
        schedules: what agents are asked at certain times, where AGENT_BACKGROUND is set.
        alembic_ini: tells where the revisions are that the database must have.
        env: where all settings are read from.
        model: answers all runs in place of the one that the settings name.
        redact: regular expressions of what no trace with content may hold, besides secrets of usual forms.

    Raises:
        SystemExit: where a setting is missing or wrong, with a line that says so.
    """
    try:
        settings = ApiSettings.from_env(env)
        agent_settings = AgentSettings.from_env(env)
        file_settings = FileSettings.from_env(env)
        user_settings = UserSettings.from_env(env)
        knowledge_settings = _knowledge_settings(env)
        retention = RetentionSettings.from_env(env)
        telling = TelemetrySettings.from_env(env)
        background_settings = BackgroundSettings.from_env(env)
        if schedules:
            check(schedules, agents)
        database = DatabaseSettings.from_env(env)
        when_ahead = MigrationOptions.read(env, {}).when_ahead
    except SettingsError as error:
        sys.exit(f"The service can't start: {error}")
    project = read_project()
    logs.configure(settings)

    @asynccontextmanager
    async def serve(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        logger.info("%s %s on chassis %s", project["name"], project["version"], __version__)
        engine = async_engine(database_url(database), application_name=project["name"])
        stop_telling = telemetry.start(engine, telling)
        try:
            sessions = session_factory(engine)
            store = DatabaseConversationStore(sessions)
            files = FileStore(sessions, file_settings)
            models = Models(
                default_model,
                agent_settings,
                settings.runtime_env,
                env,
                instead=model,
                wrap=partial(
                    WindowedModel,
                    messages=agent_settings.history_messages,
                    chars=agent_settings.history_chars,
                    fill=files.fill,
                ),
            )
            models.warn()
            app.state.sessions = sessions
            async with lifespan(app) if lifespan else nullcontext({}) as resources:
                keys, users = Keys(sessions), Users(sessions, user_settings)
                runner = Runner(agents, sessions, store, models, agent_settings, resources)
                runner.check_room = files.check_room
                background = _background(
                    runner,
                    sessions,
                    background_settings,
                    schedules,
                    settings,
                    engine.url,
                    agent_settings.stale_seconds,
                    partial(admit_later, sessions, keys, users),
                )
                async with heartbeat(runner, agent_settings), housekeeping(sessions, retention):
                    async with background:
                        yield {
                            **resources,
                            "settings": settings,
                            "sessions": sessions,
                            "agents": agents,
                            "models": models,
                            "keys": keys,
                            "users": users,
                            "user_settings": user_settings,
                            "issuer": _issuer(user_settings),
                            "store": store,
                            "files": files,
                            "knowledge_settings": knowledge_settings,
                            "runner": runner,
                            "readiness": Readiness(engine, alembic_ini, when_ahead),
                        }
                    await runner.close()
        finally:
            stop_telling()
            await engine.dispose()
            if database.url is None:
                embedded.stop()

    app = FastAPI(
        title=project["name"],
        description=project["description"],
        version=project["version"],
        lifespan=serve,
        telemetry=telemetry.config(project["name"], telling, env, redact),
        openapi_url="/openapi.json" if settings.docs else None,
        redoc_url=None,
        responses={"4XX": problems.OPENAPI, "5XX": problems.OPENAPI},
    )
    problems.install(app)
    middleware.install(app, settings)
    modules = _own_modules(settings, env)
    for module in modules:
        app.include_router(module.router, dependencies=_guards(module))
    for router in routers:
        app.include_router(router)
    # Last what says that something isn't served here, since a team's own endpoint may be just that.
    for module in modules:
        if hasattr(module, "elsewhere"):
            app.include_router(module.elsewhere, dependencies=_guards(module))
    return app


def _own_modules(settings: ApiSettings, env: Mapping[str, str]) -> list[ModuleType]:
    there = [name for name in FEATURES if HERE.joinpath(*name.split(".")).with_suffix(".py").exists()]
    modules = [import_module(f"chassis.{name}") for name in there]
    return [m for m in modules if getattr(m, "enabled", lambda *_: True)(settings, env)]


def _knowledge_settings(env: Mapping[str, str]) -> Any:
    """Return what holds for documents, where there are such."""
    if not HAS_DOCUMENTS:
        return None
    return import_module("chassis.knowledge.settings").KnowledgeSettings.from_env(env)


def _guards(module: ModuleType) -> list[DependsOn]:
    return [] if getattr(module, "PUBLIC", False) else [Depends(authenticate)]


def _background(
    runner: Runner,
    sessions: Sessions,
    settings: BackgroundSettings,
    schedules: Sequence[Schedule],
    api: ApiSettings,
    url: URL,
    stale_seconds: float,
    check: Callable[[Caller], Awaitable[None]],
) -> AbstractAsyncContextManager[None]:
    if not settings.background:
        if schedules:
            logger.warning("Nothing runs on a schedule here: AGENT_BACKGROUND isn't set.")
        return nullcontext()
    # Here, since its engine takes a tenth of a second to load.
    from chassis.background.carrier import Carrier
    from chassis.background.webhooks import Webhooks

    webhooks = Webhooks(settings, plain=api.runtime_env is RuntimeEnv.DEV)
    runner.queue = carrier = Carrier(
        runner, sessions, settings, webhooks, schedules, url, stale_seconds, check
    )
    return carrier.carrying()


def _issuer(settings: UserSettings) -> TokenIssuer | None:
    if settings.issuer is None:
        return None
    # Here, since the libraries that check a token take a tenth of a second to load.
    from chassis.users.issuer import Issuer

    return Issuer(settings)
