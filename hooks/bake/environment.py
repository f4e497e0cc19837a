"""What of the user's shell reaches what the hook runs: only what is named here.

It says how to reach the network and the package index, where caches are, and who the user is. Nothing else may lead
an install or the verification to another folder, another Python, another project or, worst of all, another database.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

BIN = "Scripts" if os.name == "nt" else "bin"

_PASSES = re.compile(
    # The system
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|TEMP|TMP|XDG_.*|LD_LIBRARY_PATH|NIX_.*"
    r"|SYSTEMROOT|SYSTEMDRIVE|WINDIR|COMSPEC|PATHEXT|OS|(LOCAL)?APPDATA|(ALLUSERS|USER)PROFILE|PROGRAM(DATA|FILES.*)"
    r"|COMMONPROGRAMFILES.*|HOMEDRIVE|HOMEPATH|USERNAME|USERDOMAIN|COMPUTERNAME|(NUMBER_OF_)?PROCESSOR.*"
    # Programs that stand for a version of Python and look up which
    r"|PYENV_ROOT|ASDF_(DIR|DATA_DIR)|MISE_DATA_DIR"
    # The network
    r"|(HTTP|HTTPS|ALL|NO|FTP)_PROXY|SSL_CERT_(FILE|DIR)|SSL_CLIENT_CERT|(REQUESTS|CURL)_CA_BUNDLE|NETRC"
    # uv: where packages and Pythons come from, and how; not where they go, nor which
    r"|UV_((EXTRA_|DEFAULT_)?INDEX(_.*)?|FIND_LINKS|CACHE_DIR|NO_CACHE|OFFLINE|SYSTEM_CERTS|NATIVE_TLS|INSECURE_HOST"
    r"|KEYRING_PROVIDER|CREDENTIALS_DIR|CONFIG_FILE|NO_CONFIG|HTTP_.*|REQUEST_TIMEOUT|UPLOAD_HTTP_.*|CONCURRENT_.*"
    r"|LINK_MODE|COMPILE_BYTECODE|EXCLUDE_NEWER|NO_BUILD|NO_BINARY|NO_PROGRESS|LOCK_TIMEOUT|STACK_SIZE|(PYTHON|PYPY)_.*MIRROR.*"
    r"|PYTHON_(INSTALL_DIR|DOWNLOADS.*|CACHE_DIR|PREFERENCE|CPYTHON_BUILD|GITHUB_.*)|(NO_)?MANAGED_PYTHON)"
    # pip: the same
    r"|PIP_((EXTRA_)?INDEX_URL|NO_INDEX|FIND_LINKS|CACHE_DIR|NO_CACHE_DIR|CERT|CLIENT_CERT|TRUSTED_HOST|PROXY|TIMEOUT"
    r"|DEFAULT_TIMEOUT|RETRIES|CONFIG_FILE|KEYRING_PROVIDER|DISABLE_PIP_VERSION_CHECK|(NO_)?COMPILE|PREFER_BINARY"
    r"|ONLY_BINARY|NO_INPUT|PROGRESS_BAR|USE_FEATURE|USE_DEPRECATED)",
    re.IGNORECASE,
)
# git: who the user is, how it signs, and its settings; not which repository.
_PASSES_TO_GIT = re.compile(
    r"GIT_(AUTHOR|COMMITTER)_.*|GIT_CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+)|GIT_TEMPLATE_DIR|EMAIL"
    r"|GIT_SSH(_COMMAND)?|GNUPGHOME|GPG_.*|SSH_(AUTH_SOCK|AGENT_PID|ASKPASS)"
)
# What would lead the commands astray that we print, in the shell that they are typed into.
_LEADS_ASTRAY = re.compile(
    r"UV_.+|PIP_.+|PYTHON(PATH|HOME|STARTUP|SAFEPATH)|DATABASE_URL|DB_.*|RUNTIME_ENV|MIGRATE_DB|ALEMBIC_CONFIG"
    r"|PG(HOST|HOSTADDR|PORT|USER|PASSWORD|DATABASE|SERVICE|OPTIONS|SSLMODE)"
)


def for_programs(temporary: str) -> dict[str, str]:
    """Return the variables for installing and verifying, with a temporary folder of their own."""
    passed = {name: value for name, value in os.environ.items() if _PASSES.fullmatch(name)}
    own = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary)
    return passed | own | {"PYTHONUTF8": "1", "NO_COLOR": "1"}


def for_git() -> dict[str, str]:
    """Return the variables for git, which is to speak English."""
    passes = (_PASSES, _PASSES_TO_GIT)
    passed = {
        name: value for name, value in os.environ.items() if any(rule.fullmatch(name) for rule in passes)
    }
    return passed | {"LC_ALL": "C.UTF-8", "LANGUAGE": "", "GIT_TERMINAL_PROMPT": "0"}


def astray() -> list[str]:
    """Name the variables of the user's shell that were left out here and would count there."""
    return sorted(
        name for name in os.environ if _LEADS_ASTRAY.fullmatch(name) and not _PASSES.fullmatch(name)
    )


def find_uv() -> str | None:
    """Return the path of uv: the one that runs us, the one on PATH, or the one beside this Python."""
    beside = shutil.which("uv", path=str(Path(sys.executable).parent))
    return os.environ.get("UV") or shutil.which("uv") or beside


def by_hand(command: str) -> str:
    """Return the command as a person in the workspace's folder would type it."""
    return f"uv run {command}" if shutil.which("uv") else f"{Path('.venv') / BIN / command}"
