"""The application: `uvicorn api.main:app`. What the service has of its own is put together here."""

import agents
from api import routes
from chassis.app import create_app, find_agents, find_routers

app = create_app(
    agents=find_agents(agents),
    default_model=agents.DEFAULT_MODEL,
    routers=find_routers(routes),
)
