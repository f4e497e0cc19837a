"""docs/platform-teams.md: its commands run in their order, its files do what is said, and Backstage takes them.

What isn't real: the server of the repositories, which is a folder here, and the machine that Backstage runs on.
"""

import json
import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from local_extensions import PYTHON_VERSIONS, SLUG_FORM, SLUG_MAX
from tests.support.command_blocks import Block, broken_links, read_blocks, run_blocks
from tests.support.commands import ROOT, TOOLS, UV, Outcome, run
from tests.support.documents import rows_of
from tests.support.releases import change, commit, git
from tests.support.servers import npm_install
from tests.support.workspaces import QUESTIONS, TEMPLATE_FOLDER, Workspace, cookiecutter, copy_of_template

PAGE = ROOT / "docs/platform-teams.md"
BLOCKS = read_blocks(PAGE.read_text(encoding="utf-8"), "docs/platform-teams.md")
NAME = "cookiecutter-agent-api"
# Which one is here: another one uv would fetch from where not every machine gets to.
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
COOKIECUTTER = (sys.executable, "-m", "cookiecutter")
UPDATE = "chassis update"
BAKING = ("Defaults of the organisation", "Without questions", "A replay file")
FORKING = ("Make it", "Take what is new upstream", "Release it", "Move services over")
FLEET = "The fleet"
# Questions of Backstage's own.
BACKSTAGE = {"owner", "repoUrl"}
NPM = (
    "@backstage/catalog-model@1.10.3",
    "@backstage/plugin-scaffolder-common@2.4.0",
    "@backstage/plugin-scaffolder-node@1.0.0",
    "@types/node@22",
    "typescript@5",
)


def file_of(name: str) -> str:
    """The block that is the file of this name, as its first line says."""
    (text,) = (block.text for block in BLOCKS if re.match(rf"(#|//) {re.escape(name)}\n", block.text))
    return text


def question(name: str) -> Any:
    return list(PYTHON_VERSIONS) if name == "python_version" else QUESTIONS[name]


@dataclass(frozen=True)
class Place:
    """A folder in which the page's commands run, and a server with the template and a fork of it."""

    folder: Path

    @property
    def addresses(self) -> str:
        return f"file://{self.folder}/github.com/"

    @property
    def env(self) -> dict[str, str | None]:
        path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
        return {"HOME": str(self.folder / "home"), "PATH": path}

    def here(self, text: str) -> str:
        """The text with the addresses of what is here, and a Python that is."""
        return text.replace("https://github.com/", self.addresses).replace('"3.12"', f'"{PYTHON}"')

    def commands(self, block: Block) -> str:
        """The block's commands, for what is here, without installing."""
        text = self.here(block.commands).replace("uvx cookiecutter", shlex.join(COOKIECUTTER))
        if "--replay-file" in text:
            return text
        quiet = "install=no init_git=no" + (" --no-input" if "--no-input" not in text else "")
        return re.sub(rf"acme:{NAME}", rf"\g<0> {quiet}", text)

    def run_sections(
        self, headings: Sequence[str], cwd: Path, prepare: Mapping[str, Callable[[], None]] | None = None
    ) -> dict[str, str]:
        """Run the commands below these headings, but for the update, and return what they printed."""
        blocks = [block for block in BLOCKS if block.heading in headings and UPDATE not in block.text]
        commands = [replace(block, text=self.commands(block)) for block in blocks if block.is_commands]
        env = {name: value for name, value in (os.environ | self.env).items() if value is not None}
        return run_blocks(commands, cwd, env, prepare)


