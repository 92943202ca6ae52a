"""Prometheus itself against a running gateway: what it scrapes, what its linter says, and whether every expression of
the dashboard and of the alerts has an answer. `scripts/test` brings the programs:

PORTCULLIS_BIN       the gateway
PORTCULLIS_PROMETHEUS  the directory with `prometheus` and `promtool`

The last line is "N passed, N failed".
"""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "monitoring"
GATEWAY = os.environ["PORTCULLIS_BIN"]
PROGRAMS = pathlib.Path(os.environ["PORTCULLIS_PROMETHEUS"])
PASSWORD = "alice has a long pass phrase"
DEADLINE = 60
# The dashboard's placeholders, as Grafana would fill them in. Scraped each second, ten of them make a rate.
FILLED_IN = {"$__rate_interval": "10s", "$instance": ".*", "$route": ".*"}


# The key of RFC 7517, appendix A.1.
KEYS = {"keys": [{
    "kty": "EC", "crv": "P-256", "kid": "1", "use": "sig", "alg": "ES256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}]}


class Application(BaseHTTPRequestHandler):
    """An application, the collector of spans, and an issuer's keys."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps(KEYS if self.path == "/jwks.json" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def until(what, ask):
    """Asks until there is an answer."""
    ends = time.monotonic() + DEADLINE
    while time.monotonic() < ends:
        found = ask()
        if found:
            return found
        threading.Event().wait(0.2)
    raise AssertionError(f"still waiting for {what}")


@contextlib.contextmanager
def program(arguments, said):
    """Runs a program; gives what `said` finds in the lines of its standard error, one value for each pattern."""
    child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lines = []

    def read():
        for line in child.stderr:
            lines.append(re.sub("\x1b\\[[0-9;]*m", "", line))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        def find():
            if child.poll() is not None:
                raise AssertionError("it ended:\n" + "".join(lines))
            found = [next(filter(None, (re.search(one, line) for line in list(lines))), None) for one in said]
            return all(found) and [match.group(1) for match in found]
        yield until(f"{arguments[0]}", find)
    except BaseException:
        sys.stderr.write("".join(lines[-40:]))
        raise
    finally:
        child.terminate()
        child.wait(DEADLINE)
        reader.join(DEADLINE)


def fetch(url, data=None, headers=None):
    """Status, headers and body of an answer, whatever it is."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=DEADLINE) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def promtool(*arguments, given=None):
    ran = subprocess.run(
        [PROGRAMS / "promtool", *arguments], input=given, capture_output=True, text=True, timeout=DEADLINE
    )
    assert ran.returncode == 0, f"promtool {arguments}:\n{ran.stdout}{ran.stderr}"
    return ran.stdout + ran.stderr


class Traffic:
    """Requests of every kind, over and over, so that every rate has something to rise by."""

    def __init__(self, address):
        self.url = f"http://{address}"
        self.done = threading.Event()
        self.rounds = 0
        self.failure = None
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        try:
            token = self.sign_in(PASSWORD)
            while not self.done.wait(0.2):
                for path, headers, status in [
                    ("/app/x", {"Authorization": f"Bearer {token}"}, 200),
                    ("/app/x", {}, 401),
                    ("/admin", {"Authorization": f"Bearer {token}"}, 403),
                    ("/broken", {}, 502),
                    ("/nowhere", {}, 404),
                ]:
                    got = fetch(self.url + path, headers=headers)[0]
                    assert got == status, f"{path}: {got}"
                if self.rounds % 10 == 0:
                    self.sign_in(PASSWORD)
                self.rounds += 1
        except BaseException as error:  # the main thread says so
            self.failure = error

    def sign_in(self, password):
        data = json.dumps({"username": "alice", "password": password}).encode()
        status, _, body = fetch(self.url + "/login", data, {"Content-Type": "application/json"})
        assert status == 200, f"sign-in: {status} {body}"
        return json.loads(body)["access_token"]

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join(DEADLINE)


def configuration(directory, application):
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90",
         "-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True, timeout=DEADLINE,
    )
    key.chmod(0o600)
    text = f"""
[server]
listen = [{{ address = "127.0.0.1:0", tls = false }}, "127.0.0.1:0"]
tls = [{{ cert = "{certificate}", key = "{key}" }}]
workers = 2
[admin]
listen = "127.0.0.1:0"
[log]
access = "off"
[trace]
otlp = "http://{application}"
sample = 1.0
[upstreams]
app = "http://{application}"
broken = "http://127.0.0.1:1"
[[issuers]]
name = "corp"
issuer = "https://id.example"
audience = ["apps"]
jwks = "http://{application}/jwks.json"
user_prefix = "corp:"
[[routes]]
name = "app"
path = "/app/**"
allow = "signed-in"
upstream = "app"
[[routes]]
name = "admin"
path = "/admin"
allow = {{ groups = ["admin"] }}
upstream = "app"
[[routes]]
path = "/broken"
allow = "anyone"
upstream = "broken"
"""
    file = directory / "gateway.toml"
    file.write_text(text)
    subprocess.run(
        [GATEWAY, "user", "add", "alice", "--password-stdin", "--config", file],
        input=PASSWORD + "\n", text=True, check=True, capture_output=True, timeout=DEADLINE,
    )
    return file


def prometheus_configuration(directory, admin):
    """The example's own configuration, with this gateway's address and a shorter interval."""
    text = (EXAMPLES / "prometheus.yml").read_text()
    for old, new in [("127.0.0.1:9901", admin), ("scrape_interval: 15s", "scrape_interval: 1s"),
                     ("evaluation_interval: 15s", "evaluation_interval: 1s")]:
        assert text.count(old) >= 1, f"prometheus.yml has no {old}"
        text = text.replace(old, new)
    (directory / "alerts.yml").write_text((EXAMPLES / "alerts.yml").read_text())
    file = directory / "prometheus.yml"
    file.write_text(text)
    return file


class Prometheus:
    """The HTTP API of a running Prometheus."""

    def __init__(self, address):
        self.url = f"http://{address}/api/v1"

    def get(self, path, **query):
        status, _, body = fetch(f"{self.url}/{path}?{urllib.parse.urlencode(query)}")
        answer = json.loads(body)
        assert status == 200 and answer["status"] == "success", f"{path} {query}: {body}"
        return answer["data"]

    def query(self, expression):
        """The samples that are numbers."""
        result = self.get("query", query=expression)["result"]
        return [sample for sample in result if sample["value"][1] != "NaN"]


def described():
    rows = re.findall(r"^\| `((?:portcullis|process)_[a-z_]+)` \|", (ROOT / "docs" / "metrics.md").read_text(), re.M)
    assert len(rows) > 20, rows
    return set(rows)


def selectors(expression):
    """Every metric that an expression names, with its labels."""
    found = re.findall(r"\b((?:portcullis_\w+|process_\w+|up)(?:\{[^}]*\})?)", expression)
    assert found, f"no metric in {expression}"
    return found


def family(name):
    return re.sub(r"_(bucket|sum|count)$", "", name.split("{")[0])


def filled_in(expression):
    for placeholder, value in FILLED_IN.items():
        expression = expression.replace(placeholder, value)
    assert "$" not in expression, expression
    return expression


def dashboard():
    return json.loads((EXAMPLES / "dashboard.json").read_text())


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


# Each of these is a test; its name says what must hold.

def the_linter_finds_nothing(bench):
    status, headers, page = fetch(f"http://{bench.admin}/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4"), headers["Content-Type"]
    assert page.count("\n") > 150, page
    promtool("check", "metrics", given=page)


def the_examples_are_valid(_):
    promtool("check", "config", str(EXAMPLES / "prometheus.yml"))
    said = promtool("check", "rules", str(EXAMPLES / "alerts.yml"))
    assert f"SUCCESS: {len(alert_names())} rules" in said, said


def alert_names():
    names = re.findall(r"- alert: (\w+)", (EXAMPLES / "alerts.yml").read_text())
    assert len(names) >= 16, names
    return names


def alerts_fire_when_they_should(_):
    assert "SUCCESS" in promtool("test", "rules", str(EXAMPLES / "alerts_test.yml"))
    alerts = alert_names()
    tested = re.findall(r"alertname: (\w+)\n(?: .*\n)*? +exp_alerts:", (EXAMPLES / "alerts_test.yml").read_text())
    assert alerts and set(alerts) == set(tested), f"without a test that fires: {set(alerts) - set(tested)}"


def prometheus_scrapes_the_gateway(bench):
    def healthy():
        targets = bench.prometheus.get("targets")["activeTargets"]
        assert len(targets) <= 1 and not any(target["lastError"] for target in targets), targets
        return targets and targets[0]["health"] == "up"
    until("a healthy target", healthy)
    expected = described()
    # Prometheus asks for OpenMetrics, in which a counter's family has no `_total`.
    metadata = {row["metric"] for row in bench.prometheus.get("targets/metadata")}
    found = {name if name in expected else name + "_total" for name in metadata}
    assert found == expected, f"{found ^ expected}"


def every_panel_has_data(bench):
    # Rates need two scrapes, and spans a batch.
    count = 0
    for panel in panels():
        for target in panel["targets"]:
            expression = filled_in(target["expr"])
            until(f"data of “{panel['title']}”: {expression}", lambda: bench.prometheus.query(expression))
            count += 1
    assert count > 30, count


def every_variable_has_values(bench):
    variables = [one for one in dashboard()["templating"]["list"] if one["type"] == "query"]
    assert {one["name"] for one in variables} == {"instance", "route"}
    for one in variables:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", one["definition"]).groups()
        assert bench.prometheus.query(f"count by ({label}) ({metric})"), one["definition"]


def every_alert_can_fire(bench):
    def evaluated():
        rules = [rule for group in bench.prometheus.get("rules")["groups"] for rule in group["rules"]]
        assert not any(rule.get("lastError") for rule in rules), rules
        return all(rule["health"] == "ok" for rule in rules) and rules
    rules = until("the rules to be evaluated", evaluated)
    assert len(rules) == len(alert_names()), rules
    for rule in rules:
        assert rule["duration"] > 0 and rule["annotations"]["summary"] and rule["annotations"]["description"], rule
        assert rule["labels"]["severity"] in ("page", "ticket"), rule
        for selector in selectors(rule["query"]):
            assert bench.prometheus.query(selector), f"{rule['name']}: nothing has {selector}"


def an_alert_is_pending_for_the_upstream_that_is_down(bench):
    """The traffic has a route whose application is away: its alert waits for its time."""
    def seen():
        alerts = bench.prometheus.get("alerts")["alerts"]
        return [one for one in alerts if one["labels"]["alertname"] == "PortcullisUpstreamErrors"]
    found = until("the alert", seen)
    assert [one["labels"]["route"] for one in found] == ["route-3"], found


def dashboard_and_alerts_name_only_what_is_described(_):
    known = described()
    text = (EXAMPLES / "alerts.yml").read_text()
    expressions = [target["expr"] for panel in panels() for target in panel["targets"]]
    named = {family(name) for one in [*expressions, text] for name in re.findall(r"\b(?:portcullis|process)_\w+", one)}
    assert len(named) > 20 and named <= known, named - known


def grafana_can_import_the_dashboard(_):
    board = dashboard()
    assert board["title"] and board["uid"] and board["schemaVersion"] >= 36
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) > 20
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24 and place["w"] > 0 and place["h"] > 0, panel["title"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["type"] in ("stat", "timeseries") and panel["title"] and panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert refs and len(refs) == len(set(refs)), panel["title"]
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"]), panel["title"]


TESTS = [
    the_linter_finds_nothing,
    the_examples_are_valid,
    alerts_fire_when_they_should,
    prometheus_scrapes_the_gateway,
    every_panel_has_data,
    every_variable_has_values,
    every_alert_can_fire,
    an_alert_is_pending_for_the_upstream_that_is_down,
    dashboard_and_alerts_name_only_what_is_described,
    grafana_can_import_the_dashboard,
]


class Bench:
    """What a test gets: where things are."""

    def __init__(self, admin, prometheus):
        self.admin = admin
        self.prometheus = Prometheus(prometheus)


def main():
    failed = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = pathlib.Path(name)
        file = configuration(directory, f"127.0.0.1:{server.server_port}")
        address, admin = stack.enter_context(program(
            [GATEWAY, "serve", "--config", str(file)],
            [r"INFO listening address=(\S+)", r"INFO admin listening address=(\S+)"],
        ))
        traffic = stack.enter_context(Traffic(address))
        (prometheus,) = stack.enter_context(program(
            [str(PROGRAMS / "prometheus"), f"--config.file={prometheus_configuration(directory, admin)}",
             f"--storage.tsdb.path={directory / 'data'}", "--web.listen-address=127.0.0.1:0"],
            [r'msg="Listening on" address=(\S+)'],
        ))
        bench = Bench(admin, prometheus)
        for test in TESTS:
            title = test.__name__.replace("_", " ")
            try:
                test(bench)
                if traffic.failure:
                    raise traffic.failure
                print(f"ok    {title}")
            except Exception as error:  # each test is told of, and the others go on
                failed += 1
                print(f"FAIL  {title}\n      {type(error).__name__}: {error}")
    print(f"{len(TESTS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
