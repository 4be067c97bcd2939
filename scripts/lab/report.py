"""Medians, ratios and bars: as a table for people and as JSON for programs."""
import json
import os
import platform
import statistics


def ratios(rounds, what, one, other):
    """One ratio a round, so that what slows the machine for a while slows both."""
    pairs = [(r.get(one, {}).get(what), r.get(other, {}).get(what)) for r in rounds]
    return [x["value"] / y["value"] for x, y in pairs if x and y]


def median(values):
    return statistics.median(values) if values else None


def summary(rounds, switches, part):
    """Per switch and measure: median, spread, and the ratio to the floor."""
    out = {}
    for switch in switches:
        for what in part.measures:
            results = [r[switch][what] for r in rounds if r.get(switch, {}).get(what)]
            values = [result["value"] for result in results]
            if not values:
                continue
            to_floor = ratios(rounds, what, switch, part.floor)
            out.setdefault(switch, {})[what] = {
                "median": median(values), "least": min(values), "most": max(values), "runs": len(values),
                "ratio_to_floor": median(to_floor),
                "ratio_spread": [min(to_floor), max(to_floor)] if to_floor else None,
                **({"p99": median([result["p99"] for result in results])} if "p99" in results[0] else {}),
            }
    return out


def best(rounds, what, names, more):
    """A round's best of several, as if it were one switch."""
    out = []
    for one in rounds:
        found = [one[name][what] for name in names if one.get(name, {}).get(what)]
        choose = max if more else min
        out.append({what: choose(found, key=lambda figures: figures["value"])} if found else {})
    return out


def bars(rounds, part):
    """Each bar that this run can judge: (text, reached)."""
    out = []
    for what, others, bound in part.bars:
        title, _, more = part.measures[what]
        peers = best(rounds, what, others, more)
        paired = [{"wharf": one.get("wharf", {}), "peer": peer} for one, peer in zip(rounds, peers)]
        ratio = median(ratios(paired, what, "wharf", "peer"))
        if ratio is None:
            continue
        sign = "≥" if more else "≤"
        reached = ratio >= bound if more else ratio <= bound
        out.append((f"{title}: {ratio:.2f} × {others[0]}, bar {sign} {bound:g}", reached))
    return out + part.checks(rounds)


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
        return "–"
    value = entry["median"]
    text = f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    ratio = entry["ratio_to_floor"]
    return text if ratio is None else f"{text} ({ratio:.2f})"


def table(result, part):
    """The Markdown table: a line a measure, a column a switch."""
    switches = list(result["switches"])
    rows = [[""] + switches, ["---"] + ["---:"] * len(switches)]
    for what, unit in result["units"].items():
        entries = [result["summary"].get(switch, {}).get(what) for switch in switches]
        rows.append([f"{part.measures[what][0]}, {unit}"] + [figure(entry) for entry in entries])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def markdown(result, part):
    on, how = result["machine"], result["method"]
    lines = [
        f"# {part.title}",
        "",
        f"Written by `scripts/compare-peers {part.name}`; do not edit. Medians, and in brackets the median of the",
        f"ratios to `{part.floor}`. {part.about}",
        "",
        table(result, part),
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


def write(result, folder, part):
    os.makedirs(folder, exist_ok=True)
    for suffix, text in (
        ("json", json.dumps(result, indent=1, ensure_ascii=False) + "\n"),
        ("md", markdown(result, part)),
    ):
        with open(os.path.join(folder, f"{part.name}.{suffix}"), "w") as file:
            file.write(text)
