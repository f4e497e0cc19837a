"""Settings of the documents, from environment variables that start with ``KNOWLEDGE_``."""

from pydantic import ConfigDict, Field

from chassis.environment import EnvironmentSettings


class KnowledgeSettings(EnvironmentSettings):
    """What holds for documents that come by the API."""

    model_config = ConfigDict(alias_generator=lambda name: f"KNOWLEDGE_{name}".upper(), populate_by_name=True)

    documents_per_owner: int = Field(default=1000, gt=0, description="documents that one owner may keep")
    bytes_per_owner: int = Field(default=1_000_000_000, gt=0, description="of all of them, as they were sent")
