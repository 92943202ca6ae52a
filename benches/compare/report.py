"""What came of a run: tables in Markdown, the bars of the contract, a picture, and the marked part of docs/performance.md."""

import html
import pathlib
import statistics

import workloads
from stage import contenders as who

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE, PICTURE = ROOT / "docs/performance.md", ROOT / "docs/performance.svg"
BEGIN, END = "<!-- compare: written by benches/compare/run.py -->", "<!-- compare: end -->"
BY_NAME = {workload.name: workload for workload in workloads.LIST}
TIMES = ("p50", "p99", "p99.9")
# Below this share of its core a proxy was not the one that all waited for: its requests a second are not its own limit.
BUSY = 0.9


def line(workload, name, sample):
    busy = "" if sample.busy >= BUSY else f", {sample.busy:.0%} busy"
    return (f"{workload.name:15} {name:22} {sample.cpu_us:9.1f} us of CPU a {workload.unit} {sample.rate:8.0f}/s"
            f" {sample.rss_mib:6.1f} MiB{busy}")


def column(samples, key):
    return [sample[key] for sample in samples]


def median(samples, key):
    return statistics.median(column(samples, key))


def spread(samples):
    """The coefficient of variation between rounds, in per cent."""
    values = column(samples, "cpu_us")
    return statistics.stdev(values) / statistics.mean(values) * 100 if len(values) > 1 else 0.0


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
        row = [name, f"{cpu:.1f}", f"{spread(samples):.0f} %", f"{ratio(by, name, nginx):.2f}" if nginx in by else "",
               f"{median(samples, 'rate'):.0f}", f"{median(samples, 'busy'):.0%}".replace("%", " %"),
               f"{median(samples, 'rss_mib'):.1f}"]
        row += [f"{workload.bytes / cpu * 1e6 / 2**20:.0f}"] if workload.bytes else []
        row += [f"{statistics.median(sample['latency_us'][each] for sample in samples):.0f}" for each in TIMES] if timed else []
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def bars(run):
    """What the contract wants, the figure, and whether it holds; only of what was measured in this run."""
    by = run["found"].get("page", {})
    ours = {one.algorithm: one.name for one in who.OURS if one.name in by}
    rows = []

    def add(what, at_most, figure):
        rows.append((what, at_most, figure, "holds" if figure <= at_most else "**missed**"))

    for algorithm, mine in ours.items():
        if who.NGINX.name in by:
            add(f"{algorithm} beside nginx that asks for nothing", 1.0, ratio(by, mine, who.NGINX.name))
    for algorithm, other, at_most in (("HS256", who.HAPROXY_HS, 0.85), ("RS256", who.HAPROXY_RS, 0.4),
                                      ("RS256", who.ENVOY_CACHED, 1 / 3)):
        if algorithm in ours and other.name in by:
            add(f"{algorithm} beside {other.name}", at_most, ratio(by, ours[algorithm], other.name))
    found = run["found"]
    for name, base in (("routes", "page"), ("million", "tokens")):
        for one in (each.name for each in who.OURS):
            if one in found.get(name, {}) and one in found.get(base, {}):
                grown = median(found[name][one], "cpu_us") / median(found[base][one], "cpu_us")
                add(f"{BY_NAME[name].title} beside {BY_NAME[base].title}, {one}", 1.1, grown)
    head = "| CPU time | at most | measured | |\n| --- | --- | --- | --- |\n"
    return head + "\n".join(f"| {what} | {at_most:.2f} | {figure:.2f} | {verdict} |" for what, at_most, figure, verdict in rows)


def about(run):
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return (f"Medians of {run['rounds']} rounds on {run['machine']}; {versions}. Times of answers at {run['rate']} requests a "
            "second. `±` is the coefficient of variation between rounds.")


def everything(run):
    tables = [table(run, workload) for workload in workloads.LIST if workload.name in run["found"]]
    return "\n\n".join([about(run), bars(run), *tables]) + "\n"


def write_docs(run):
    text = PAGE.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    picture = ""
    if "page" in run["found"]:
        PICTURE.write_text(svg(run))
        picture = f"![CPU time of a request, by proxy]({PICTURE.name})\n\n"
    made = f"\n\n```text\n{run['command']}\n```\n\n{picture}{everything(run)}\n"
    PAGE.write_text(text[:begin] + made + text[end:])


COLOURS = {"portcullis": "#1f7a4d", "nginx": "#6b7280", "haproxy": "#6b7280", "envoy": "#6b7280"}


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
