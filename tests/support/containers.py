"""Images and containers without an engine: buildah builds the real Dockerfile in a chroot.

The base image stands in for python:X.Y-slim-RELEASE, which only a registry has: the same Debian release by
debootstrap, with Debian's Python. It is kept in CACHE, as are downloaded packages. To start anew, remove that folder.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.once import CACHE

# The Python of the Debian release that the Dockerfile names.
PYTHON = "3.13"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
UV_SETTINGS = ("DEFAULT_INDEX", "INDEX_URL", "SYSTEM_CERTS")

# What an engine does for a container, as far as these tests need it: a first process of its own, as the image's
# user, with a root file system that can't be written to, but for /tmp.
START = """
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" env -i "$@"
"""


class BuildError(Exception):
    """A program that builds failed; with the end of what it printed."""


def reason_against() -> str | None:
    """Say why no image can be built here, if so."""
    if sys.platform != "linux" or os.geteuid():
        return "images are built by root, on Linux"
    programs = ("buildah", "debootstrap", "setpriv", "unshare")
    lacking = [program for program in programs if not shutil.which(program)]
    if lacking:
        return f"{', '.join(lacking)} is missing (.ci/run installs it)"
    mounts = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return (
        "this machine allows no mounts, as in a container without CAP_SYS_ADMIN"
        if mounts.returncode
        else None
    )


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return its standard output.

    Raises:
        BuildError: where it fails.
    """
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=1200
    )
    if done.returncode:
        shown = " ".join(map(str, command))
        raise BuildError(f"{shown}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


@dataclass(frozen=True)
class Builder:
    """buildah with a store of its own."""

    folder: Path
    uv: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment, in which the cache mounts outlive the store."""
        return {**os.environ, "TMPDIR": str(CACHE)}

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line of buildah."""
        store = ("--root", self.folder / "store", "--runroot", self.folder / "run")
        return ["buildah", *map(str, (*store, *arguments))]

    def buildah(self, *arguments: str | Path) -> str:
        """Run it and return what it printed."""
        return run(*self.command(*arguments), env=self.env).strip()

    def image_of(self, name: str, *files: str | Path) -> str:
        """Make an image of files, and of archives, which are unpacked."""
        container = self.buildah("from", "scratch")
        self.buildah("add", container, *files)
        self.buildah(
            "config", "--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", container
        )
        self.buildah("commit", "--quiet", "--rm", container, f"localhost/{name}")
        return f"localhost/{name}"

    def _mounts(self) -> list[str]:
        """The machine's index of packages and its certificates, mounted, so that they get into no image."""
        mounts = [f"--volume={self.folder / 'uv.toml'}:/etc/uv/uv.toml:ro"]
        if CERTIFICATES.exists():
            mounts += [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"]
        return mounts

    def lock(self, workspace: Path) -> None:
        """Write the workspace's uv.lock with the base's Python: this machine may not have that version."""
        container = self.buildah("from", "--pull=never", "localhost/python")
        mounts = (*self._mounts(), f"--volume={self.uv}:/usr/local/bin/uv:ro", f"--volume={workspace}:/app")
        uv = ("/usr/local/bin/uv", "lock", "--quiet", "--project", "/app", "--no-cache")
        self.buildah("run", "--isolation", "chroot", *mounts, container, "--", *uv)
        self.buildah("rm", container)

    def build_command(self, workspace: Path, image: str, *options: str | Path) -> list[str]:
        """Return the command that builds the Dockerfile, on the images that stand in for the official ones."""
        bases = ("--build-arg", "PYTHON_IMAGE=localhost/python", "--build-arg", "UV_IMAGE=localhost/uv")
        return [
            *self.build_options(),
            *bases,
            "--tag",
            f"localhost/{image}",
            *map(str, options),
            str(workspace),
        ]

    def build_options(self) -> list[str]:
        """Return the beginning of that command: how images are built here, on whatever bases."""
        build = ("build", "--isolation", "chroot", "--format", "docker", "--layers", "--pull=never")
        return self.command(*build, *self._mounts())

    def build(self, workspace: Path, image: str, *options: str | Path) -> None:
        """Build it."""
        run(*self.build_command(workspace, image, *options), env=self.env)

    def config(self, image: str) -> dict[str, Any]:
        """What the image says of how to run it."""
        shown = json.loads(self.buildah("inspect", "--type", "image", f"localhost/{image}"))
        config: dict[str, Any] = shown["Docker"]["config"]
        return config

    def layers(self, image: str) -> list[str]:
        """The digests of the image's layers."""
        shown = json.loads(self.buildah("inspect", "--type", "image", f"localhost/{image}"))
        layers: list[str] = shown["OCIv1"]["rootfs"]["diff_ids"]
        return layers

    def unpack(self, image: str, folder: Path) -> Path:
        """Write the image to the folder as a registry would get it, but not compressed."""
        self.buildah("push", "--quiet", "--disable-compression", f"localhost/{image}", f"dir:{folder}")
        return folder

    def mount(self, image: str) -> "Image":
        """Make the image's files reachable."""
        container = self.buildah("from", "--pull=never", f"localhost/{image}")
        return Image(container, Path(self.buildah("mount", container)), self.config(image))


@dataclass(frozen=True)
class Image:
    """An image whose files are mounted, with what it says of how to run it."""

    container: str
    root: Path
    config: dict[str, Any]

    def command(self, env: Mapping[str, str], *command: str) -> list[str]:
        """The command that starts a container; with no command of its own, the image's entrypoint and command."""
        words = command or (*self.config["Entrypoint"], *self.config["Cmd"])
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in env.items())]
        start = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", START, "start"]
        inside = [f"--chdir={self.config['WorkingDir']}", *variables, *words]
        return [*start, str(self.root), self.config["User"], *inside]


