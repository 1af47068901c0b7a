"""A program's own `sitecustomize`: writes down every address that a Python process looks up or connects to."""

import os
import sys
from pathlib import Path


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo":
        address = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        address = arguments[1][0]
    else:
        return
    with Path(os.environ["RECORD"]).open("a") as file:
        file.write(f"{address}\n")


sys.addaudithook(_record)
