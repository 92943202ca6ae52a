"""Uses a CalDAV server behind the gateway as a calendar program would: arguments are the gateway's URL, a user
and a password. A bearer token comes from POST /login; without it everything is refused. Says "done" at the end."""

import json
import sys
import urllib.error
import urllib.request

import caldav

EVENT = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//gateway test//EN
BEGIN:VEVENT
UID:gateway-test-1
DTSTAMP:20260101T000000Z
DTSTART:20260102T100000Z
DTEND:20260102T110000Z
SUMMARY:Käffchen behind the gate
END:VEVENT
END:VCALENDAR
"""


def sign_in(url, user, password):
    body = json.dumps({"username": user, "password": password}).encode()
    request = urllib.request.Request(url + "/login", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["access_token"]


def refused(url, headers):
    request = urllib.request.Request(url, headers=headers, method="PROPFIND")
    try:
        urllib.request.urlopen(request, timeout=10)
    except urllib.error.HTTPError as error:
        return error.code
    return None


def main():
    url, user, password = sys.argv[1:]
    home = f"{url}/{user}/"
    assert refused(home, {}) == 401, "without a token"
    assert refused(home, {"X-Remote-User": user}) == 401, "with a forged name"
    assert refused(home, {"Authorization": "Bearer rubbish"}) == 401, "with a bad token"

    token = sign_in(url, user, password)
    client = caldav.DAVClient(url=url + "/", headers={"Authorization": f"Bearer {token}"})
    principal = client.principal()
    calendar = principal.make_calendar(name="Work")
    calendar.save_event(EVENT)
    names = [one.get_display_name() for one in principal.calendars()]
    assert "Work" in names, names
    events = calendar.events()
    assert len(events) == 1, events
    assert "Käffchen behind the gate" in events[0].data, events[0].data
    found = calendar.event_by_uid("gateway-test-1")
    found.delete()
    assert calendar.events() == []

    request = urllib.request.Request(url + "/logout", b"", {"Authorization": f"Bearer {token}"})
    assert urllib.request.urlopen(request, timeout=10).status == 204
    assert refused(home, {"Authorization": f"Bearer {token}"}) == 401, "after log-out"
    print("done")


main()
