"""Records how an attempt ended, so that the client can see it."""

from pathlib import Path

import structlog

from keyreel import metrics, traces
from keyreel.errors import RequestError
from keyreel.fal.endpoints import ENDPOINTS
from keyreel.fal.outcomes import CANCELLED, Failure, Success, request_failure
from keyreel.fal.schema import File, Output
from keyreel.store.queue import Queue
from keyreel.store.records import Content, LeaseLostError, Level, NewFile
from keyreel.store.records import File as FileRecord
from keyreel.worker.attempt import Attempt, Interruption
from keyreel.worker.context import WorkerContext
from keyreel.worker.retries import retry_on_store_error

CONTENT_TYPE = "video/mp4"
MACHINE_FAILURE = "runner_server_error"

_log = structlog.get_logger(__name__)


async def complete(context: WorkerContext, attempt: Attempt, prompt: str, video: Path) -> None:
    """Stores the video and completes the request, even if it was cancelled after the video was made.

    prompt: the one that was used. Raises LeaseLostError, and deletes the video again, when the lease is lost.
    """
    file = await _publish(context, attempt, video)
    url = context.links.file_url(file)
    size = video.stat().st_size
    described = File(url=url, content_type=file.content_type, file_name=file.name, file_size=size)
    output = Output(prompt=prompt, seed=attempt.lease.seed, video=described)
    seconds = attempt.stopwatch.end()
    attempt.report.write(f"Finished after {seconds:.1f} s")
    await attempt.heartbeat()
    success = Success(ENDPOINTS[attempt.lease.endpoint].write(output))
    content = Content(file.id, size)
    try:
        await retry_on_store_error(lambda: context.store.queue.finish(attempt.lease, success, content))
    except LeaseLostError:
        await context.objects.delete(file.object)
        await context.store.files.remove(file.id)
        raise
    metrics.FINISHED.inc()
    _log.info("finished", seconds=round(seconds, 3))


async def refuse(queue: Queue, attempt: Attempt, error: RequestError) -> None:
    """Completes a request that is itself at fault: another attempt would fail as well."""
    failure = request_failure(error)
    _count(failure.type)
    _log.info("refused", reason=failure.message)
    await _write_error(attempt, failure.message)
    await retry_on_store_error(lambda: queue.finish(attempt.lease, failure))


async def retry(queue: Queue, attempt: Attempt, error: Exception) -> None:
    """Ends the attempt with an error that is not the request's fault. The queue decides whether to try again."""
    failure = Failure(str(error) or type(error).__name__, MACHINE_FAILURE)
    _count(failure.type)
    await _write_error(attempt, f"Attempt {attempt.lease.attempt} failed: {failure.message}")
    await retry_on_store_error(lambda: queue.retry(attempt.lease, failure))


async def give_up(queue: Queue, attempt: Attempt, why: Interruption) -> None:
    """Ends an interrupted attempt: completes a cancelled request, hands back a released one."""
    _count(why.name.lower())
    _log.info("interrupted", why=why.name)
    match why:
        case Interruption.CANCELLED:
            await retry_on_store_error(lambda: queue.finish(attempt.lease, CANCELLED))
        case Interruption.RELEASED | Interruption.PREEMPTED:
            await attempt.heartbeat()  # sends the last lines of the log, which say why
            await retry_on_store_error(lambda: queue.hand_back(attempt.lease))
        case Interruption.LOST | Interruption.CUT_OFF:
            pass


def _count(reason: str) -> None:
    """Adds an attempt that made no video to the metrics and marks its trace."""
    metrics.FAILURES.labels(reason).inc()
    traces.fail(reason)


async def _write_error(attempt: Attempt, message: str) -> None:
    attempt.report.write(message, Level.ERROR)
    await attempt.heartbeat()


async def _publish(context: WorkerContext, attempt: Attempt, video: Path) -> FileRecord:
    """Uploads the video. The row comes first: if the worker dies, the sweeper finds the object through it."""
    lease, name = attempt.lease, f"keyreel-{attempt.lease.seed}.mp4"
    new = NewFile(
        key_id=lease.key_id,
        object=f"out/{lease.id}/{lease.attempt}/{name}",
        name=name,
        content_type=CONTENT_TYPE,
        acl=lease.output_acl,
        lifetime=lease.output_lifetime,
    )
    file = await retry_on_store_error(lambda: context.store.files.add(new))
    try:
        await retry_on_store_error(lambda: context.objects.put(file.object, video, file.content_type))
    except OSError:
        await context.store.files.remove(file.id)
        raise
    return file
