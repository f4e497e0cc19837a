-- The server's image runs this once, when the volume is empty, as the superuser and before others can connect.
\getenv password DB_PASS
\getenv database POSTGRES_DB
-- Serves and migrates: owns the database and is no superuser.
CREATE ROLE app LOGIN PASSWORD :'password';
ALTER DATABASE :"database" OWNER TO app;
{%- if cookiecutter.use_knowledge %}
-- Only a superuser may create it; a migration finds it there.
CREATE EXTENSION vector;
{%- endif %}
-- From now on the superuser gets in from within the container alone, where no password is asked for.
ALTER ROLE CURRENT_USER PASSWORD NULL;
