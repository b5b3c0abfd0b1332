"""Bodies of /v1/batches and /v1/files."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.batch import BatchUrl

_Key = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_Value = Annotated[str, StringConstraints(max_length=512)]


class CreateBatch(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    input_file_id: Annotated[str, Field(min_length=1, max_length=128)]
    endpoint: BatchUrl
    completion_window: Literal["24h"]
    metadata: Annotated[dict[_Key, _Value], Field(max_length=16)] | None = None


class BatchErrorView(BaseModel):
    code: str
    message: str
    param: None = None
    line: int | None


class BatchErrorList(BaseModel):
    object: Literal["list"]
    data: list[BatchErrorView]


class RequestCounts(BaseModel):
    total: int
    completed: int
    failed: int


class BatchView(BaseModel):
    """Times are Unix seconds."""

    id: str
    object: Literal["batch"]
    endpoint: BatchUrl
    errors: BatchErrorList | None
    input_file_id: str
    completion_window: Literal["24h"]
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None


class _Page(BaseModel):
    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchList(_Page):
    data: list[BatchView]


class OwnedBatchView(BatchView):
    """`owner` is the id of a key, or the subject of a token."""

    tenant: str
    owner: str


class OwnedBatchList(_Page):
    data: list[OwnedBatchView]


class FileView(BaseModel):
    """Times are Unix seconds."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]
    status_details: None = None


class FileList(_Page):
    data: list[FileView]


class DeletedFile(BaseModel):
    id: str
    object: Literal["file"]
    deleted: bool
