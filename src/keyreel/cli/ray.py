"""`keyreel ray`: workers as actors of a Ray cluster."""

from typing import Annotated

import typer

from keyreel import actors
from keyreel.cli.serve import errors_reported

ray = typer.Typer(no_args_is_help=True, help="Run workers on a Ray cluster: one actor per GPU.")

Address = Annotated[str, typer.Option(help="Address of the cluster. Default: the one that runs on this machine.")]


@ray.command()
def up(
    model: Annotated[str, typer.Option(help="Model: name, folder, .safetensors file or hub repository.")] = "demo",
    device: Annotated[
        str, typer.Option(help="Device of each worker, among the GPUs that Ray gives it: cuda:0, or cuda:0,cuda:1.")
    ] = "cuda:0",
    pool: Annotated[
        str | None,
        typer.Option(help="Queue that the workers take requests from. Default: as that of `keyreel worker`."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="How many. Default: as many as the GPUs allow.")] = None,
    host: Annotated[str, typer.Option(help="Address for health checks and metrics.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the worker on GPU 0; others follow. 0 chooses free ports.")
    ] = 8010,
    address: Address = "auto",
) -> None:
    """Start the workers that are missing. Ray restarts those that die.

    Start Ray on each node with the settings of the fleet in its environment: the workers read them there.
    """
    arguments = ["--model", model, "--device", device, "--host", host, *(["--pool", pool] if pool else [])]
    gpus_each = len(device.split(","))
    with errors_reported(), actors.cluster(address):
        count = actors.start(arguments, workers=workers, gpus_each=gpus_each, first_port=port)
        typer.echo(f"Workers: {count}")


@ray.command()
def status(address: Address = "auto") -> None:
    """List the workers, and where they run."""
    with errors_reported(), actors.cluster(address):
        for name in actors.names():
            held = actors.find(name)
            where = f"process {held.worker_pid} on {held.node}, GPU {held.gpus}" if held else "not running"
            typer.echo(f"{name}  {where}")


@ray.command()
def down(address: Address = "auto") -> None:
    """Drain all workers and remove them. Each has KEYREEL_GRACE seconds to finish its request."""
    with errors_reported(), actors.cluster(address):
        typer.echo(f"Workers stopped: {actors.stop()}")
