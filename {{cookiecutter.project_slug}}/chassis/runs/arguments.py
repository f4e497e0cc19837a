"""Whether arguments fit a tool whose schema is all that is known of it."""

from typing import Any


def what_is_wrong(arguments: dict[str, Any], schema: dict[str, Any]) -> str:
    """Say what doesn't fit; nothing where all does, or the schema can't be read."""
    try:
        # They come with the package that speaks MCP.
        from jsonschema import Draft202012Validator
        from referencing import Registry
    except ImportError:
        return ""
    try:
        # With a registry of its own it fetches nothing, whatever a server's schema refers to.
        validator = Draft202012Validator(schema, registry=Registry())
        errors = list(validator.iter_errors(arguments))
    except Exception:  # the schema is somebody else's, and the server checks for itself
        return ""
    return "; ".join(
        f"{'.'.join(map(str, error.absolute_path)) or 'arguments'}: {error.message}" for error in errors
    )
