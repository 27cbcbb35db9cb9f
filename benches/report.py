#!/usr/bin/env python3
"""Draws the measurements of compare.py: DIR/bench.json becomes DIR/table.md and DIR/bench.svg.

    python3 benches/report.py DIR

compare.py runs this at its end; run it alone after a change of the drawing.
"""

import json
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

SIZES = {"64 B": 64, "1 KiB": 1024, "1 MiB": 1024 * 1024}


@dataclass
class Measure:
    label: str
    unit: str
    less_is_better: bool

    def ratio(self, ours, theirs):
        """How many times better ours is."""
        return theirs / ours if self.less_is_better else ours / theirs

    def better(self):
        return "less is better" if self.less_is_better else "more is better"


MEASURES = {
    **{f"ingest {size} cpu": Measure(f"ingest {size}: CPU per message", "ns", True) for size in SIZES},
    **{f"ingest {size} rate": Measure(f"ingest {size}: rate", "/s", False) for size in SIZES},
    "lines file cpu": Measure("64 B as lines to a file: CPU per message", "ns", True),
    "lines pipe cpu": Measure("64 B as lines to a pipe: CPU per message", "ns", True),
    "echo 1 rate": Measure("echo 64 B, 1 connection, one core: rate", "/s", False),
    "echo 1 p50": Measure("echo 64 B, 1 connection, one core: median time", "µs", True),
    "echo 64 rate": Measure("echo 64 B, 64 connections: rate", "/s", False),
    "echo 64 cpu": Measure("echo 64 B, 64 connections: CPU per message", "ns", True),
    **{f"tls {size} cpu": Measure(f"TLS, ingest {size}: CPU per message", "ns", True) for size in SIZES},
    "tls handshake cpu": Measure("TLS: CPU per connection, with a full handshake", "µs", True),
    "tls idle memory": Measure("TLS: memory per idle connection", "B", True),
    "idle memory": Measure("memory per idle connection", "B", True),
    "base memory": Measure("memory at the start", "KiB", True),
    "start time": Measure("from the start to listening", "ms", True),
}

# What is drawn; the rest is in the table.
PANELS = {
    "ingest 64 B cpu": ("Receiving", "64 B, server CPU time per message"),
    "echo 1 rate": ("Echo, 1 connection", "64 B, both ends on one core, messages per second"),
    # Not the rate: on two shared cores it falls by half now and then, for everyone.
    "echo 64 cpu": ("Echo, 64 connections", "64 B, server CPU time per message"),
    "idle memory": ("Memory per idle connection", "of the process, after one message each"),
}


def number(value, unit):
    """With three digits, in the unit in which it is short: 24.3 ns, 1.91 µs, 34.1 M/s."""
    steps = {
        "ns": ["ns", "µs", "ms"],
        "µs": ["µs", "ms", "s"],
        "ms": ["ms", "s"],
        "/s": ["/s", " k/s", " M/s"],
        "B": ["B", "kB", "MB"],
        "KiB": ["KiB", "MiB"],
    }[unit]
    size = 1024 if unit == "KiB" else 1000
    while abs(value) >= 0.9995 * size and len(steps) > 1:
        value, steps = value / size, steps[1:]
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}{'' if '/' in steps[0] else ' '}{steps[0]}"


# ---- the table


def table(results):
    servers = list(results["servers"])
    ours = servers[0]
    rows = [["", *(f"**{name}**" if name == ours else name for name in servers)]]
    for key, measure in MEASURES.items():
        arrow = "↓" if measure.less_is_better else "↑"
        row = [f"{measure.label} {arrow}"]
        for name in servers:
            figure = results["measures"][key].get(name)
            if figure is None:
                row.append("")
            elif name == ours:
                row.append(f"**{number(figure['median'], measure.unit)}**")
            else:
                row.append(f"{number(figure['median'], measure.unit)} ({ratio(figure['ratio'])})")
        rows.append(row)
    rounds = results["effort"]["rounds"]
    return "\n".join(
        [
            *aligned(rows),
            "",
            f"↓ less is better, ↑ more is better; in brackets how many times better {ours} is, below 1 worse.",
            f"{'One round' if rounds == 1 else f'Medians of {rounds} rounds'}, {circumstances(results)}.",
            "",
            *not_ahead(results),
            "",
        ]
    )


