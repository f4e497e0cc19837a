"""Your agents: each module or package here that sets `AGENT` is one, and its name is the agent's id in the API."""

# What answers unless AGENT_MODEL names another: PROVIDER:MODEL, see https://pydantic.dev/docs/ai/models/overview/
DEFAULT_MODEL = "{{ {'openai': 'openai:gpt-6.1-terra', 'anthropic': 'anthropic:claude-sonnet-5-5', 'google': 'google:gemini-3.8-flash', 'bedrock': 'bedrock:global.anthropic.claude-sonnet-5-5'}[cookiecutter.model_provider] }}"
