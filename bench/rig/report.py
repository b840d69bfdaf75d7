"""Tables in Markdown: the figures, and how they stand to the targets."""

import statistics

from rig.measure import FOREIGN

# Measurement, figure, title.
FIGURES = [
    ("h1-c1", "cpu_us_per", "h1, 1 client: CPU us a request"),
    ("h1-c1", "p50_us", "h1, 1 client: p50 us"),
    ("h1-c64", "cpu_us_per", "h1, 64 clients: CPU us a request"),
    ("h1-c64", "rate", "h1, 64 clients: requests/s"),
    ("h1-c64", "p50_us", "h1, 64 clients: p50 us"),
    ("h1-c64", "p99_us", "h1, 64 clients: p99 us"),
    ("h1-c64", "p999_us", "h1, 64 clients: p99.9 us"),
    ("h1-64k", "cpu_us_per", "h1, 64 KiB bodies: CPU us a request"),
    ("h1-64k", "p99_us", "h1, 64 KiB bodies: p99 us"),
    ("h2-4x16", "cpu_us_per", "h2, 4 clients of 16 streams: CPU us a request"),
    ("h2-4x16", "rate", "h2, 4 clients of 16 streams: requests/s"),
    ("h2-4x16", "p50_us", "h2, 4 clients of 16 streams: p50 us"),
    ("h2-4x16", "p99_us", "h2, 4 clients of 16 streams: p99 us"),
    ("h2-4x16", "p999_us", "h2, 4 clients of 16 streams: p99.9 us"),
    ("tunnel", "cpu_us_per", "new tunnel: CPU us"),
    ("tunnel", "p99_us", "new tunnel: p99 us"),
    ("resumed", "cpu_us_per", "resumed tunnel: CPU us"),
    ("resumed", "p99_us", "resumed tunnel: p99 us"),
    ("cold", "cpu_us_per", "new host, a leaf minted: CPU us"),
    ("cold", "p50_us", "new host, a leaf minted: p50 us"),
    ("down", "cpu_us_per_mb", "h1 download: CPU us a MB"),
    ("down", "mb_per_s", "h1 download: MB/s"),
    ("up", "cpu_us_per_mb", "h1 upload: CPU us a MB"),
    ("up", "mb_per_s", "h1 upload: MB/s"),
    ("down-h2", "cpu_us_per_mb", "h2 download: CPU us a MB"),
    ("down-h2", "mb_per_s", "h2 download: MB/s"),
    ("up-h2", "cpu_us_per_mb", "h2 upload: CPU us a MB"),
    ("up-h2", "mb_per_s", "h2 upload: MB/s"),
    ("sse", "p50_us", "SSE, one way: p50 us"),
    ("sse", "p99_us", "SSE, one way: p99 us"),
    ("ws", "p50_us", "WebSocket, one way: p50 us"),
    ("ws", "p99_us", "WebSocket, one way: p99 us"),
    ("idle", "idle_rss_mb", "memory, idle: RSS MiB"),
    ("idle", "rss_mb", "memory, 1,000 tunnels: RSS MiB"),
    ("idle", "kb_each", "an idle tunnel of 1,000: KiB"),
    ("idle-10k", "rss_mb", "memory, 10,000 tunnels: RSS MiB"),
    ("idle-10k", "kb_each", "an idle tunnel of 10,000: KiB"),
    ("start", "ms", "start to first accept: ms"),
]

# Measurement, figure, title, and how much of a peer's it may be. Bulk is meant in both directions and both protocols.
RATIOS = [
    ("h1-c64", "cpu_us_per", "h1, 64 clients: CPU a request", {"haproxy": 0.75, "hudsucker-nd": 0.90}),
    ("h2-4x16", "cpu_us_per", "h2, 4 clients of 16 streams: CPU a request", {"haproxy": 0.95, "hudsucker-nd": 0.85}),
    ("tunnel", "cpu_us_per", "new tunnel: CPU", {"haproxy": 0.60, "hudsucker-nd": 0.85}),
    ("resumed", "cpu_us_per", "resumed tunnel: CPU", {"haproxy": 0.50, "hudsucker-nd": 0.90}),
    ("cold", "cpu_us_per", "new host: CPU", {"hudsucker-nd": 0.60}),
    ("down", "cpu_us_per_mb", "h1 download: CPU a MB", {"haproxy": 0.65, "hudsucker-nd": 0.90}),
    ("up", "cpu_us_per_mb", "h1 upload: CPU a MB", {"haproxy": 0.65, "hudsucker-nd": 0.90}),
    ("down-h2", "cpu_us_per_mb", "h2 download: CPU a MB", {"haproxy": 0.65, "hudsucker-nd": 0.90}),
    ("up-h2", "cpu_us_per_mb", "h2 upload: CPU a MB", {"haproxy": 0.65, "hudsucker-nd": 0.90}),
    ("idle", "kb_each", "memory of an idle tunnel", {"haproxy": 1.0, "hudsucker-nd": 0.35}),
    ("sse", "p50_us", "SSE: p50", {"haproxy": 1.0}),
    ("sse", "p99_us", "SSE: p99", {"nginx": 1.0}),
]

