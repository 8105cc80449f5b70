"""Rounds made into a table: medians, and ratios within each round."""

import statistics

# A figure's key, its heading, and how many digits stand behind its point.
COLUMNS = [
    ("rate", "{rate}", 0), ("ratio", "to {base}", 2), ("cpu", "server CPU s/{unit}", 3),
    ("own_cpu", "loader's", 3), ("p50_ms", "p50 ms", 2), ("p99_ms", "p99 ms", 2),
    ("quiet_p99_ms", "p99 ms quiet", 2), ("peak_mib", "peak MiB", 0),
    ("component_us", "slotd's CPU us/slot", 1), ("total_mib", "MiB in all", 1),
    ("kib_each", "KiB each", 1), ("kept_kib_each", "KiB each when closed", 1),
    ("ready_ms", "ready again ms", 2), ("twice_kib", "KiB sent twice", 0),
    ("seconds", "seconds", 2), ("after_stop_ms", "ready ms", 1),
    ("after_quiet_kill_ms", "after kill -9", 1),
    ("after_writing_kill_ms", "after kill -9 in writing", 1),
]
RATES = {"GiB": "MiB/s", "1000 req": "req/s", "1000 slots": "slots/s", "req": "n"}


def medians(rounds, base):
    """The median of each figure; `ratio` is the median of the ratios within a round.

    `rounds` is a list of {target: {figure: value}}; a target may be missing in a round. `base` is a
    target, or "own": what stands before a target's "+".
    """
    def base_of(name):
        return name.partition("+")[0] if base == "own" else base
    rows = {}
    for name in {name: None for one in rounds for name in one}:
        mine = [one[name] for one in rounds if name in one]
        rows[name] = {key: statistics.median(row[key] for row in mine if key in row)
                      for key in mine[0]}
        ratios = [one[name]["rate"] / one[base_of(name)]["rate"] for one in rounds
                  if name in one and base_of(name) in one]
        if ratios:
            rows[name]["ratio"] = statistics.median(ratios)
            rows[name]["ratio_least"], rows[name]["ratio_most"] = min(ratios), max(ratios)
    return rows


def _cell(row, key, digits):
    if key not in row:
        return "-"
    text = f"{row[key]:.{digits}f}"
    if key == "ratio" and row["ratio_least"] != row["ratio_most"]:
        text += f" ({row['ratio_least']:.2f}-{row['ratio_most']:.2f})"
    return text


def table(rows, unit, base, is_markdown):
    """The lines of a work's table."""
    columns = [column for column in COLUMNS if any(column[0] in row for row in rows.values())]
    lines = [["target", *(heading.format(rate=RATES[unit], base=base, unit=unit)
                          for _, heading, _ in columns)]]
    for name, row in rows.items():
        lines.append([name, *(_cell(row, key, digits) for key, _, digits in columns)])
    return laid_out(lines, is_markdown)


def laid_out(lines, is_markdown):
    """Lines of cells as lines of text; the first is the heading."""
    if is_markdown:
        lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
        return [f"| {' | '.join(line)} |" for line in lines]
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    return ["  ".join([line[0].ljust(widths[0]),
                       *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
            for line in lines]
