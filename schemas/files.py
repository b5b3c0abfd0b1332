"""A file that somebody left with the broker, as its head tells of it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class StoredFile(BaseModel):
    """`num_chunks` pieces in order are its `size_bytes`. `owner` is who may see it. Times are Unix seconds."""

    model_config = ConfigDict(frozen=True)

    id: str
    tenant: str
    owner: str
    filename: str
    purpose: Literal["batch"]
    size_bytes: int
    num_chunks: int
    created_at: int
    expires_at: int
