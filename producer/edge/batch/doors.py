"""What the routes of files and batches need, built once."""

from dataclasses import dataclass

from broker.batch_jobs import BatchJobs
from broker.batch_results import BatchResults
from broker.connection import Connection
from producer.edge.batch.batches import Batches
from producer.edge.batch.expansion import Expansion
from producer.edge.batch.hooks import BatchHooks
from producer.edge.batch.output_ids import OutputName
from producer.edge.files.library import FileLibrary
from producer.edge.files.refusals import no_such_file
from producer.edge.models import Models
from schemas.batch import BatchJob
from schemas.errors import ErrorCode, ServingError
from schemas.requests import Identity


@dataclass(frozen=True, slots=True)
class Doors:
    library: FileLibrary
    batches: Batches
    results: BatchResults
    hooks: BatchHooks

    async def batch_of(self, name: OutputName, identity: Identity) -> BatchJob:
        """The batch of which a file tells what has come. Raises ServingError (404, 503)."""
        try:
            return await self.batches.get(name.job, identity)
        except ServingError as error:
            if error.code is ErrorCode.BATCH_NOT_FOUND:
                raise no_such_file() from None
            raise


def build_doors(connection: Connection, models: Models) -> Doors:
    jobs, results, library = BatchJobs(connection), BatchResults(connection), FileLibrary(connection)
    return Doors(
        library=library,
        batches=Batches(connection, jobs, results, library, models),
        results=results,
        hooks=BatchHooks(read_job=jobs.get, expand=Expansion(connection, jobs).expand),
    )
