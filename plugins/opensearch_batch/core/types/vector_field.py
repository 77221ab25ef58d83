"""A vector field of an index."""

from __future__ import annotations

import msgspec


class VectorField(msgspec.Struct, frozen=True):
    """A ``knn_vector`` field of an index: its dimension, element type, and whether its similarity is cosine."""

    name: str
    dimension: int
    data_type: str = "float"
    cosine: bool = False

    @property
    def values(self) -> int:
        """The number of array elements in a vector of this field; in a binary vector each element holds eight bits."""
        return self.dimension // 8 if self.data_type == "binary" else self.dimension
