"""The guard process: expands prompts and checks content while the device works on another request."""

import traceback

from keyreel.checkpoints import hub
from keyreel.errors import ModelError, RequestError
from keyreel.guard import Guard
from keyreel.media.samples import sample_frames
from keyreel.safety.expansion import ExpansionError
from keyreel.worker.channel import Channel
from keyreel.worker.messages import (
    Check,
    Checked,
    Expand,
    Expanded,
    Failed,
    GuardReady,
    LoadFailed,
    LoadGuard,
    Message,
    Refused,
)
from keyreel.worker.spool import read_pixels


def main() -> None:
    channel = Channel.to_supervisor()
    try:
        if guard := _load(channel):
            while True:
                channel.send(_answer(guard, channel.receive()))
    except (EOFError, ConnectionError):
        return


def _load(channel: Channel) -> Guard | None:
    order = channel.receive()
    if not isinstance(order, LoadGuard):
        raise TypeError(f"The first message must be LoadGuard, not {order}")
    hub.use_token(order.hub_token)
    try:
        guard = Guard.load(order.plan)
    except ModelError as error:
        channel.send(LoadFailed(str(error)))
        return None
    channel.send(GuardReady())
    return guard


def _answer(guard: Guard, order: Message) -> Expanded | Checked | Refused | Failed:
    try:
        match order:
            case Expand(prompt, seed, picture):
                return Expanded(guard.expand(prompt, seed, read_pixels(picture)[0] if picture else None))
            case Check():
                _check(guard, order)
                return Checked()
        return Failed(f"The guard process cannot handle {type(order).__name__}")
    except RequestError as error:
        return Refused(error.problems)
    except ExpansionError as error:
        return Failed(str(error))
    except Exception as error:  # noqa: BLE001 - the supervisor needs an answer to every order
        traceback.print_exc()
        return Failed(f"{type(error).__name__}: {error}")


def _check(guard: Guard, order: Check) -> None:
    guard.check_prompts(order.prompts)
    guard.check_conditions({loc: read_pixels(path) for loc, path in order.conditions})
    if order.video:
        guard.check_video(sample_frames(order.video, guard.plan.frames))
    if order.preview:
        guard.check_video(read_pixels(order.preview))


if __name__ == "__main__":
    main()
