"""What came of a run: tables in Markdown, the bars of the contract, a picture, and the marked part of docs/performance.md."""

import html
import pathlib
import statistics
import sys

import workloads
from stage import contenders as who

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE, PICTURE = ROOT / "docs/performance.md", ROOT / "docs/performance.svg"
BY_NAME = {workload.name: workload for workload in workloads.LIST}
TIMES = ("p50", "p99", "p99.9")
# Below this share of its core a proxy was not the one that all waited for: its requests a second are not its own limit.
BUSY = 0.9
# Seconds of CPU time below which the steps show in which the system counts.
COARSE = 0.5


def line(workload, name, sample):
    busy = "" if sample.busy >= BUSY else f", {sample.busy:.0%} busy"
    if sample.requests * sample.cpu_us < COARSE * 1e6:
        busy += f", in steps of 10 ms of CPU time"
    return (f"{workload.name:15} {name:22} {sample.cpu_us:9.1f} us of CPU a {workload.unit} {sample.rate:8.0f}/s"
            f" {sample.rss_mib:6.1f} MiB{busy}")


def column(samples, key):
    return [sample[key] for sample in samples]


def median(samples, key):
    return statistics.median(column(samples, key))


def spread(samples):
    """The coefficient of variation between rounds, in per cent."""
    values = column(samples, "cpu_us")
    return f"{statistics.stdev(values) / statistics.mean(values) * 100:.0f} %" if len(values) > 1 else ""


def ratio(by, one, other):
    """The median over the rounds of a ratio within each round."""
    pairs = zip(column(by[one], "cpu_us"), column(by[other], "cpu_us"))
    return statistics.median(mine / theirs for mine, theirs in pairs)


def merged(runs):
    """Later files add workloads; one that stands in several counts as in the last."""
    whole = dict(runs[-1])
    whole["found"] = {name: by for run in runs for name, by in run["found"].items()}
    return whole


def table(run, workload):
    by = run["found"][workload.name]
    nginx = who.NGINX.name
    timed = any(sample["latency_us"] for samples in by.values() for sample in samples)
    head = [workload.title, f"CPU a {workload.unit}, µs", "±", "beside nginx", f"{workload.unit}s/s", "busy", "VmRSS, MiB"]
    head += ["MiB a CPU second"] if workload.bytes else []
    head += [f"{name}, µs" for name in TIMES] if timed else []
    rows = [head, ["---"] * len(head)]
    for name, samples in sorted(by.items(), key=lambda item: median(item[1], "cpu_us")):
        cpu = median(samples, "cpu_us")
        row = [name, f"{cpu:.1f}", spread(samples), f"{ratio(by, name, nginx):.2f}" if nginx in by else "",
               f"{median(samples, 'rate'):.0f}", f"{median(samples, 'busy'):.0%}".replace("%", " %"),
               f"{median(samples, 'rss_mib'):.1f}"]
        row += [f"{workload.bytes / cpu * 1e6 / 2**20:.0f}"] if workload.bytes else []
        row += [f"{statistics.median(sample['latency_us'][each] for sample in samples):.0f}" for each in TIMES] if timed else []
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def bars(run):
    """What the contract wants, the figure, and whether it holds; only of what was measured in this run."""
    found, rows = run["found"], []

    def add(what, at_most, *sides):
        """Compares two pairs of workload and contender, in each round where they are of one workload."""
        if not all(name in found.get(workload, {}) for workload, name in sides):
            return
        (workload, mine), (other, theirs) = sides
        samples = found[workload][mine], found[other][theirs]
        if workload == other:
            figure = ratio(found[workload], mine, theirs)
        else:
            figure = median(samples[0], "cpu_us") / median(samples[1], "cpu_us")
        verdict = "holds" if figure <= at_most else "**missed**"
        idle = " (a proxy had to wait for the load, and takes more then)"
        rows.append((what, at_most, figure, verdict + ("" if all(median(each, "busy") >= BUSY for each in samples) else idle)))

    for one in who.OURS:
        add(f"{one.algorithm} beside nginx that asks for nothing", 1.0, ("page", one.name), ("page", who.NGINX.name))
    for mine, other, at_most in ((who.OURS[0], who.HAPROXY_HS, 0.85), (who.OURS[1], who.HAPROXY_RS, 0.4),
                                 (who.OURS[1], who.ENVOY_CACHED, 1 / 3)):
        add(f"{mine.algorithm} beside {other.name}", at_most, ("page", mine.name), ("page", other.name))
    for name, base in (("routes", "page"), ("million", "tokens")):
        for one in who.OURS:
            add(f"{BY_NAME[name].title}, beside {BY_NAME[base].title}, {one.name}", 1.1, (name, one.name), (base, one.name))
    head = "| CPU time | at most | measured | |\n| --- | --- | --- | --- |\n" if rows else ""
    return head + "\n".join(f"| {what} | {at_most:.2f} | {figure:.2f} | {verdict} |" for what, at_most, figure, verdict in rows)


