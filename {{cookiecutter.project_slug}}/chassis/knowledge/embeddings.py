"""What turns texts into vectors: the model that KNOWLEDGE_EMBEDDINGS names, or one that a key is there for."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from pgvector import Vector
from pydantic_ai.embeddings import Embedder, infer_embedding_model
from pydantic_ai.embeddings.result import EmbeddingResult
from pydantic_ai.exceptions import UserError

from chassis.knowledge.demonstration import DEMONSTRATION, DemonstrationEmbeddings
from chassis.knowledge.tables import DIMENSIONS
from chassis.settings import ChassisError, RuntimeEnv, read_runtime_env

# The first whose key is set counts. All of them can make vectors of 1,024 numbers.
DEFAULTS: Mapping[str, str] = {
    "OPENAI_API_KEY": "openai:text-embedding-3-small",
    "GOOGLE_API_KEY": "google:gemini-embedding-001",
    "GEMINI_API_KEY": "google:gemini-embedding-001",
    "VOYAGE_API_KEY": "voyageai:voyage-4",
}


class EmbeddingsError(ChassisError):
    """No vectors can be made, or not such as are stored; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A model, under the name that is stored with each document whose vectors it made."""

    name: str
    embedder: Embedder

    async def of_query(self, text: str) -> Vector:
        """Return the vector of a question."""
        return self._vectors(await self.embedder.embed_query(text))[0]

    def of_passages(self, texts: Sequence[str]) -> list[Vector]:
        """Return the vectors of texts that questions are compared with."""
        return self._vectors(self.embedder.embed_documents_sync(texts))

    def _vectors(self, result: EmbeddingResult) -> list[Vector]:
        lengths = {len(vector) for vector in result.embeddings}
        if lengths != {DIMENSIONS}:
            found = ", ".join(map(str, sorted(lengths)))
            raise EmbeddingsError(
                f"KNOWLEDGE_EMBEDDINGS={self.name} makes vectors of {found} numbers, but the table holds "
                f"{DIMENSIONS}: choose a model that can make them."
            )
        return [Vector(list(vector)) for vector in result.embeddings]


@cache
def current_embeddings() -> Embeddings:
    """Return the one that this process uses."""
    return resolve(os.environ)


def resolve(env: Mapping[str, str]) -> Embeddings:
    """Return the model that the environment names; in ``dev`` without any key one that works offline.

    Raises:
        EmbeddingsError: where there is none, or its key or package is missing.
    """
    development = read_runtime_env(env) is RuntimeEnv.DEV
    name = env.get("KNOWLEDGE_EMBEDDINGS") or next(
        (model for key, model in DEFAULTS.items() if env.get(key)), DEMONSTRATION if development else ""
    )
    if name == DEMONSTRATION and development:
        return Embeddings(DEMONSTRATION, Embedder(DemonstrationEmbeddings()))
    if name in {DEMONSTRATION, ""}:
        raise EmbeddingsError(
            f"Set KNOWLEDGE_EMBEDDINGS to PROVIDER:MODEL, for example {DEFAULTS['OPENAI_API_KEY']}, and the "
            "provider's key. Anthropic has no such models. The demonstration is for dev only."
        )
    try:
        model = infer_embedding_model(name)
    except (UserError, ValueError, ImportError) as error:
        raise EmbeddingsError(f"KNOWLEDGE_EMBEDDINGS={name} can't be used: {error}") from error
    return Embeddings(name, Embedder(model, settings={"dimensions": DIMENSIONS}))
