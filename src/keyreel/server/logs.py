"""Configures logging: readable lines on a terminal, JSON elsewhere."""

import logging
import re
import sys

import structlog

LINKS = re.compile(r"(/(?:files|uploads|shared?)/|[?&](?:signature|token)=)[\w.-]{20,}")
"""The part of a link that opens a file or a video to everybody who has it."""


def configure_logs(level: int = logging.INFO) -> None:
    """Sends logs to stderr. The logs of libraries get the same form."""
    terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer = console if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # The command itself reports starts, stops and signals; client errors appear in the log line of their call.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def redact(_logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Removes from every text what opens a file: logs are read by more people than files."""
    return {name: LINKS.sub(r"\1***", value) if isinstance(value, str) else value for name, value in entry.items()}