def about(run):
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    rounds = f"{run['rounds']} rounds" if run["rounds"] > 1 else "one round"
    return (f"Medians of {rounds} on {run['machine']}; {versions}. Times of answers at {run['rate']} requests a second. `±` is"
            " the coefficient of variation between rounds.")


def everything(run):
    tables = [table(run, workload) for workload in workloads.LIST if workload.name in run["found"]]
    return "\n\n".join(part for part in (about(run), bars(run), *tables) if part)


def write_docs(run):
    picture = []
    if "page" in run["found"]:
        PICTURE.write_text(svg(run))
        picture = [f"![CPU time of a request, by proxy]({PICTURE.name})"]
    put("run", run["command"], *picture, everything(run))


def put(script, command, *parts):
    """Fills the part of docs/performance.md that is marked for a script."""
    begin, end = f"<!-- written by benches/compare/{script}.py -->", f"<!-- end of {script}.py -->"
    text = PAGE.read_text()
    before, _, rest = text.partition(begin)
    assert rest and end in rest, f"{PAGE} has no place for {script}.py: {begin} and {end}"
    made = "\n\n".join([begin, f"```text\n{command}\n```", *parts, end])
    PAGE.write_text(before + made + rest.partition(end)[2])


def command_of(arguments):
    """What was run, without where it wrote to."""
    words, kept = iter(arguments), []
    for word in words:
        if word == "--json":
            next(words)
        elif word != "--write-docs":
            kept.append(word)
    return " ".join([f"python3 benches/compare/{pathlib.Path(sys.argv[0]).name}", *kept])


COLOURS = {"portcullis": "#1f7a4d", "nginx": "#6b7280", "haproxy": "#6b7280", "envoy": "#6b7280", "hyper": "#a8a29e"}


def svg(run):
    """Bars of the CPU time of the plain request, on a background of its own, so that it can be read on light and dark pages."""
    by = run["found"]["page"]
    rows = sorted(((name, median(samples, "cpu_us")) for name, samples in by.items()), key=lambda row: row[1])
    left, wide, high, top = 190, 440, 24, 56
    width, height = left + wide + 80, top + high * len(rows) + 16
    scale = wide / rows[-1][1]
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
             'font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="CPU time of a request, by proxy">',
             f'<rect width="{width}" height="{height}" rx="8" fill="#f6f5f1" stroke="#d6d3ca"/>',
             '<text x="16" y="24" font-weight="600" fill="#1c1b19">CPU time of a proxied request, µs (less is better)</text>',
             '<text x="16" y="42" font-size="11" fill="#57544d">1 KiB over HTTP/1.1, 64 kept connections, one worker on one '
             'core; the algorithm is that of the token that is checked</text>']
    for number, (name, value) in enumerate(rows):
        y, mine = top + number * high, name.startswith("portcullis")
        parts += [f'<text x="{left - 8}" y="{y + 16}" text-anchor="end" fill="#1c1b19" font-weight="{600 if mine else 400}">'
                  f'{html.escape(name)}</text>',
                  f'<rect x="{left}" y="{y + 4}" width="{value * scale:.1f}" height="{high - 8}" rx="2" '
                  f'fill="{COLOURS[name.split()[0]]}"/>',
                  f'<text x="{left + value * scale + 6:.1f}" y="{y + 16}" fill="#1c1b19">{value:.1f}</text>']
    return "\n".join([*parts, "</svg>"]) + "\n"
