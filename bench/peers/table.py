"""Tables and a plot from the records of a comparison: medians over the rounds, and ratios to Envoy."""

import pathlib
from statistics import median

ROLES = ("hop", "client", "server")
OURS, REFERENCE = "meshward", "envoy"
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"

# What we ask of ourselves, as a part of Envoy's: scenario, what is compared, at most.
MARKS = [
    ("pair-h1", "CPU a request", 0.5),
    ("pair-grpc", "CPU a request", 0.5),
    ("hop-h1", "CPU a request", 0.6),
    ("hop-h2", "CPU a request", 0.6),
    ("tcp-bulk", "CPU a GiB", 1.0),
    ("tcp-churn", "CPU a connection", 0.5),
    ("tcp-churn-resumed", "CPU a connection", 0.5),
    ("idle-hop", "resident memory", None),
    ("idle-pair", "resident memory", None),
    ("idle-tcp", "resident memory", None),
]
IDLE_MARK, HELD_MARK = 0.25, 0.4


def both(record, field):
    """The sum over the proxies of a record."""
    values = record.get(field) or {}
    found = [values[role] for role in ROLES if role in values]
    return sum(found) if found else None


def resident(record, field):
    values = record.get(field) or {}
    found = [values[role]["rss"] for role in ROLES if role in values]
    return sum(found) if found else None


class Results:
    def __init__(self, result):
        self.records = [r for r in result["records"] if "error" not in r]
        self.failed = [r for r in result["records"] if "error" in r]
        self.labels = [d["label"] for d in result["drivers"]]
        self.scenarios = list(dict.fromkeys(r["scenario"] for r in self.records))

    def phases(self, scenario):
        return list(dict.fromkeys(r["phase"] for r in self.records if r["scenario"] == scenario))

    def get(self, scenario, phase, label, what):
        chosen = [r for r in self.records
                  if r["scenario"] == scenario and r["phase"] == phase and r["driver"] == label]
        values = [v for v in map(what, chosen) if v is not None]
        return median(values) if values else None


def number(value, digits=1):
    return "" if value is None else f"{value:,.{digits}f}".replace(",", " ")


def ratio(value, base, mark=None):
    if value is None or not base:
        return ""
    share = value / base
    text = f"{share:.2f}"
    return text if mark is None or share <= mark else f"**{text}**"


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head),
                      *["| " + " | ".join(row) + " |" for row in rows]])


def cost(scenario):
    field = "cpu_s_per_gib" if scenario == "tcp-bulk" else "cpu_us_per_request"
    return lambda record: both(record, field)


def mark_of(scenario):
    return next((mark for name, _, mark in MARKS if name == scenario), None)


def requests(results):
    rows = []
    for scenario in results.scenarios:
        if scenario.startswith(("idle", "tcp-bulk")):
            continue
        for phase in results.phases(scenario):
            base = results.get(scenario, phase, REFERENCE, cost(scenario))
            for label in results.labels:
                spent = results.get(scenario, phase, label, cost(scenario))
                if spent is None:
                    continue
                def latency(q):
                    return number(results.get(scenario, phase, label, lambda r: r["load"]["lat_us"][q]), 0)
                rows.append([scenario, phase, label, number(results.get(scenario, phase, label,
                             lambda r: r["load"]["rps"]), 0), latency("p50"), latency("p99"), number(spent),
                             ratio(spent, base, mark_of(scenario) if label == OURS else None)])
    return table(["scenario", "phase", "proxy", "req/s", "p50 µs", "p99 µs", "CPU µs", "of Envoy's"], rows)


def bulk(results):
    rows = []
    for phase in results.phases("tcp-bulk"):
        base = results.get("tcp-bulk", phase, REFERENCE, cost("tcp-bulk"))
        for label in results.labels:
            spent = results.get("tcp-bulk", phase, label, cost("tcp-bulk"))
            if spent is not None:
                speed = results.get("tcp-bulk", phase, label, lambda r: r["gib_per_s"])
                rows.append(["tcp-bulk", phase, label, number(speed, 2), number(spent, 2),
                             ratio(spent, base, 1.0 if label == OURS else None)])
    return table(["scenario", "connections", "proxy", "GiB/s", "CPU s/GiB", "of Envoy's"], rows)


