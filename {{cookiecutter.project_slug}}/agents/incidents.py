"""Makes a typed record of a report in free words, and keeps it in the table `incidents`."""

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field
from pydantic_ai import Agent, RunContext
from sqlalchemy import insert

from chassis.agents.deps import Deps
from db.tables.incidents import Incident, IncidentCategory, IncidentSeverity

# PostgreSQL's text can't hold the character NUL, which a model may well write.
Words = Annotated[str, AfterValidator(lambda text: text.replace("\0", " "))]


class IncidentReport(BaseModel):
    """An incident, as far as its report tells."""

    title: Words = Field(max_length=120, description="what is wrong, in a few words")
    category: IncidentCategory
    severity: IncidentSeverity = Field(description="critical: many can't work; low: it can wait")
    summary: Words = Field(max_length=2000, description="what happened, when, and to whom")
    affected: Words | None = Field(default=None, description="the system or people that it hits, if told")
    request: Words | None = Field(default=None, description="what the reporter asks for, if anything")


class RecordedIncident(IncidentReport):
    """An incident in the table."""

    id: UUID


async def record_incident(ctx: RunContext[Deps], report: IncidentReport) -> RecordedIncident:
    """Record the incident that the user reports."""
    values = report.model_dump()
    record = insert(Incident).values(run_id=ctx.deps.run_id, owner=ctx.deps.owner, **values)
    async with ctx.deps.sessions.begin() as session:
        incident = await session.scalar(record.returning(Incident.id))
    return RecordedIncident.model_validate({"id": incident, **values})


AGENT = Agent[Deps, RecordedIncident](
    name="Incidents",
    description="Makes a record of trouble that somebody reports in their own words.",
    deps_type=Deps,
    output_type=record_incident,
    instructions=(
        "People report trouble in their own words. Record it in theirs, in their language. "
        "Keep to what they say: leave out what they don't tell, and make nothing up."
    ),
)
