"""Figures as a text table.

In: nested dictionaries of `Measured.as_dict()`. Out: lines of text.
"""


def table(figures: dict, *, title: str = "") -> str:
    """One line per figure: name, value, 95 % interval, n, chance."""
    rows = [("figure", "value", "95 % interval", "n", "chance")]
    for path, entry in _leaves(figures):
        interval = "-" if entry["low"] is None else f"{entry['low']:.3f} .. {entry['high']:.3f}"
        value = "-" if entry["value"] is None else f"{entry['value']:.3f}"
        chance = entry.get("chance")
        rows.append(
            (
                path,
                value,
                interval,
                f"{entry['count']:g}",
                "" if chance is None else f"{chance:.2f}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*([title] if title else []), lines[0], rule, *lines[1:]])


def _leaves(figures: dict, path: str = ""):
    for name, entry in figures.items():
        here = f"{path} {name}".strip()
        if isinstance(entry, dict) and {"value", "low", "high", "count"} <= set(entry):
            yield here, entry
        elif isinstance(entry, dict):
            yield from _leaves(entry, here)
