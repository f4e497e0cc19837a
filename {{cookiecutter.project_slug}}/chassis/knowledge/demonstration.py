"""Vectors without a key and without a network, to see the agent run: alike are texts with like words.

They know nothing of meaning. Only development may use them.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

from pydantic_ai.embeddings import EmbeddingModel, EmbeddingResult, EmbeddingSettings
from pydantic_ai.embeddings.result import EmbedInputType

from chassis.knowledge.tables import DIMENSIONS

DEMONSTRATION = "demonstration"


class DemonstrationEmbeddings(EmbeddingModel):
    """Counts words and their parts, each at a place that its checksum gives."""

    @property
    def model_name(self) -> str:
        """The name that is stored with the documents."""
        return DEMONSTRATION

    @property
    def system(self) -> str:
        """The provider, which is nobody."""
        return DEMONSTRATION

    async def embed(
        self,
        inputs: str | Sequence[str],
        *,
        input_type: EmbedInputType,
        settings: EmbeddingSettings | None = None,
    ) -> EmbeddingResult:
        """Return vectors of length 1."""
        texts, _ = self.prepare_embed(inputs, settings)
        return EmbeddingResult(
            [_vector(text) for text in texts],
            inputs=texts,
            input_type=input_type,
            model_name=DEMONSTRATION,
            provider_name=DEMONSTRATION,
        )


def _vector(text: str) -> list[float]:
    vector = [0.0] * DIMENSIONS
    for word, count in Counter(re.findall(r"\w+", text.lower())).items():
        # A word that is said ten times, or is as short as most that mean nothing, says little more.
        weight = (1 + math.log(count)) * min(len(word), 8)
        for place, sign in _features(word):
            vector[place] += sign * weight
    length = math.hypot(*vector)
    return [number / length for number in vector] if length else [1.0, *vector[1:]]


@lru_cache(maxsize=100_000)
def _features(word: str) -> tuple[tuple[int, float], ...]:
    """The places of the word itself and of its parts of four letters, so that "index" is near "indexes"."""
    parts = [f"<{word}>"[start : start + 4] for start in range(max(len(word) - 1, 1))]
    checksums = [crc32(word.encode()), *(crc32(b"#" + part.encode()) for part in parts)]
    return tuple(
        (checksum % DIMENSIONS, (1 if checksum & 0x80000000 else -1) / math.sqrt(len(checksums)))
        for checksum in checksums
    )