# Measurement, figure, title, and the most that it may be.
ABSOLUTE = [
    ("start", "ms", "start to first accept: ms", 5),
    ("idle", "idle_rss_mb", "memory, idle: RSS MiB", 6),
    ("idle", "rss_mb", "memory, 1,000 tunnels: RSS MiB", 25),
]

# A timer of delayed acknowledgements or of Nagle's algorithm: no p99 may be so late. (A busy peer's may be, by its queue.)
TIMER_US = 38_000


def heading(about):
    cores = ", which share a core" if about["same_core"] else ""
    where = f"{about['processor']}, Linux {about['kernel']}; load on processor {about['load_on']}, proxy on {about['proxy_on']}{cores}"
    said = "Medians of {rounds} rounds of {seconds:g} s, ± half the spread; `?` where others were busy in every round.".format(**about)
    return f"{about['date']}, {where}. {said}\n"


def figures(results, sizes):
    """One row a figure, one column a peer."""
    names = list(results)
    lines = ["| figure | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for measurement, figure, title in FIGURES:
        cells = [cell(results[name], measurement, figure) for name in names]
        if any(found != "-" for found in cells):
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    if any(sizes.values()):
        cells = [shown(sizes[name]) if sizes.get(name) else "-" for name in names]
        lines.append("| the program: MB | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def targets(results):
    """For each build of egress, its figures over those of a peer in the same rounds."""
    lines = []
    for name in (name for name in results if name.startswith("egress")):
        for measurement, figure, title, most in RATIOS:
            for peer, target in most.items():
                found = ratio(results[name], results.get(peer, []), measurement, figure)
                if found:
                    value, mark = found
                    lines.append(f"| {name} | {title} | {peer} | {value:.2f}{mark} | {target:.2f} | {verdict(value, target)}{mark} |")
        for measurement, figure, title, target in ABSOLUTE:
            values, mark = trusted(results[name], measurement, figure)
            if values:
                value = statistics.median(values)
                lines.append(f"| {name} | {title} | | {shown(value)}{mark} | {target} | {verdict(value, target)}{mark} |")
        measured = p99(results[name])
        late = [f"{key} {value / 1000:.0f} ms" for key, value, _ in measured if value > TIMER_US]
        if measured:
            said, mark = "; ".join(late) or "none", max(mark for _, _, mark in measured)
            lines.append(f"| {name} | p99 beyond 38 ms | | {said}{mark} | none | {'not met' if late else 'met'}{mark} |")
    return "\n".join(["| | figure | over that of | is | target | |", "|---|---|---|---|---|---|", *lines]) if lines else ""


def verdict(value, target):
    return "met" if value <= target else "not met"


def p99(rounds):
    """Of all that is not bulk, where a unit of work is a whole body of 256 MB."""
    measured = {name for figures in rounds for name, found in figures.items() if "mb_per_s" not in found}
    found = ((name, *trusted(rounds, name, "p99_us")) for name in sorted(measured))
    return [(name, statistics.median(values), mark) for name, values, mark in found if values]


def cell(rounds, measurement, figure):
    values, mark = trusted(rounds, measurement, figure)
    if not values:
        return "-"
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / middle / 2 if middle else 0
    return shown(middle) + (f" ±{spread:.0%}" if spread > 0.05 else "") + mark


def shown(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def trusted(rounds, measurement, figure):
    """The values of the rounds in which nobody else was busy; of all, with a question mark, where there is none."""
    all_values = [(found, foreign) for found, foreign in (value(each, measurement, figure) for each in rounds) if found is not None]
    calm = [found for found, foreign in all_values if foreign < FOREIGN]
    return (calm, "") if calm or not all_values else ([found for found, _ in all_values], " ?")


def ratio(ours, theirs, measurement, figure):
    """The median of the ratios of the rounds: what a round has in common, it has in both."""
    pairs = []
    for one, other in zip(ours, theirs):
        (mine, foreign), (peers, foreign_too) = value(one, measurement, figure), value(other, measurement, figure)
        if mine is not None and peers:
            pairs.append((mine / peers, max(foreign, foreign_too)))
    calm = [found for found, foreign in pairs if foreign < FOREIGN]
    if not pairs:
        return None
    return statistics.median(calm or [found for found, _ in pairs]), "" if calm else " ?"


def value(figures, measurement, figure):
    """With how much of a processor others had."""
    found = figures.get(measurement)
    if not found:
        return None, 0
    if measurement == "start":
        return (statistics.median(found["ms"]) if figure == "ms" else None), 0
    # Without a single unit of work it is a failure, and no figure.
    if not found.get("n") and "mb_per_s" not in found:
        return None, 0
    return {**found, **found.get("held", {})}.get(figure), found["foreign"]