def bake(folder: Path, config: str, *arguments: str, env: Mapping[str, str | None] | None = None) -> Outcome:
    """Bake into a folder, with a config file of this text and no question asked."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(f"{config}\nreplay_dir: replay\n", encoding="utf-8")
    options = ("--no-input", "--config-file", "config.yaml")
    answers = ("install=no", "init_git=no", *arguments)
    return run(*COOKIECUTTER, *options, ROOT, *answers, cwd=folder, env=env, check=False)


def baked_with(folder: Path) -> dict[str, Any]:
    """The answers of a bake into this folder, from where its config file has Cookiecutter keep them."""
    (file,) = (folder / "replay").iterdir()
    answers: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["cookiecutter"]
    return answers


def answers_of(workspace: Path) -> dict[str, Any]:
    """The answers that a workspace remembers."""
    state = json.loads((workspace / ".cruft.json").read_text(encoding="utf-8"))
    answers: dict[str, Any] = state["context"]["cookiecutter"]
    return answers


def release(template: Path, version: str, says: str) -> None:
    change(template, "CHANGELOG.md", "## [Unreleased]\n", f"## [Unreleased]\n\n{says}\n")
    commit(template, says)
    run(sys.executable, template / "scripts/release.py", version, cwd=template)
    git(template, "commit", "--quiet", "--all", "--message", version)
    git(template, "tag", "--annotate", f"v{version}", "--message", version)
    git(template, "push", "--quiet", "server", "main", f"v{version}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Where the commands of the first two sections have run, and two versions of the template are served."""
    folder = tmp_path_factory.mktemp("platform")
    place = Place(folder)
    (folder / "home").mkdir()
    shutil.copy(Path.home() / ".gitconfig", folder / "home")
    source = copy_of_template(folder / "source")
    (source / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n", encoding="utf-8")
    git(source, "init", "--quiet")
    upstream, fork = (str(folder / f"github.com/{owner}/{NAME}.git") for owner in ("OWNER", "ACME"))
    git(folder, "init", "--quiet", "--bare", upstream)
    git(source, "remote", "add", "server", upstream)
    release(source, "0.1.0", "- The first.")
    git(folder, "clone", "--quiet", "--bare", upstream, fork)
    (source / TEMPLATE_FOLDER / "UPSTREAM.md").write_text("New upstream.\n", encoding="utf-8")
    release(source, "0.2.0", "- Upstream's.")
    (folder / "platform.yaml").write_text(place.here(file_of("platform.yaml")), encoding="utf-8")
    place.run_sections(BAKING, folder)
    # As the services of a team are.
    for name in ("billing-api", "search-api"):
        git(folder / name, "init", "--quiet")
        commit(folder / name, "One")
    return place


@pytest.fixture(scope="module")
def forked(place: Place) -> Place:
    """Where the commands for a fork have run too, and the fork has been changed meanwhile."""
    fork = place.folder / NAME

    def change_it() -> None:
        """A default and a file, as the page says, and the tests' own Python for make."""
        change(fork, "cookiecutter.json", '["MIT", "Apache-2.0"', '["Apache-2.0", "MIT"')
        catalog = file_of("catalog-info.yaml").replace("agent-api", '"{{ cookiecutter.project_slug }}"', 1)
        (fork / TEMPLATE_FOLDER / "catalog-info.yaml").write_text(catalog, encoding="utf-8")
        commit(fork, "Ours")
        python = fork / ".venv/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        (fork / ".venv/.bake").touch()

    def write_the_changelog() -> None:
        ours = "## [Unreleased]\n\n- Upstream's 0.2.0.\n\n### By hand\n\n- Tell the catalog.\n"
        change(fork, "CHANGELOG.md", "## [Unreleased]\n", ours)
        commit(fork, "What is new")

    prepare = {"Take what is new upstream": change_it, "Release it": write_the_changelog}
    place.run_sections(FORKING, place.folder, prepare)
    return place


def test_every_block_is_used() -> None:
    """None is marked as not run, and each of another language is a file that a test takes from the page."""
    assert [block.where for block in BLOCKS if block.reason] == []
    files = [block.text.splitlines()[0].split()[1] for block in BLOCKS if not block.is_commands]
    assert files == [
        "platform.yaml",
        "packages/backend/src/cookiecutter.ts",
        "template.yaml",
        "catalog-info.yaml",
    ]
    assert {block.heading for block in BLOCKS if block.is_commands} == {*BAKING, *FORKING, FLEET}
    assert list(broken_links(ROOT, [PAGE])) == []


def test_defaults_and_answers(tmp_path: Path) -> None:
    """The command line goes before the file, and that before the template. The region is where the page says."""
    config = file_of("platform.yaml")
    outcome = bake(
        tmp_path, config, "use_ecs=yes", 'author={{ cookiecutter.project_name }}, "{% raw %}{%{% endraw %}"'
    )
    assert outcome.code == 0, outcome.output
    workspace = Workspace(tmp_path / "agent-api")
    told = {"email": "agent-api@acme.example", "use_ecs": True}
    answers = baked_with(tmp_path)
    assert answers == answers | yaml.safe_load(config)["default_context"] | told | {
        "author": answers["author"]
    }
    author = tomllib.loads(workspace.read("pyproject.toml"))["project"]["authors"][0]["name"]
    assert author == 'Agent API, "{%"'
    assert re.search(r"^    region: str = ", workspace.read("infra/settings.py"), re.MULTILINE)


def test_a_wrong_choice_loses_what_stands_below(tmp_path: Path) -> None:
    (variable,) = re.findall(
        r"^export (PYTHONWARNINGS)=(.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    for wrong in ("license: Propietary", "use_ag_ui: perhaps"):
        config = f"default_context:\n  author: Kept\n  {wrong}\n  description: Lost.\n  unknown: Ignored\n"
        strict = bake(tmp_path / "strict", config, env=dict([variable]))
        assert (strict.code, (tmp_path / "strict/agent-api").exists()) == (1, False)
    outcome = bake(tmp_path, config)
    assert (outcome.code, "Invalid default received" in outcome.output) == (0, True)
    answers = baked_with(tmp_path)
    assert (answers["author"], answers["description"]) == ("Kept", QUESTIONS["description"])


@pytest.mark.full
def test_which_file_counts(tmp_path: Path) -> None:
    for name in ("option", "variable", ".cookiecutterrc"):
        (tmp_path / name).write_text(f"default_context:\n  email: {name}\n", encoding="utf-8")
    cases: list[tuple[tuple[str, ...], str | None, str]] = [
        (("--config-file", "option"), "variable", "The e-mail 'option' is no address"),
        ((), "variable", "The e-mail 'variable' is no address"),
        ((), None, "The e-mail '.cookiecutterrc' is no address"),
        ((), "nowhere", "nowhere does not exist"),
        (("--default-config",), "variable", "The Python version '2' is not supported"),
    ]
    for options, variable, says in cases:
        env = {"COOKIECUTTER_CONFIG": variable, "HOME": str(tmp_path)}
        # The e-mail is refused before the Python version, so that tells which file was read.
        command = (*COOKIECUTTER, "--no-input", *options, str(ROOT), "python_version=2")
        outcome = run(*command, cwd=tmp_path, env=env, check=False)
        assert (outcome.code, says in " ".join(outcome.output.split())) == (1, True), outcome.output
    assert not (tmp_path / "agent-api").exists()


@pytest.mark.full
def test_what_the_commands_made(place: Place) -> None:
    platform = yaml.safe_load(place.here(file_of("platform.yaml")))["default_context"]
    made = {
        "agent-api": {"email": "agent-api@acme.example"},
        "search-api": {"email": "search-api@acme.example", "project_name": "Search API", "license": "MIT"},
        "again/billing-api": {"email": "billing-api@acme.example", "use_ag_ui": True},
    }
    for name, told in made.items():
        answers = answers_of(place.folder / name)
        assert answers == answers | platform | told, name
    state = json.loads((place.folder / "again/billing-api/.cruft.json").read_text(encoding="utf-8"))
    assert (state["template"], state["checkout"]) == (f"{place.addresses}OWNER/{NAME}.git", "v0.1.0")
    assert git(place.folder / "source", "rev-parse", "v0.1.0^{commit}").strip() == state["commit"]


@pytest.mark.full
def test_what_a_replay_file_needs(place: Place) -> None:
    """The file of the page makes the same again; without what is derived, or edited, it doesn't make what is wanted."""
    first, again = Workspace(place.folder / "billing-api"), Workspace(place.folder / "again/billing-api")
    assert [path.relative_to(again.path) for path in again.files()] == [
        path.relative_to(first.path) for path in first.files()
    ]
    for path in again.files():
        assert path.read_bytes() == (first.path / path.relative_to(again.path)).read_bytes(), path
    file = place.folder / "billing-api.json"
    assert str(place.folder) not in file.read_text(encoding="utf-8")
    answers = json.loads(file.read_text(encoding="utf-8"))["cookiecutter"]

    def replay(changed: Mapping[str, Any]) -> Outcome:
        tried = place.folder / "tried.json"
        tried.write_text(json.dumps({"cookiecutter": changed}), encoding="utf-8")
        shutil.rmtree(place.folder / "tried", ignore_errors=True)
        told = ("--replay-file", tried, "--output-dir", "tried")
        return run(
            *COOKIECUTTER, *told, place.folder / "source", cwd=place.folder, env=place.env, check=False
        )

    without = {name: value for name, value in answers.items() if not name.startswith("_")}
    assert replay(without).code == 1
    unanswered = {name: value for name, value in answers.items() if name != "use_ag_ui"}
    asked = replay(unanswered)
    assert (asked.code, "AG-UI clients" in asked.output) == (1, True)
    assert replay(answers | {"project_slug": "other-api"}).code == 0
    compose = yaml.safe_load(Workspace(place.folder / "tried/other-api").read("compose.yaml"))
    assert (compose["name"], "billing-api" in compose["services"]) == ("other-api", True)
    both = bake(place.folder / "both", "", "--replay-file", str(file))
    assert (both.code, "can not use both" in both.output) == (1, True)


def parameters() -> dict[str, dict[str, Any]]:
    """What template.yaml asks for, of all its pages."""
    spec = yaml.safe_load(file_of("template.yaml"))["spec"]
    return {name: about for page in spec["parameters"] for name, about in page["properties"].items()}


def filled(value: Any, given: Mapping[str, Any]) -> Any:
    """A step's input as Backstage fills it in, which keeps the type where the text is one expression."""
    if isinstance(value, dict):
        return {name: filled(inner, given) for name, inner in value.items()}
    expression = re.fullmatch(r"\$\{\{ parameters\.(\w+)( \| projectSlug)? \}\}", str(value))
    if not expression:
        return value
    found = given[expression[1]]
    return re.sub(r".*\?owner=(.*)&repo=(.*)", r"\1/\2", found) if expression[2] else found


def steps() -> dict[str, dict[str, Any]]:
    """The steps' inputs, with what a person would leave as it is."""
    given = {name: about.get("default") for name, about in parameters().items()}
    given |= {"owner": "group:default/agents", "repoUrl": "github.com?owner=ACME&repo=agent-api"}
    found = yaml.safe_load(file_of("template.yaml"))["spec"]["steps"]
    return {step["id"]: filled(step["input"], given) for step in found}


def test_backstage_asks_what_the_template_asks() -> None:
    asked = parameters()
    assert set(asked) >= BACKSTAGE
    for name, about in asked.items():
        if name in BACKSTAGE:
            continue
        match question(name):
            case bool():
                assert (about["type"], type(about["default"])) == ("boolean", bool), name
            case list() as choices:
                assert (about["type"], about["enum"]) == ("string", choices), name
                assert about["default"] in choices
            case _:
                assert about["type"] == "string", name
    assert asked["project_slug"]["pattern"] == f"^{SLUG_FORM.pattern}$"
    assert asked["project_slug"]["maxLength"] == SLUG_MAX
    template = yaml.safe_load(file_of("template.yaml"))["spec"]
    for page in template["parameters"]:
        assert set(page.get("required", ())) <= set(page["properties"])
    values = template["steps"][0]["input"]["values"]
    assert set(values) == set(asked) - BACKSTAGE | {"install", "init_git"}
    for name in set(asked) - BACKSTAGE:
        assert values[name] == f"${{{{ parameters.{name} }}}}"


def test_what_backstage_passes_can_be_baked(tmp_path: Path) -> None:
    values = steps()["bake"]["values"]
    outcome = bake(tmp_path, "", *(f"{name}={value}" for name, value in values.items()))
    assert outcome.code == 0, outcome.output
    baked = baked_with(tmp_path)
    assert baked == baked | values
    # And describes it as the file for a service that is there already.
    assert steps()["describe"]["entity"] == yaml.safe_load(file_of("catalog-info.yaml"))


@pytest.mark.full
def test_the_fork(forked: Place) -> None:
    """Upstream's tags are no versions there; what is made from it has its files and its defaults."""
    fork, served = forked.folder / NAME, forked.folder / f"github.com/ACME/{NAME}.git"
    assert git(fork, "tag").split() == ["v0.1.0", "v1.0.0"]
    assert git(served, "tag").split() == ["v0.1.0", "v1.0.0"]
    assert git(served, "describe", "main").strip() == "v1.0.0"
    folder = forked.folder / "of-the-fork"
    answers = {"project_name": "Billing API", "install": "no", "init_git": "no"}
    address = f"{forked.addresses}ACME/{NAME}.git"
    cookiecutter(folder, answers, template=address, check=True, cwd=forked.folder, env=forked.env)
    made = Workspace(folder / "billing-api")
    assert answers_of(forked.folder / "of-the-fork/billing-api")["license"] == "Apache-2.0"
    assert made.has_file("UPSTREAM.md")
    assert yaml.safe_load(made.read("catalog-info.yaml"))["metadata"]["name"] == "billing-api"
    assert json.loads(made.read(".cruft.json"))["template"] == address


@pytest.mark.full
def test_where_upstream_and_a_fork_with_releases_conflict(forked: Place, tmp_path: Path) -> None:
    source, fork = tmp_path / "source", tmp_path / "fork"
    git(tmp_path, "clone", "--quiet", str(forked.folder / "source"), "source")
    git(source, "remote", "add", "server", str(tmp_path / "server.git"))
    git(tmp_path, "init", "--quiet", "--bare", "server.git")
    release(source, "0.3.0", "- More.")
    git(tmp_path, "clone", "--quiet", str(forked.folder / NAME), "fork")
    git(fork, "fetch", "--quiet", str(source), "main")
    assert run("git", "merge", "FETCH_HEAD", cwd=fork, check=False).code == 1
    conflicts = git(fork, "diff", "--name-only", "--diff-filter=U").splitlines()
    assert conflicts == ["CHANGELOG.md", "pyproject.toml", f"{TEMPLATE_FOLDER}/chassis/__init__.py"]


@pytest.mark.full
def test_the_fleet(forked: Place) -> None:
    """A service that was moved over, and one that wasn't, as they stand to the fork; each column is in the page."""
    printed = forked.run_sections([FLEET], forked.folder / "billing-api")[FLEET]
    rows: list[dict[str, Any]] = json.loads((forked.folder / "fleet.json").read_text(encoding="utf-8"))
    assert [
        (row["service"], row["behind"], row["update"], row["changed"], row["problem"]) for row in rows
    ] == [
        ("billing-api", 1, "clean", [], None),
        ("search-api", 1, "clean", [], None),
    ]
    told = rows_of(PAGE.read_text(encoding="utf-8"), FLEET)
    (head,) = (line for line in printed.splitlines() if "Behind" in line)
    assert [row[0] for row in told] == re.split(r"  +", head)
    assert [row[1].strip("`") for row in told] == [name for name in rows[0] if name != "problem"]
    # A copy of the files hasn't the history, so nothing can be moved to it.
    copied = copy_of_template(forked.folder / "copied")
    git(copied, "init", "--quiet")
    commit(copied, "All at once")
    fleet = (sys.executable, copied / "scripts/fleet.py", forked.folder / "billing-api")
    assert "made from a commit that isn't here" in run(*fleet, cwd=forked.folder).output


@pytest.mark.full
def test_a_service_that_was_moved_over_is_updated(forked: Place) -> None:
    """To the fork's newest version, with what the fork's changelog says is to be done, and its own answers."""
    folder = forked.folder / "updated/billing-api"
    git(forked.folder, "clone", "--quiet", "billing-api", str(folder))
    run(UV, "lock", "--quiet", cwd=folder, env=forked.env)
    commit(folder, "Lock")
    (block,) = (block for block in BLOCKS if UPDATE in block.text)
    commands = block.commands.replace(UPDATE, f"{UPDATE} --no-check")
    told = run("bash", "-ec", commands, cwd=folder, env=forked.env, timeout=900).output
    assert "to v1.0.0." in told
    assert "Tell the catalog." in told
    assert Workspace(folder).has_file("catalog-info.yaml")
    assert answers_of(folder)["license"] == "Proprietary"


CHECK = """
import { mkdtempSync, readFileSync } from "node:fs";
import { componentEntityV1alpha1Validator, entityEnvelopeSchemaValidator } from "@backstage/catalog-model";
import { templateEntityV1beta3Validator } from "@backstage/plugin-scaffolder-common";
import { runCookiecutter } from "./cookiecutter.mjs";

const { template, components, wrong, input, workspacePath } = JSON.parse(readFileSync(0, "utf8"));
const isValid = async (validator, entity) => {
  try { entityEnvelopeSchemaValidator()(entity); return await validator.check(entity); } catch { return false; }
};
const told = {
  template: await isValid(templateEntityV1beta3Validator, template),
  components: await Promise.all(components.map(one => isValid(componentEntityV1alpha1Validator, one))),
  wrong: await Promise.all([templateEntityV1beta3Validator, componentEntityV1alpha1Validator].map(
    (validator, at) => isValid(validator, wrong[at]))),
  input: runCookiecutter.schema.input,
};
const log = text => console.error(text);
const createTemporaryDirectory = async () => mkdtempSync(`${workspacePath}-`);
await runCookiecutter.handler({ input, workspacePath, createTemporaryDirectory, logger: { info: log, error: log } });
console.log(`TOLD ${JSON.stringify(told)}`);
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Backstage's packages, the page's action, and what asks them."""
    folder = tmp_path_factory.mktemp("node")
    npm_install(folder, *NPM, timeout=900)
    action = file_of("packages/backend/src/cookiecutter.ts")
    # It has no annotations, so it is JavaScript too.
    for name, text in {"cookiecutter.ts": action, "cookiecutter.mjs": action, "check.mjs": CHECK}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.full
def test_backstage_takes_the_files_and_runs_the_action(place: Place, node: Path) -> None:
    """By its own schemas; and the action makes what Cookiecutter makes, with braces that stay what they are."""
    options = "--noEmit --strict --skipLibCheck --module nodenext --moduleResolution nodenext --target es2022".split()
    run(node / "node_modules/.bin/tsc", *options, "cookiecutter.ts", cwd=node)
    template = yaml.safe_load(file_of("template.yaml"))
    component = yaml.safe_load(file_of("catalog-info.yaml"))
    odd = {"author": '{{ 7 * 7 }} "%}" {% endraw %} {# \\ ’', "project_name": "O'Brien & Söhne: 50 %"}
    bake = steps()["bake"]
    bake["values"] |= odd | {"python_version": PYTHON}
    bake["template"] = place.here(bake["template"])
    output = node / "workspace"
    asked = {
        "template": template,
        "components": [component, steps()["describe"]["entity"]],
        "wrong": [
            template | {"spec": {"type": "service"}},
            component | {"spec": {"type": "service", "lifecycle": "experimental"}},
        ],
        "input": bake,
        "workspacePath": str(output),
    }
    outcome = run("node", "check.mjs", cwd=node, env=place.env, stdin=json.dumps(asked), timeout=600)
    told = json.loads(outcome.output.rpartition("TOLD ")[2])
    assert (told["template"], told["components"], told["wrong"]) == (True, [True, True], [False, False])
    assert set(told["input"]["properties"]) == set(bake)
    made = Workspace(output)
    assert made.has_file("uv.lock")
    answers = {name: str(value) for name, value in (bake["values"] | {"author": "x"}).items()}
    address = ("--no-input", "--checkout", bake["checkout"])
    cookiecutter(
        node / "same",
        answers,
        template=bake["template"],
        options=address,
        check=True,
        env=place.env,
        cwd=node,
    )
    same = Workspace(node / "same/agent-api")
    names = [path.relative_to(made.path) for path in made.files()]
    assert names == [path.relative_to(same.path) for path in same.files()]
    assert {path.stat().st_mode for path in made.files()} == {path.stat().st_mode for path in same.files()}
    state = json.loads(made.read(".cruft.json"))["context"]["cookiecutter"]
    assert odd["author"] in state["author"]
    assert state["project_name"] == odd["project_name"]
    assert tomllib.loads(made.read("pyproject.toml"))["project"]["authors"][0]["name"] == odd["author"]