def memory(results):
    rows = []
    for scenario in results.scenarios:
        if not scenario.startswith("idle"):
            continue
        idle, held = (lambda r: resident(r, "memory_idle")), (lambda r: resident(r, "memory"))
        bases = [results.get(scenario, "idle", REFERENCE, what) for what in (idle, held)]
        for label in results.labels:
            values = [results.get(scenario, "idle", label, what) for what in (idle, held)]
            if values[0] is None:
                continue
            marks = (IDLE_MARK, HELD_MARK) if label == OURS else (None, None)
            cells = [c for v, b, m in zip(values, bases, marks) for c in (number(v), ratio(v, b, m))]
            rows.append([scenario, label, *cells])
    return table(["scenario", "proxy", "idle MiB", "of Envoy's", "1 000 connections MiB", "of Envoy's"], rows)


def markdown(result, facts):
    results = Results(result)
    parts = [*facts, "", "CPU is user and system time of both proxies together (of the one, for `hop`), for each request; "
             "for `tcp-churn` for each connection with a whole handshake, and for `tcp-churn-resumed` for each with what a proxy does "
             "unless told otherwise: Envoy resumes TLS sessions, ours keep connections for the next ([adr/0023]"
             "(adr/0023-connections-take-turns.md)). `saturate` is a closed loop, `rate` a fixed rate: "
             "1 000/s for pairs, 4 000/s for a hop, 500/s for `rbac`. Bold is above the mark that we set ourselves: half of "
             "Envoy's for pairs and new connections, 0.6 for a hop, 1.0 for bulk; resident memory a quarter, and 0.4 with "
             "1 000 idle connections. HAProxy and nginx verify a peer's chain and not who it is, and nginx speaks HTTP/1.1 "
             "between the two: they are lower bounds, not like for like.", "",
             "![CPU and memory as a part of Envoy's](performance.svg)", "", requests(results), ""]
    if "tcp-bulk" in results.scenarios:
        parts += [bulk(results), ""]
    if any(s.startswith("idle") for s in results.scenarios):
        parts += ["Resident memory of both proxies together (of the one, for `hop`):", "", memory(results), ""]
    wrong = sorted({f"- {r['scenario']}, {r['driver']}: {r['error']}" for r in results.failed})
    if wrong:
        parts += ["Not measured:", "", *wrong, ""]
    return "\n".join(parts)


def bars(results):
    """What the plot shows: name, our part of Envoy's, mark."""
    out = []
    for scenario, _, mark in MARKS:
        for phase in results.phases(scenario):
            if scenario.startswith("idle"):
                for name, field, limit in (("idle", "memory_idle", IDLE_MARK), ("1 000 held", "memory", HELD_MARK)):
                    def what(record, field=field):
                        return resident(record, field)
                    out.append((f"{scenario}, {name}: MiB", *pair(results, scenario, phase, what), limit))
            else:
                out.append((f"{scenario}, {phase}", *pair(results, scenario, phase, cost(scenario)), mark))
    return [(name, ours / base, mark) for name, ours, base, mark in out if ours is not None and base]


def pair(results, scenario, phase, what):
    return (results.get(scenario, phase, OURS, what), results.get(scenario, phase, REFERENCE, what))


def svg(results):
    rows = bars(results)
    left, right, step, top = 190, 40, 22, 40
    most = max([1.0, *[share for _, share, _ in rows]])
    width, scale = 720, (720 - left - right) / most
    height = top + step * len(rows) + 20
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="{width}" height="{height}" fill="white"/>',
             f'<text x="{left}" y="18">Ours as a part of Envoy\'s (CPU a request, resident memory): less is better</text>']
    one = left + scale
    parts.append(f'<line x1="{one:.1f}" y1="{top - 8}" x2="{one:.1f}" y2="{height - 12}" stroke="#888"/>')
    parts.append(f'<text x="{one:.1f}" y="{height - 1}" text-anchor="middle" fill="#666">Envoy</text>')
    for at, (name, share, mark) in enumerate(rows):
        y = top + at * step
        colour = "#2a7" if mark is None or share <= mark else "#c63"
        parts.append(f'<text x="{left - 6}" y="{y + 12}" text-anchor="end">{name}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{share * scale:.1f}" height="15" fill="{colour}"/>')
        parts.append(f'<text x="{left + share * scale + 4:.1f}" y="{y + 12}">{share:.2f}</text>')
        if mark is not None:
            x = left + mark * scale
            parts.append(f'<line x1="{x:.1f}" y1="{y - 2}" x2="{x:.1f}" y2="{y + 17}" stroke="black" stroke-width="2"/>')
    return "\n".join([*parts, "</svg>", ""])


def write(docs: pathlib.Path, result, text):
    """Puts the text between its marks in performance.md; what stands around it stays."""
    page = docs / "performance.md"
    whole = page.read_text()
    before, _, rest = whole.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    (docs / "performance.svg").write_text(svg(Results(result)))
