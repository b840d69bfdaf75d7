"""Draws small multiples as SVG: one row a figure, one column an axis. The reader's colours are taken, light or dark."""

import html
import math

WIDTH, HEIGHT = 240, 150
LEFT, TOP, RIGHT, BOTTOM = 52, 40, 14, 42

STYLE = """\
  svg { color: #1f2328; background: #ffffff; --line: #0550ae; --grid: #d1d9e0; }
  @media (prefers-color-scheme: dark) { svg { color: #e6edf3; background: #0d1117; --line: #79c0ff; --grid: #30363d; } }
  text { font: 11px system-ui, sans-serif; fill: currentColor; }
  .title { font-weight: 600; }
  .grid { stroke: var(--grid); }
  .line { stroke: var(--line); fill: none; stroke-width: 2; }
  .dot { fill: var(--line); }
"""


def drawn(rows):
    """`rows` are lists of panels, each (title, label of x, label of y, points)."""
    across, down = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM
    width, height = across * max(map(len, rows)), down * len(rows)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">']
    parts.append(f"<style>\n{STYLE}</style>")
    for row, panels in enumerate(rows):
        for column, one in enumerate(panels):
            parts.append(f'<g transform="translate({column * across + LEFT} {row * down + TOP})">{panel(*one)}</g>')
    return "\n".join([*parts, "</svg>\n"])


def panel(title, x_label, y_label, points):
    parts = [text(-LEFT + 8, -22, title, "title"), text(-LEFT + 8, -8, y_label), text(WIDTH / 2, HEIGHT + 34, x_label, at="middle")]
    if not points:
        return "".join([*parts, text(WIDTH / 2, HEIGHT / 2, "not measured", at="middle")])
    across, down = Scale.of_x([x for x, _ in points]), Scale.of_y([y for _, y in points])
    for mark in down.marks():
        y = HEIGHT * (1 - down.place(mark))
        parts.append(f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(-6, y + 4, short(mark), at="end"))
    for x, _ in points:
        parts.append(text(WIDTH * across.place(x), HEIGHT + 16, short(x), at="middle"))
    places = [(WIDTH * across.place(x), HEIGHT * (1 - down.place(y))) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.append(f'<polyline class="line" points="{path}"/>')
    for (x, y), (value, figure) in zip(places, points):
        told = f"<title>{short(value)}: {figure:.4g}</title>"
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3">{told}</circle>')
    return "".join(parts)


class Scale:
    """By powers of ten, or from zero on."""

    def __init__(self, low, high, is_log):
        self.low, self.high, self.is_log = low, high, is_log

    @classmethod
    def of_x(cls, values):
        # Zero stands one step to the left of the smallest.
        positive = [value for value in values if value > 0]
        low = min(positive) / (10 if min(values) == 0 else 1)
        return cls(low, max(*positive, low * 10), True)

    @classmethod
    def of_y(cls, values):
        low, high = min(values), max(values)
        if low > 0 and high / low > 50:
            return cls(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)), True)
        return cls(0, nice(high * 1.05 or 1), False)

    def place(self, value):
        """From 0 to 1."""
        if not self.is_log:
            return value / self.high
        value = max(value, self.low)
        return math.log(value / self.low) / math.log(self.high / self.low)

    def marks(self):
        if not self.is_log:
            return [self.high * part / 4 for part in range(5)]
        powers = round(math.log10(self.high / self.low))
        step = max(1, math.ceil(powers / 5))
        return [self.low * 10**power for power in range(0, powers + 1, step)]


def nice(value):
    """The next number of the kind 1, 2, 4, 5 or 8 with noughts."""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value)


def text(x, y, said, kind="", at="start"):
    name = f' class="{kind}"' if kind else ""
    return f'<text{name} x="{x:.1f}" y="{y:.1f}" text-anchor="{at}">{html.escape(said)}</text>'


def short(value):
    for size, letter in [(10**9, "G"), (10**6, "M"), (10**3, "k")]:
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
