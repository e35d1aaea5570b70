"""Alembic's entry: on the connection `evergreen.adapters.database.migrate` gives it, else on the settings' database."""

from alembic import context
from sqlalchemy import Connection

from evergreen.adapters.database import open_engine
from evergreen.adapters.tables import Base
from evergreen.settings import Settings


def run(connection: Connection) -> None:
    """Run the migrations inside the connection's transaction."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite alters a table by copying it
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with open_engine(Settings().tables_url).connect() as own:
        run(own)
        own.commit()
