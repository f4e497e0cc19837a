"""Which model answers a run: the request's, the agent's own, or the service's, and who stands in for it."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from pydantic_ai import Agent
from pydantic_ai.exceptions import (
    ModelConnectionError,
    ModelHTTPError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelServerError,
    ModelUnavailableError,
)
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel

from chassis.agents.models import NoModelError, resolve_model
from chassis.agents.settings import AgentSettings
from chassis.errors import RunError
from chassis.http.dependencies import from_state
from chassis.settings import RuntimeEnv

# What another model may do better: this one is down, out of quota, or doesn't answer. What is wrong with the request,
# or with our key, is for somebody to mend.
PASSING = (
    ModelConnectionError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelServerError,
    ModelUnavailableError,
)

logger = logging.getLogger(__name__)


class Models:
    """Finds the model of a run. Each is made once, and kept."""

    def __init__(
        self,
        default: str,
        settings: AgentSettings,
        runtime_env: RuntimeEnv,
        env: Mapping[str, str] = os.environ,
        *,
        instead: Model | None = None,
        wrap: Callable[[Model], Model] = lambda model: model,
    ) -> None:
        """Take the names of the settings.

        Args:
            default: PROVIDER:MODEL, which answers unless the settings, the agent or the request say otherwise.
            settings: name the default in its place, those that a request may choose, and those that stand in.
            runtime_env: where the process runs.
            env: where to look for keys.
            instead: answers all runs, whatever is named.
            wrap: what each model is made into.
        """
        self._default = settings.model or default
        self.offered = settings.models
        self._stand_ins = settings.fallback_models
        self._runtime_env = runtime_env
        self._env = env
        self._instead = instead and wrap(instead)
        self._wrap = wrap
        self._made: dict[str, Model | NoModelError] = {}

    def warn(self) -> None:
        """Tell the log now of what can't answer, and of what only demonstrates. The service starts all the same."""
        if self._instead is None:
            for name in dict.fromkeys((self._default, *self.offered)):
                self._named(name)

    def choose(self, agent: Agent[Any, Any], wanted: str | None) -> Model:
        """Return the model that answers a run of the agent, where the request wants this one, or none.

        Raises:
            RunError: if the model isn't offered, or none can answer.
        """
        if wanted is not None and wanted not in self.offered:
            offered = ", ".join(self.offered) or "none"
            detail = f"The model {wanted!r} isn't among those that a request may choose: {offered}."
            raise RunError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, code="model_not_found", final=True)
        if self._instead:
            return self._instead
        own = agent.model
        if wanted is None and isinstance(own, Model):
            key = f"{own.model_id} {id(own)}"
            if key not in self._made:
                self._made[key] = self._wrap(self._with_stand_ins(own, own.model_id))
            found = self._made[key]
        else:
            found = self._named(wanted or (own if isinstance(own, str) else None) or self._default)
        if isinstance(found, NoModelError):
            raise RunError(HTTPStatus.SERVICE_UNAVAILABLE, str(found), final=True)
        return found

    def _named(self, name: str) -> Model | NoModelError:
        if name not in self._made:
            try:
                first = resolve_model(name, self._runtime_env, self._env)
            except NoModelError as reason:
                logger.warning("Runs will be refused. %s", reason)
                self._made[name] = reason
            else:
                if isinstance(first, FunctionModel):
                    logger.warning("There is no key for %s, so a demonstration model answers.", name)
                self._made[name] = self._wrap(self._with_stand_ins(first, name))
        return self._made[name]

    def _with_stand_ins(self, first: Model, name: str) -> Model:
        others = []
        for other in self._stand_ins:
            if other == name or isinstance(first, FunctionModel):
                continue
            try:
                model = resolve_model(other, self._runtime_env, self._env)
            except NoModelError as reason:
                logger.warning("%s can't stand in for %s. %s", other, name, reason)
                continue
            if not isinstance(model, FunctionModel):
                others.append(model)
        return FallbackModel(first, *others, fallback_on=_is_passing) if others else first


ModelsOf = Annotated[Models, from_state("models")]


def _is_passing(error: Exception) -> bool:
    down = isinstance(error, ModelHTTPError) and error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    return down or isinstance(error, PASSING)


def _chain(model: Model) -> list[Model]:
    """Return those that are asked one after the other, none where there is only one."""
    inner = getattr(model, "wrapped", model)
    return inner.models if isinstance(inner, FallbackModel) else []


def first_of(model: Model) -> Model:
    """Return the model that is asked first."""
    chain = _chain(model)
    return first_of(chain[0]) if chain else model


def who_answered(model: Model, messages: Sequence[ModelMessage]) -> str:
    """Return the id of the model that answered last, as its provider tells it where others may stand in."""
    if _chain(model):
        for message in reversed(messages):
            if isinstance(message, ModelResponse) and message.provider_name and message.model_name:
                return f"{message.provider_name}:{message.model_name}"
    return first_of(model).model_id
