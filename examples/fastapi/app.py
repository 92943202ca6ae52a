"""Notes, one list per person. Who is there, the gateway says in a header; this program has no passwords."""

import os
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, Field

app = FastAPI(title="Notes")
notes: dict[str, list[str]] = {}

# The peers that may say who is there: the gateway's address as this program sees it.
GATEWAYS = frozenset(os.environ.get("GATEWAYS", "127.0.0.1,::1").split(","))


class Person(BaseModel):
    name: str
    groups: frozenset[str]


class Note(BaseModel):
    text: str = Field(min_length=1, max_length=1000)


def person(
    request: Request,
    x_forwarded_user: Annotated[str | None, Header()] = None,
    x_forwarded_groups: Annotated[str | None, Header()] = None,
) -> Person:
    """The person at the other end, as the gateway says it. Nobody else is believed."""
    if request.client is None or request.client.host not in GATEWAYS:
        raise HTTPException(403, "Only the gateway is answered here")
    if not x_forwarded_user:
        raise HTTPException(401, "The gateway has named nobody")
    groups = frozenset(filter(None, (x_forwarded_groups or "").split(",")))
    return Person(name=x_forwarded_user, groups=groups)


def admin(who: Annotated[Person, Depends(person)]) -> Person:
    if "admin" not in who.groups:
        raise HTTPException(403, "Not an admin")
    return who


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/")
def mine(who: Annotated[Person, Depends(person)]) -> dict[str, object]:
    return {"user": who.name, "groups": sorted(who.groups), "notes": notes.get(who.name, [])}


@app.post("/notes", status_code=201)
def add(note: Note, who: Annotated[Person, Depends(person)]) -> dict[str, int]:
    mine = notes.setdefault(who.name, [])
    mine.append(note.text)
    return {"notes": len(mine)}


@app.get("/admin/people")
def people(_: Annotated[Person, Depends(admin)]) -> dict[str, int]:
    return {name: len(texts) for name, texts in notes.items()}
