"""The service that the chassis' own tests run, whatever agents and endpoints the team has."""

from chassis.app import create_app, find_agents
from chassis.tests import agents

app = create_app(agents=find_agents(agents), default_model="openai:gpt-6.1-terra", redact=[r"CUSTOMER-\d+"])
