"""Which model answers: the one that the settings name, or in development an offline demonstration."""

import os
from collections.abc import Mapping

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model

from chassis.agents.demonstration import demonstration_model
from chassis.agents.merging import TAKES_CLIENT, merging_provider
from chassis.settings import RuntimeEnv

BEDROCK = "bedrock"
# For each provider, the variables of which one must be set; the first is the one to tell of.
# A server of one's own that speaks OpenAI's protocol may need no key.
CREDENTIALS: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    # Not a container's role: in dev that may be there for something else, and a run costs money.
    BEDROCK: ("AWS_BEARER_TOKEN_BEDROCK", "AWS_PROFILE", "AWS_ACCESS_KEY_ID"),
    "google": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    "openai": ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "openai-chat": ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "openai-responses": ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
}


class NoModelError(Exception):
    """No model can answer; the message says which variable to set."""


def resolve_model(name: str, runtime_env: RuntimeEnv, env: Mapping[str, str] = os.environ) -> Model:
    """Return the model with this name, ready for use.

    Without a key for its provider that is in ``dev`` a model that works offline and says so.

    Args:
        name: PROVIDER:MODEL, see https://pydantic.dev/docs/ai/models/overview/
        runtime_env: where the process runs.
        env: where to look for the key.

    Raises:
        NoModelError: where the key is missing outside ``dev`` or can't be one, or the name or its package is
            missing.
    """
    provider, colon, _ = name.partition(":")
    if not colon:  # pydantic-ai has a model "test", which would answer nonsense as if it were meant.
        raise NoModelError(f"The model {name} can't be used: write PROVIDER:MODEL.")
    variables = CREDENTIALS.get(provider, ())
    if variables and not any(env.get(variable) for variable in variables):
        if runtime_env is RuntimeEnv.DEV:
            return demonstration_model(variables[0])
        # Outside of dev the role that the service runs as may do: whether there is one, AWS's client finds out.
        if provider != BEDROCK:
            raise NoModelError(
                f"The model {name} needs a key: set {variables[0]} and start the service again."
            )
    for variable in (*variables, f"{provider}_api_key".upper()):
        value = env.get(variable, "")
        # No header can hold it, or the provider would call it wrong: each run would fail.
        if value != value.strip():
            raise NoModelError(
                f"{variable} has a character at an end that can't be seen, a blank or a line break: remove it."
            )
        if not (value.isascii() and value.isprintable()):
            raise NoModelError(f"{variable} has a character that can't be sent: copy it once more.")
    try:
        if provider == BEDROCK:
            from chassis.agents.bedrock import bedrock_provider

            return infer_model(name, bedrock_provider)
        return infer_model(name, merging_provider) if provider in TAKES_CLIENT else infer_model(name)
    except (UserError, ImportError) as error:
        raise NoModelError(f"The model {name} can't be used: {error}") from error
