"""Finding passages by meaning and by words at once; `search_documents` does it as an agent's tool."""

from dataclasses import dataclass
from http import HTTPStatus

from pgvector.sqlalchemy import VECTOR
from pydantic_ai import RunContext
from sqlalchemy import Select, bindparam, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from chassis.agents.deps import Deps
from chassis.errors import RunError
from chassis.knowledge.embeddings import Embeddings, EmbeddingsError, current_embeddings
from chassis.knowledge.tables import LANGUAGE, Document

RESULTS = 6
QUERY_LENGTH = 1_000

# Each passage gets 1 / (60 + its place) from each of the two lists that it is in, which needs no scale that both
# share: https://doi.org/10.1145/1571941.1572114. A list has 40 places, as many as the index on vectors looks for by
# default (hnsw.ef_search). That is of the passages for all; an owner's own, which are few, are compared one by one. Of
# the question's words any counts, the rarer the more, since few passages have all of them. While --reembed runs,
# vectors of the old model are still there: they are not compared with.
SEARCH = text("""
WITH wanted AS MATERIALIZED (
    SELECT ('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''')::tsquery AS word
    FROM unnest(to_tsvector(CAST(:language AS regconfig), :query))
), own AS MATERIALIZED (
    SELECT source FROM documents WHERE owner = CAST(:owner AS text)
), having_words AS (
    SELECT source, hash, word, words FROM wanted JOIN passages ON words @@ word
    UNION ALL
    SELECT source, hash, word, words FROM wanted JOIN owned_passages ON words @@ word
    WHERE source IN (SELECT source FROM own)
), matches AS (
    SELECT source, hash, ts_rank(words, word) / ln(2 + count(*) OVER (PARTITION BY word)) AS weight
    FROM having_words
), by_words AS (
    SELECT source, hash, row_number() OVER (ORDER BY sum(weight) DESC, source, hash) AS place
    FROM matches GROUP BY source, hash ORDER BY place LIMIT 40
), nearest AS (
    (SELECT source, hash, embedding <=> :vector AS distance FROM passages ORDER BY distance LIMIT 40)
    UNION ALL (
        SELECT source, hash, embedding <=> :vector AS distance FROM own JOIN owned_passages USING (source)
        ORDER BY distance LIMIT 40
    )
), by_meaning AS (
    SELECT source, nearest.hash, row_number() OVER (ORDER BY distance, source, nearest.hash) AS place
    FROM nearest JOIN documents USING (source) WHERE model = :model ORDER BY place LIMIT 40
), every AS (
    SELECT source, hash, title, text FROM passages UNION ALL SELECT source, hash, title, text FROM owned_passages
)
SELECT coalesce(documents.name, source) AS source, every.title, every.text, by_meaning.place IS NOT NULL AS compared,
    coalesce(1.0 / (60 + by_meaning.place), 0) + coalesce(1.0 / (60 + by_words.place), 0) AS score
FROM by_meaning FULL JOIN by_words USING (source, hash) JOIN every USING (source, hash) JOIN documents USING (source)
ORDER BY score DESC, source, every.hash LIMIT :results
""").bindparams(bindparam("vector", type_=VECTOR()))


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found, and how well it fits: the higher the score, the better."""

    source: str
    title: str
    text: str
    score: float


async def find_passages(
    sessions: async_sessionmaker[AsyncSession],
    embeddings: Embeddings,
    query: str,
    results: int = RESULTS,
    *,
    owner: str | None = None,
) -> list[Hit]:
    """Return the passages that fit the query best, the best first: of what is for all, and of the owner's own.

    Raises:
        EmbeddingsError: where all documents have vectors of another model.
    """
    # What neither PostgreSQL nor a provider takes.
    query = query.replace("\0", " ").encode(errors="replace").decode()[:QUERY_LENGTH].strip()
    if not query:
        return []
    vector = await embeddings.of_query(query)
    values = {
        "query": query,
        "language": LANGUAGE,
        "vector": vector,
        "model": embeddings.name,
        "owner": owner,
    }
    async with sessions() as session:
        rows = (await session.execute(SEARCH, {**values, "results": results})).all()
        if not any(row.compared for row in rows):
            model = await session.scalar(_visible_model(owner))
            if model not in {None, embeddings.name}:
                raise EmbeddingsError(
                    f"The documents have vectors of {model}, but KNOWLEDGE_EMBEDDINGS is {embeddings.name}: set "
                    f"it to {model}, or ingest them anew with --reembed, see chassis/knowledge/README.md."
                )
    return [Hit(row.source, row.title, row.text, round(float(row.score), 5)) for row in rows]


def _visible_model(owner: str | None) -> Select[str]:
    visible = or_(Document.owner.is_(None), Document.owner == owner)
    return select(Document.model).where(visible).limit(1)


async def search_documents(ctx: RunContext[Deps], query: str) -> list[Hit]:
    """Find the passages of the documents that fit a question or a few words best, by meaning and by words."""
    try:
        return await find_passages(ctx.deps.sessions, current_embeddings(), query, owner=ctx.deps.owner)
    except EmbeddingsError as error:
        raise RunError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
