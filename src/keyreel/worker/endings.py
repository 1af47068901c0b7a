"""How an attempt can end, each written down for the client to see."""

from pathlib import Path

import structlog

from keyreel.errors import RequestError
from keyreel.failures import failure_of
from keyreel.schema import File, Output, Request
from keyreel.store.queue import Queue
from keyreel.store.records import CANCELLED, Content, Failure, LeaseLostError, Level, NewFile, Success
from keyreel.store.records import File as FileRecord
from keyreel.worker import metrics
from keyreel.worker.attempt import Attempt, Interruption, insist
from keyreel.worker.context import WorkerContext

CONTENT_TYPE = "video/mp4"
MACHINE_FAILURE = "runner_server_error"

_log = structlog.get_logger(__name__)


async def complete(context: WorkerContext, attempt: Attempt, request: Request, video: Path) -> None:
    """Keeps the video and completes the request, also one that somebody has cancelled meanwhile: it is true.

    Raises LeaseLostError when the video is not wanted any more; then it is not kept.
    """
    file = await _publish(context, attempt, request, video)
    url = context.links.file_url(file)
    size = video.stat().st_size
    described = File(url=url, content_type=file.content_type, file_name=file.name, file_size=size)
    output = Output(prompt=request.prompt, seed=attempt.lease.seed, video=described)
    seconds = attempt.stopwatch.end()
    attempt.report.write(f"Finished after {seconds:.1f} s")
    await attempt.beat()
    success, content = Success(output.model_dump()), Content(file.id, size)
    try:
        await insist(lambda: context.store.queue.finish(attempt.lease, success, content))
    except LeaseLostError:
        await context.objects.delete(file.object)
        await context.store.files.remove(file.id)
        raise
    metrics.finished.inc()
    _log.info("finished", seconds=round(seconds, 3))


async def refuse(queue: Queue, attempt: Attempt, error: RequestError) -> None:
    """The request is at fault: no other attempt will do better."""
    failure = failure_of(error)
    metrics.failures.labels(failure.type).inc()
    _log.info("refused", reason=failure.message)
    await _say(attempt, failure.message)
    await insist(lambda: queue.finish(attempt.lease, failure))


async def retry(queue: Queue, attempt: Attempt, error: Exception) -> None:
    """The machine is at fault."""
    failure = Failure(str(error) or type(error).__name__, MACHINE_FAILURE)
    metrics.failures.labels(failure.type).inc()
    await _say(attempt, f"Attempt {attempt.lease.attempt} failed: {failure.message}")
    await insist(lambda: queue.retry(attempt.lease, failure))


async def give_up(queue: Queue, attempt: Attempt, why: Interruption) -> None:
    metrics.failures.labels(why.name.lower()).inc()
    _log.info("interrupted", why=why.name)
    match why:
        case Interruption.CANCELLED:
            await insist(lambda: queue.finish(attempt.lease, CANCELLED))
        case Interruption.RELEASED:
            await insist(lambda: queue.hand_back(attempt.lease))
        case Interruption.LOST:
            pass


async def _say(attempt: Attempt, message: str) -> None:
    attempt.report.write(message, Level.ERROR)
    await attempt.beat()


async def _publish(context: WorkerContext, attempt: Attempt, request: Request, video: Path) -> FileRecord:
    """The row first: should we die before the request is finished, the sweeper finds the object by it."""
    lease, name = attempt.lease, f"keyreel-{request.seed}.mp4"
    new = NewFile(
        key_id=lease.key_id,
        object=f"out/{lease.id}/{lease.attempt}/{name}",
        name=name,
        content_type=CONTENT_TYPE,
        acl=lease.output_acl,
        lifetime=lease.output_lifetime,
    )
    file = await context.store.files.add(new)
    try:
        await context.objects.put(file.object, video)
    except OSError:
        await context.store.files.remove(file.id)
        raise
    return file
