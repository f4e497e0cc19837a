"""The URL to connect to. Where the settings name no database, the embedded one is started."""

from sqlalchemy import URL

from chassis.database import embedded
from chassis.database.settings import DatabaseSettings


def database_url(settings: DatabaseSettings | None = None) -> URL:
    """Return the URL for the app.

    Raises:
        SettingsError: where a setting is missing or can't be read.
    """
    settings = settings or DatabaseSettings.from_env()
    return settings.url if settings.url is not None else embedded.start()


def migration_url(settings: DatabaseSettings | None = None) -> URL:
    """Return the URL for migrations, as `database_url` does for the app."""
    settings = settings or DatabaseSettings.from_env()
    return settings.migration_url if settings.migration_url is not None else embedded.start()