def circumstances(results):
    machine = results["machine"]
    control = machine["congestion_control"]
    return (
        f"{results['date'][:10]}: {machine['cpu']}, {machine['kernel']}, "
        f"{machine['cores']} cores for servers and generator, loopback{f' with {control}' if control else ''}"
    )


def ratio(value):
    return f"{value:.{2 if value < 1.995 else 1 if value < 9.95 else 0}f} ×"


def not_ahead(results):
    """Which peers are better at what, for whoever reads only this."""
    lines = []
    for key, measure in MEASURES.items():
        peers = [
            f"{name} ({ratio(figure['ratio'])})"
            for name, figure in results["measures"][key].items()
            if figure["ratio"] < 0.995
        ]
        if peers:
            lines.append(f"- {measure.label}: {', '.join(peers)}")
    return ["Not ahead of:", "", *lines] if lines else ["Ahead of all of them in all of it."]


def aligned(rows):
    widths = [max(map(len, column)) for column in zip(*rows)]
    first, *others = widths
    rows.insert(1, ["-" * first, *("-" * (width - 1) + ":" for width in others)])
    return [
        f"| {row[0]:{first}} | " + " | ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], others)) + " |"
        for row in rows
    ]


# ---- the chart. Its colours are those that stand out from white and from near-black alike.

TEXT, OURS, PEER = "#7d8590", "#2f81f7", "#8b949e"
PANEL, NAME, BAR = 420, 100, 230  # widths; a value stands behind the longest bar
ROW, TITLE = 22, 48  # heights
FAR = 6  # times ours


def chart(results):
    panels = [panel(results, key) for key in PANELS]
    height = TITLE + ROW * len(results["servers"])
    placed = [
        f'<g transform="translate({i % 2 * PANEL} {i // 2 * height})">{drawn}</g>'
        for i, drawn in enumerate(panels)
    ]
    width, all = 2 * PANEL, height * -(-len(panels) // 2) + ROW
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {all}" width="{width}" height="{all}" \
role="img" font-family="system-ui, sans-serif" font-size="13" fill="{TEXT}">
<title>framelet and its peers: {', '.join(title for title, _ in PANELS.values())}</title>
{chr(10).join(placed)}
<text x="4" y="{all - 8}" font-size="11">{escape(circumstances(results))}</text>
</svg>
"""


def panel(results, key):
    """Bars from the best to the worst."""
    measure, figures = MEASURES[key], results["measures"][key]
    title, details = PANELS[key]
    medians = {name: figure["median"] for name, figure in figures.items()}
    ours = next(iter(results["servers"]))
    # A value that is far off would make all others invisible: its bar is broken.
    longest = max(median for median in medians.values() if median <= FAR * medians[ours])
    parts = [
        f'<text x="4" y="18" font-weight="600">{escape(title)}</text>',
        f'<text x="4" y="35" font-size="11">{escape(details)}; {measure.better()}</text>',
    ]
    best_first = sorted(medians, key=medians.get, reverse=not measure.less_is_better)
    for i, name in enumerate(best_first):
        y = TITLE + i * ROW
        length = BAR * medians[name] / longest
        pieces = [(0, max(length, 2))]
        if length > BAR:
            length, pieces = BAR, [(0, BAR - 34), (BAR - 30, 30)]
        colour, weight = (OURS, 600) if name == ours else (PEER, 400)
        parts += [
            f'<text x="4" y="{y + 11}" font-weight="{weight}">{escape(name)}</text>',
            *(
                f'<rect x="{NAME + x}" y="{y}" width="{width:.1f}" height="14" rx="2" fill="{colour}"/>'
                for x, width in pieces
            ),
            f'<text x="{NAME + length + 6:.1f}" y="{y + 11}" font-weight="{weight}">'
            f"{escape(number(medians[name], measure.unit))}</text>",
        ]
    return "\n".join(parts)


def write(directory):
    results = json.loads((directory / "bench.json").read_text())
    (directory / "table.md").write_text(table(results))
    (directory / "bench.svg").write_text(chart(results))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
