"""How the services that were made from this template stand to it: ``make fleet REPOS="folder ..."``.

Reads clones on disk and this repository's own tags. Changes nothing: what git makes for it is put elsewhere.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Nothing of ours may lie among the files that a bake writes.
sys.dont_write_bytecode = True
# An update is the workspace's command, and what it would do is asked of its code.
sys.path.insert(0, str(ROOT / "{{cookiecutter.project_slug}}"))

from chassis.settings import ChassisError  # noqa: E402
from chassis.update.digests import changed_files  # noqa: E402
from chassis.update.git import Repository  # noqa: E402
from chassis.update.merge import REVISIONS, kept, plan, would_merge  # noqa: E402
from chassis.update.origin import Origin  # noqa: E402
from chassis.update.template import Template  # noqa: E402


@dataclass
class Service:
    """How one service stands. What could not be found out is None.

    Attributes:
        service: the folder's name.
        version: the template's version that it has.
        behind: how many released versions are newer; of a template without any, how many commits.
        changed: files of the chassis that were changed by hand.
        update: whether the newest would merge: "up to date", "clean" or "conflicts".
        heads: of the revisions.
        problem: what kept us from finding out more.
    """

    service: str
    version: str | None = None
    behind: int | None = None
    changed: list[str] | None = None
    update: str | None = None
    heads: int | None = None
    problem: str | None = None


def look(folder: Path, clone: Path, place: Path) -> Service:
    """Find out how a service stands to the template, of which `clone` is one; `place` is for what is made on the way."""
    service = Service(folder.resolve().name)
    try:
        origin = Origin.read(folder)
        service.changed = list(changed_files(folder / "chassis"))
        service.heads = len(heads(folder / REVISIONS))
        template = Template(Repository(clone), origin.directory)
        if not template.has(origin.commit):
            service.problem = f"made from a commit that isn't here, of {origin.address}"
            return service
        service.version = template.describe(origin.commit)
        target = template.choose(origin, None)
        service.behind = behind(template, origin.commit, target.commit)
        if target.commit == origin.commit:
            service.update = "up to date"
            return service
        objects = place / "objects"
        objects.mkdir(parents=True)
        git = Repository(folder, objects)
        old = template.render(origin.commit, origin.answers, place / "old")
        new = template.render(target.commit, origin.answers, place / "new")
        answer = would_merge(git, plan(git, git.store(old), git.store(new), kept(folder)))
        service.update = {True: "clean", False: "conflicts", None: None}[answer]
        if answer is None:
            service.problem = "git 2.38 or newer is needed to tell whether it would merge"
    except (ChassisError, OSError, ValueError) as error:
        service.problem = " ".join(str(error).split())
    return service


def behind(template: Template, commit: str, target: str) -> int:
    """Count the released versions that are newer, or the commits of a template that has none."""
    if template.releases:
        has = template.released_by(commit)
        return sum(has < version <= template.released_by(target) for version in template.releases)
    return int(template.git.call("rev-list", "--count", f"{commit}..{target}"))


def heads(folder: Path) -> set[str]:
    """Return the revisions that none follows, as their files say, which are not run."""
    names: set[str] = set()
    followed: set[str] = set()
    for file in folder.glob("*.py"):
        told = dict(assignments(ast.parse(file.read_text(encoding="utf-8"))))
        match told.get("revision"), told.get("down_revision"):
            case str() as name, str() as before:
                names.add(name)
                followed.add(before)
            case str() as name, tuple() as several:
                names.add(name)
                followed.update(several)
            case str() as name, _:
                names.add(name)
    return names - followed


def assignments(module: ast.Module) -> Iterator[tuple[str, object]]:
    """Yield name and value of each plain assignment of a module."""
    for node in module.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                with contextlib.suppress(ValueError):
                    yield name, ast.literal_eval(value)


def table(services: Sequence[Service]) -> str:
    """Write a table for people."""
    rows: list[tuple[str, ...]] = [("Service", "Version", "Behind", "Chassis changed", "Update", "Heads")]
    for service in services:
        changed = None if service.changed is None else len(service.changed)
        values = (service.version, service.behind, changed, service.update, service.heads)
        rows.append((service.service, *("?" if value is None else str(value) for value in values)))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    notes = [f"{service.service}: {service.problem}" for service in services if service.problem]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def main(arguments: Sequence[str]) -> int:
    """Print how the services stand."""
    parser = argparse.ArgumentParser(description="How services stand to this template.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="folder", help="a clone of a service")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)
    missing = [str(folder) for folder in options.folders if not folder.is_dir()]
    if missing:
        parser.error(f"there is no folder {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        place = Path(name)
        try:
            Repository(ROOT).call(
                "clone", "--quiet", "--no-checkout", "--", str(ROOT), str(place / "template")
            )
        except ChassisError as error:
            print(f"The template's own versions can't be read here: {error}", file=sys.stderr)
            return 1
        services = [
            look(folder, place / "template", place / str(n)) for n, folder in enumerate(options.folders)
        ]
    if options.format == "json":
        print(json.dumps([asdict(service) for service in services], ensure_ascii=False, indent=2))
    else:
        print(table(services))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
