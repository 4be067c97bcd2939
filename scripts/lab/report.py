"""Medians, ratios and bars: as a table for people and as JSON for programs."""
import json
import os
import platform
import statistics

from lab.measuring import MEASURES

#: What Wharf must reach: measure, against whom, the bound of the median ratio (Wharf / other).
BARS = [
    ("tcp1", "rawtap", 0.95), ("tcp4", "rawtap", 0.95), ("pps18", "rawtap", 0.95), ("rr", "rawtap", 1.15),
    ("tcp1", "ovs", 8.0), ("tcp4", "ovs", 8.0), ("pps18", "ovs", 1.0), ("rr", "ovs", 1.0),
    ("tcp1", "vde", 15.0), ("tcp4", "vde", 15.0), ("pps18", "vde", 1.0), ("rr", "vde", 1.0),
]


def ratios(rounds, what, one, other):
    """One ratio a round, so that what slows the machine for a while slows both."""
    pairs = [(r.get(one, {}).get(what), r.get(other, {}).get(what)) for r in rounds]
    return [x["value"] / y["value"] for x, y in pairs if x and y]


def median(values):
    return statistics.median(values) if values else None


def summary(rounds, switches):
    """Per switch and measure: median, spread, and the ratio to the floor."""
    out = {}
    for switch in switches:
        for what in MEASURES:
            results = [r[switch][what] for r in rounds if r.get(switch, {}).get(what)]
            values = [result["value"] for result in results]
            if not values:
                continue
            to_floor = ratios(rounds, what, switch, "rawtap")
            out.setdefault(switch, {})[what] = {
                "median": median(values), "least": min(values), "most": max(values), "runs": len(values),
                "ratio_to_rawtap": median(to_floor),
                "ratio_spread": [min(to_floor), max(to_floor)] if to_floor else None,
                **({"p99": median([result["p99"] for result in results])} if what == "rr" else {}),
            }
    return out


def bars(rounds):
    """Each bar that this run can judge: (text, reached)."""
    out = []
    for what, other, bound in BARS:
        ratio = median(ratios(rounds, what, "wharf", other))
        if ratio is None:
            continue
        title, _, more = MEASURES[what]
        sign = "≥" if more else "≤"
        reached = ratio >= bound if more else ratio <= bound
        out.append((f"{title}: {ratio:.2f} × {other}, bar {sign} {bound:g}", reached))
    return out


def cpu_name():
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def machine():
    return {"cpu": cpu_name(), "cores": os.cpu_count(), "kernel": platform.release()}


def figure(entry):
    """`12.2 (0.98)`: the median, and its ratio to the floor."""
    if entry is None:
        return "failed"
    value = entry["median"]
    text = f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    ratio = entry["ratio_to_rawtap"]
    return text if ratio is None else f"{text} ({ratio:.2f})"


def table(result):
    """The Markdown table: a line a switch, a column a measure."""
    whats = result["units"]
    head = ["switch"] + [f"{MEASURES[what][0]}, {unit}" for what, unit in whats.items()]
    rows = [head, ["---"] + ["---:"] * len(whats)]
    for switch in result["switches"]:
        entries = result["summary"].get(switch, {})
        rows.append([switch] + [figure(entries.get(what)) for what in whats])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def markdown(result):
    on, how = result["machine"], result["method"]
    lines = [
        "# Two containers on one host",
        "",
        "Written by `scripts/compare-peers same-host`; do not edit. Medians, and in brackets the median of",
        "the ratios to `rawtap`, a loop that only copies frames between two TAPs.",
        "",
        table(result),
        "",
        f"{on['cpu']}, {on['cores']} cores, Linux {on['kernel']}; {result['date']}. {how['repeats']} rounds,",
        f"interleaved, {how['seconds']} s a measurement; both ends on this machine, for the round trip on",
        "different cores.",
        "",
    ]
    for switch, about in result["switches"].items():
        version = f" ({about['version']})" if about["version"] else ""
        lines.append(f"- `{switch}`{version}: {about['what']}")
    if result["bars"]:
        lines += ["", "Bars:", ""]
        lines += [f"- {'reached' if bar['reached'] else '**missed**'}: {bar['bar']}" for bar in result["bars"]]
    if result["failures"]:
        lines += ["", "Failed:", ""] + [f"- {failure}" for failure in result["failures"]]
    return "\n".join(lines) + "\n"


def write(result, folder, name):
    os.makedirs(folder, exist_ok=True)
    for suffix, text in (
        ("json", json.dumps(result, indent=1, ensure_ascii=False) + "\n"),
        ("md", markdown(result)),
    ):
        with open(os.path.join(folder, f"{name}.{suffix}"), "w") as file:
            file.write(text)
