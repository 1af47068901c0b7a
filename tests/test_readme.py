"""README.md to the letter: every command and snippet runs, from the top of a checkout, in this environment.

What takes long runs in a shorter form (`SHORTER`). Not run is what `NOT_RUN` names, with the reason.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from keyreel.cli import app
from keyreel.cli.serve import _welcome
from keyreel.settings import Settings
from tests.cli.servers import TIMEOUT

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"\s+#\s.*$", re.MULTILINE)
BLOCKS = [(match["language"], match["text"]) for match in BLOCK.finditer((ROOT / "README.md").read_text())]
LINES = [
    line
    for language, text in BLOCKS
    if language == "sh"
    for line in COMMENT.sub("", text.replace("\\\n", "")).splitlines()
    if line
]
SHORT = ("--aspect-ratio", "1:1", "--number-of-frames", "9", "--number-of-steps", "1")
SHORTER = {
    # Fewer frames and steps than a demonstration has, and one picture, since its later ones need all frames.
    "make demo": (*SHORT, "--image", "examples/sunrise.png@0"),
    'keyreel generate "a red circle moves': SHORT,
    'keyreel generate "a smooth transition"': ("--aspect-ratio", "1:1", "--number-of-steps", "1"),
}
NOT_RUN = {
    "git clone": "the repository's URL is not known here; the tests run in a clone",
    "export PIP_EXTRA_INDEX_URL=": "it names an index of another site; CI sets the same",
    "make test": "it would run this test",
    ". .venv/bin/activate": "pip's script; `make demo` makes the environment, as the next test checks",
    "keyreel generate --request examples/demo.json --model ltxv": "it needs a GPU and a download; it is parsed",
}


def lines_with(start: str) -> list[str]:
    return [line for line in LINES if line.startswith(start)]


def recipe(target: str) -> list[str]:
    """Returns the commands of a target, as `make` would run them in a finished environment."""
    finished = [f"--old-file=.venv/.{name}" for name in ("engine", "dev")]
    return make("--dry-run", *finished, target).splitlines()


def make(*arguments: str) -> str:
    """Runs `make`, as somebody would in a shell: without what a `make` that runs these tests tells its children."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=TIMEOUT
    )
    return done.stdout


def run(line: str, *more: str) -> str:
    """Runs `keyreel ...` in this process."""
    program, *arguments = shlex.split(line)
    assert Path(program).name == "keyreel"
    done = CliRunner().invoke(app, [*arguments, *more])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: like the top of a checkout, but videos that are written into it go away with the test."""
    for name in ("examples", "src"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEYREEL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_every_line_is_run_or_said_not_to_be() -> None:
    run_here = ("make demo", "make serve", "keyreel ")
    for line in LINES:
        assert line.startswith((*run_here, *NOT_RUN)), line
    for start in (*SHORTER, *NOT_RUN):
        assert len(lines_with(start)) == 1, start
    assert {language for language, _ in BLOCKS} == {"sh", "python", "js"}


def test_make_installs_the_command_into_the_environment_that_is_activated() -> None:
    install = next(line for line in make("--dry-run", "--always-make", "demo").splitlines() if ".[engine]" in line)
    assert install.startswith(".venv/bin/python -m pip ")
    assert "--quiet" not in install  # pip shows how far it is
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["keyreel"] == "keyreel.cli:app"
    assert "engine" in project["optional-dependencies"]


@pytest.mark.slow
def test_make_demo_says_what_it_makes_and_how_far_it_is(checkout: Path) -> None:
    (command,) = recipe("demo")
    shown = run(command, *SHORTER["make demo"]).splitlines()
    assert shown[0] == "Making a video of 9 frames in 480p with demo."
    assert "Denoising 1/1" in shown
    assert f"Video: {checkout}/out/demo.mp4" in shown[-2]
    assert (checkout / "out" / "demo.mp4").read_bytes()[4:8] == b"ftyp"
    assert (checkout / "out" / "demo.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("start", [start for start in SHORTER if start.startswith("keyreel")])
def test_generate_runs_as_written(checkout: Path, start: str) -> None:
    (line,) = lines_with(start)
    assert "Video: " in run(line, *SHORTER[start])
    assert len(list(checkout.glob("keyreel-*.mp4"))) == 1


def test_arguments_for_a_gpu_are_parsed() -> None:
    (line,) = lines_with("keyreel generate --request examples/demo.json --model ltxv")
    _, *arguments = shlex.split(line)
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="keyreel")
    name, generate, rest = command.resolve_command(context, arguments)  # type: ignore[attr-defined]
    assert generate.make_context(name, rest).params["device"] == "cuda"


@pytest.mark.slow
@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("line", [line for line in LINES if re.match("keyreel (models|doctor)", line)])
def test_models_and_doctor_know_the_demo_model(line: str) -> None:
    assert "demo" in run(line)


@pytest.mark.slow
def test_python_snippet_makes_a_video(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = (text for language, text in BLOCKS if language == "python")
    assert "number_of_frames=41" in snippet
    exec(snippet.replace("number_of_frames=41", "number_of_frames=9, number_of_steps=1, aspect_ratio='1:1'"), {})  # noqa: S102
    assert capsys.readouterr().out == f"{(checkout / 'circle.mp4').as_uri()} 7\n"


def test_javascript_snippet_is_the_one_that_serve_prints() -> None:
    """tests/cli/test_serve.py runs that one."""
    (snippet,) = (text for language, text in BLOCKS if language == "js")
    printed = _welcome("http://127.0.0.1:8000", None, None, Settings().data_dir).replace("<id>:<secret>", "id:secret")
    assert bare(snippet) in bare(printed)


def bare(code: str) -> str:
    """Returns JavaScript without comments, spaces and commas."""
    return re.sub(r"\s//.*|[\s,]", "", code)


@pytest.mark.slow
def test_serve_and_wrap_run_as_written(checkout: Path) -> None:
    (from_make,) = recipe("serve")
    (serve,), (wrap,) = lines_with("keyreel serve"), lines_with("keyreel wrap")
    assert shlex.split(from_make)[1:] == ["serve"]  # the demo model is the default
    environment = os.environ | {"KEYREEL_DATA_DIR": str(checkout / "data")}
    _, *arguments = shlex.split(serve)
    # Without a worker, which would load the model: the program below asks for no video.
    command = [sys.executable, "-m", "keyreel", *arguments, "--port", "0", "--no-worker"]
    (checkout / "app.py").write_text("print('the program ran')")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            address = next(line for line in server.stdout if " is at " in line).split(" is at ")[1].strip()
            assert "in a browser" in server.stdout.readline()
            url = address.partition("/#key=")[0]
            assert "the program ran" in wrapped(wrap, url, environment)
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT) == 0


def wrapped(line: str, url: str, environment: dict[str, str]) -> str:
    """Runs the line of `keyreel wrap` with the URL of a server that has another port."""
    _, *arguments = shlex.split(line)
    assert "http://127.0.0.1:8000" in arguments
    command = [sys.executable, "-m", "keyreel", *(url if one.startswith("http") else one for one in arguments)]
    program = command.index("python")
    command[program] = sys.executable
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=TIMEOUT)
    return done.stdout