def stop(process: "subprocess.Popen[Any]") -> None:
    """End a container at once. With `unshare` alone it would go on: it has changed its user, so nothing is told to it."""
    for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else ():
        child.kill()
    process.kill()
    process.wait()


@contextmanager
def open_builder(folder: Path, uv: Path, workspace: Path) -> Iterator[Builder]:
    """Give a builder that has what the workspace's Dockerfile builds on; its store goes away with the block."""
    builder = Builder(folder, uv)
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        found = re.search(
            rf"^ARG PYTHON_IMAGE=python:{PYTHON}-slim-(\w+)$",
            (workspace / "Dockerfile").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        if not found:
            raise BuildError(f"The Dockerfile names no Debian release for Python {PYTHON}.")
        (folder / "uv.toml").write_text(_uv_settings(), encoding="utf-8")
        builder.image_of("python", debian(found[1]), "/")
        builder.image_of("uv", uv, "/uv")
        yield builder
    finally:
        subprocess.run(builder.command("rm", "--all"), capture_output=True, env=builder.env, check=False)
        subprocess.run(["umount", folder / "store/overlay"], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def debian(release: str) -> Path:
    """Return an archive of the Debian release with its Python, without what images leave out."""
    archive = CACHE / f"debian-{release}.tar"
    if not archive.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            root = Path(folder, "root")
            packages = "--include=ca-certificates,python3"
            run("debootstrap", "--variant=minbase", packages, release, root, *_mirror())
            for unneeded in (
                "usr/share/doc",
                "usr/share/locale",
                "usr/share/man",
                "var/cache/apt",
                "var/lib/apt/lists",
            ):
                shutil.rmtree(root / unneeded)
            (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
            run("tar", "-C", root, "-cf", f"{folder}/tar", ".")
            Path(folder, "tar").rename(archive)
    return archive


def _mirror() -> Sequence[str]:
    """The mirror of Debian that this machine uses, or none, where debootstrap has one of its own."""
    shown = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Label: Debian"]
    found: Sequence[str] = subprocess.run(shown, capture_output=True, text=True, check=False).stdout.split()
    return found[:1]


def _uv_settings() -> str:
    """The settings of uv that variables hold here, as its configuration file."""
    given = {name: os.environ[f"UV_{name}"] for name in UV_SETTINGS if f"UV_{name}" in os.environ}
    quoted = {
        name: value if value in ("true", "false") else json.dumps(value) for name, value in given.items()
    }
    quoted = {name.replace("DEFAULT_INDEX", "INDEX_URL"): value for name, value in quoted.items()}
    return "".join(f"{name.lower().replace('_', '-')} = {value}\n" for name, value in quoted.items())
