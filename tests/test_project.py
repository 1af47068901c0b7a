"""Workflows, issue forms, make targets and the package's classifiers are consistent."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
CI = GITHUB / "workflows" / "ci.yml"
RELEASE = GITHUB / "workflows" / "release.yml"
AUDIT = GITHUB / "workflows" / "audit.yml"
WORKFLOWS = (CI, RELEASE, AUDIT)
FORMS = (GITHUB / "ISSUE_TEMPLATE" / "bug.yml", GITHUB / "ISSUE_TEMPLATE" / "feature.yml")
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", GITHUB / "pull_request_template.md")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)
MAKE = re.compile(r"\bmake ([a-z][a-z-]*)")
MAJOR_VERSION = re.compile(r"\S+@(release/)?v\d+")
CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.\d+)")

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def load(path: Path) -> dict[Any, Any]:
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    return content


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(path)["jobs"]
    return found


def steps(path: Path, key: str) -> list[str]:
    """Returns the values of `key`, "uses" or "run", in the steps of a workflow."""
    return [step[key] for job in jobs(path).values() for step in job.get("steps", ()) if key in step]


def code_in(path: Path) -> Iterator[str]:
    """Yields the commands of a workflow or the code on a page, without comments."""
    pieces = CODE.findall(path.read_text()) if path.suffix == ".md" else steps(path, "run")
    for piece in pieces:
        yield re.sub(r"#.*", "", piece)


def mentioned_targets(path: Path) -> set[str]:
    return {target for code in code_in(path) for target in MAKE.findall(code)}


def make_targets() -> set[str]:
    """Returns the phony targets of the Makefile."""
    (names,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(names.split())


def make(*arguments: str) -> str:
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_all_workflows_and_forms_are_tested() -> None:
    found = {path for folder in ("workflows", "ISSUE_TEMPLATE") for path in (GITHUB / folder).iterdir()}
    assert found == {*WORKFLOWS, *FORMS, GITHUB / "ISSUE_TEMPLATE" / "config.yml"}


@each_workflow
def test_workflow_permissions_are_minimal(path: Path) -> None:
    workflow = load(path)
    # PyYAML reads YAML 1.1, in which the key `on` is a boolean.
    assert {"name", True, "permissions", "concurrency", "jobs"} <= workflow.keys()
    assert workflow["permissions"] == {"contents": "read"}
    granted = {name: job["permissions"] for name, job in jobs(path).items() if "permissions" in job}
    publishing = {"publish": {"id-token": "write", "attestations": "write"}, "github": {"contents": "write"}}
    assert granted == (publishing if path == RELEASE else {})


@each_workflow
def test_jobs_have_a_timeout_and_need_existing_jobs(path: Path) -> None:
    for job in jobs(path).values():
        assert "uses" in job or {"runs-on", "timeout-minutes", "steps"} <= job.keys()
        needed = job.get("needs", [])
        assert {needed} if isinstance(needed, str) else set(needed) <= jobs(path).keys()


@each_workflow
def test_actions_are_pinned_by_major_version(path: Path) -> None:
    actions = steps(path, "uses")
    assert actions
    assert [action for action in actions if not MAJOR_VERSION.fullmatch(action)] == []


def test_release_runs_ci_first() -> None:
    assert jobs(RELEASE)["ci"]["uses"] == f"./{CI.relative_to(ROOT)}"
    assert "workflow_call" in load(CI)[True]
    assert jobs(RELEASE)["audit"]["uses"] == f"./{AUDIT.relative_to(ROOT)}"
    assert "workflow_call" in load(AUDIT)[True]
    assert set(jobs(RELEASE)["publish"]["needs"]) == {"check", "ci", "audit"}


def test_release_attests_what_it_publishes() -> None:
    """The files' origin and both lists of what they contain are signed before anything is published."""
    publish = jobs(RELEASE)["publish"]["steps"]
    actions = [step["uses"].partition("@")[0] for step in publish]
    attest = ["actions/attest-build-provenance", "actions/attest-sbom", "actions/attest-sbom"]
    assert actions[-4:] == [*attest, "pypa/gh-action-pypi-publish"]
    assert {step["with"]["subject-path"] for step in publish[-4:-1]} == {"dist/*", "dist/*.whl"}
    lists = [step["with"]["sbom-path"] for step in publish[-3:-1]]
    assert all(path in "\n".join(steps(CI, "run")) for path in lists)


def test_dependabot_watches_each_kind_of_package() -> None:
    updates = load(GITHUB / "dependabot.yml")["updates"]
    watched = {(each["package-ecosystem"], path) for each in updates for path in folders_of(each)}
    npm = {("npm", f"/{path.parent.relative_to(ROOT)}") for path in ROOT.glob("*/package-lock.json")}
    npm |= {("npm", f"/{path.parent.relative_to(ROOT)}") for path in ROOT.glob("clients/*/package-lock.json")}
    pip = {("pip", "/")} | {
        ("pip", f"/{path.parent.relative_to(ROOT)}") for path in ROOT.glob("clients/*/requirements.txt")
    }
    assert watched == npm | pip | {("github-actions", "/"), ("docker", "/deploy")}


def folders_of(update: dict[str, Any]) -> list[str]:
    return [update["directory"]] if "directory" in update else list(update["directories"])


def test_ci_runs_on_the_supported_python_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [match[1] for line in project["classifiers"] if (match := CLASSIFIER.fullmatch(line))]
    assert project["requires-python"] == f">={named[0]}"
    assert jobs(CI)["tests"]["strategy"]["matrix"]["python"] == named
    assert set(jobs(CI)["macos"]["strategy"]["matrix"]["python"]) <= set(named)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_form_has_labelled_fields(path: Path) -> None:
    form = load(path)
    assert {"name", "description", "body"} <= form.keys()
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    assert all(field["attributes"]["label"] for field in fields)
    names = [field["id"] for field in fields]
    assert names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", [*WORKFLOWS, *PAGES], ids=lambda path: path.name)
def test_mentioned_make_targets_exist(path: Path) -> None:
    assert mentioned_targets(path) <= make_targets()


def test_mentioned_make_targets_are_found() -> None:
    assert mentioned_targets(CI) == {"lint", "types", "test"}
    assert {"demo", "serve", "test"} <= mentioned_targets(ROOT / "README.md")
    assert {"help", "test-fast"} <= mentioned_targets(ROOT / "CONTRIBUTING.md")


def test_make_without_a_target_lists_all_targets() -> None:
    lines = make("help").splitlines()
    assert make() == make("help")
    assert {line.split()[1] for line in lines} == make_targets()
    assert all(len(line.split()) > 2 for line in lines)
