"""Models on AWS Bedrock: by the role that the service runs as, a profile, an access key or a Bedrock API key."""

import os
from contextlib import suppress

import boto3
from anyio import NoEventLoopError
from anyio.to_thread import current_default_thread_limiter
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from pydantic_ai.exceptions import UserError
from pydantic_ai.providers.bedrock import BedrockProvider

# Each request to a model takes a thread of the process and a connection while it is underway; what else needs a
# thread isn't to wait for those. As many as AGENT_CONCURRENT_RUNS unless told.
AT_ONCE = 300
# A model may think for long before its first word; AGENT_TIMEOUT ends a run before that.
SECONDS_TO_READ, SECONDS_TO_CONNECT, ATTEMPTS = 600, 10, 3
API_KEY = "AWS_BEARER_TOKEN_BEDROCK"


def bedrock_provider(name: str) -> BedrockProvider:
    """Return the provider, for pydantic-ai's `infer_model`.

    Raises:
        UserError: where the region or any credentials are missing, saying what to set.
    """
    for variable in (API_KEY, "AWS_PROFILE"):
        if os.environ.get(variable) == "":  # which AWS's client takes for one
            del os.environ[variable]
    try:
        session = boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
        if not session.region_name:
            raise UserError("set AWS_REGION.")
        if not os.environ.get(API_KEY) and session.get_credentials() is None:
            raise UserError(f"there is no role to run as: set AWS_PROFILE, or {API_KEY}.")
        config = Config(
            max_pool_connections=AT_ONCE,
            read_timeout=SECONDS_TO_READ,
            connect_timeout=SECONDS_TO_CONNECT,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        )
        client = session.client("bedrock-runtime", config=config)
    except BotoCoreError as error:
        raise UserError(str(error)) from error
    with suppress(NoEventLoopError):
        limiter = current_default_thread_limiter()
        limiter.total_tokens = max(limiter.total_tokens, AT_ONCE + 40)
    return BedrockProvider(bedrock_client=client)
