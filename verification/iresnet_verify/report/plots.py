"""Three plots as inline SVG: residual per iteration, true error against bound, running mean with its confidence band.

A plot is a few kilobytes of paths. All colours are CSS classes that the page defines for both colour schemes, so that
the same plot reads on dark, light and paper; text is real text. Values that an axis cannot hold are not dropped in
silence: an exact 0 on a logarithmic axis sits on the lower edge, ±inf on the edge it points to, NaN interrupts the
line, and a note under the plot counts all three.

Long curves are thinned to `MOST` points (both ends kept; in an error-bound plot the rows nearest to violation first).
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from iresnet_verify.report.text import number, power

WIDTH, HEIGHT = 440, 268
LEFT, RIGHT, TOP, BOTTOM = 60, 426, 12, 222
MOST = 300
SERIES = 8
"""Distinct strokes: four colours, then the same four dashed. Further series share the last one."""


@dataclass(frozen=True)
class Figure:
    """An SVG element with its legend and notes."""

    title: str
    svg: str
    legend: list[tuple[str, str]] = field(default_factory=list)
    """(class of the swatch, label)."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from [low, high] to pixels.

    Infinities land on the edge, and so does what a logarithm cannot take; finite values may lie outside.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        """The pixel of a value that is not NaN."""
        if self.log:
            value = min(max(value, self.low), self.high)
            fraction = (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        elif math.isinf(value):
            fraction = float(value > 0)
        else:
            fraction = min(max((value - self.low) / (self.high - self.low), -9.0), 9.0)
        return self.start + fraction * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """At most about `most` (value, label): decades on a logarithmic axis, 1-2-5 steps on a linear one."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            step = max(1, math.ceil((last - first) / most))
            return [(10.0**k, power(k) if abs(k) > 2 else f"{10.0**k:g}") for k in range(first, last + 1, step)]
        rough = (self.high - self.low) / most
        size: float = 10.0 ** math.floor(math.log10(rough))
        wide = next(m * size for m in (1, 2, 5, 10) if m * size >= rough * (1 - 1e-9))
        values = [k * wide for k in range(math.ceil(self.low / wide - 1e-9), math.floor(self.high / wide + 1e-9) + 1)]
        decimals = max(0, -math.floor(math.log10(wide * 1.0001)))
        small = decimals <= 6 and abs(self.low) < 1e7 > abs(self.high)
        return [(v, (f"{v:.{decimals}f}".replace("-", "−") if small else number(v, 6)) if v else "0") for v in values]


def _log_scale(values: Iterable[float], start: float, end: float) -> Scale:
    """Whole decades around the positive finite values; one decade more below where there are exact zeros."""
    seen = list(values)
    good = [v for v in seen if v > 0 and math.isfinite(v)] or [1.0]
    low, high = math.floor(math.log10(min(good))), math.ceil(math.log10(max(good)))
    low -= min(good) == 10.0**low or any(v <= 0 for v in seen)
    low, high = max(low, -307), min(max(high, low + 1), 307)
    return Scale(10.0**low, 10.0**high, start, end, log=True)


def _linear_scale(values: Iterable[float], start: float, end: float, margin: float = 0.06) -> Scale:
    good = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(good), max(good)
    spread = (high - low) or abs(high) or 1.0
    return Scale(low - margin * spread, high + margin * spread, start, end, log=False)


def _floats(values: Any) -> list[float]:
    values = values.tolist() if hasattr(values, "tolist") else values
    return [math.nan if v is None else float(v) for v in values]


def _pixels(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _at(x: float, y: float) -> str:
    return f"{_pixels(x)} {_pixels(y)}"


class Canvas:
    """The axes, and what is drawn between them."""

    def __init__(self, ident: str, words: tuple[str, str], scales: tuple[Scale, Scale], labels: tuple[str, str]) -> None:
        (title, desc), (x, y) = words, scales
        self.x, self.y = x, y
        self.root = ET.Element("svg", {
            "class": "plot", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img",
            "aria-labelledby": f"{ident}-title {ident}-desc",
        })
        ET.SubElement(self.root, "title", {"id": f"{ident}-title"}).text = title
        ET.SubElement(self.root, "desc", {"id": f"{ident}-desc"}).text = desc
        for value, label in x.ticks():
            self.line(x(value), TOP, x(value), BOTTOM, "grid")
            self.text(x(value), BOTTOM + 17, label, "middle")
        for value, label in y.ticks():
            self.line(LEFT, y(value), RIGHT, y(value), "grid")
            self.text(LEFT - 8, y(value) + 4, label, "end")
        # Data live in a frame that clips what leaves it, but not half a marker on its edge.
        box = (LEFT - 4, TOP - 4, RIGHT - LEFT + 8, BOTTOM - TOP + 8)
        self.frame = ET.SubElement(self.root, "svg", {
            **{k: str(v) for k, v in zip(("x", "y", "width", "height"), box, strict=True)},
            "viewBox": " ".join(map(str, box)),
        })
        self.line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis")
        self.text((LEFT + RIGHT) / 2, HEIGHT - 8, labels[0], "middle", "label")
        self.text(0, 0, labels[1], "middle", "label", transform=f"translate(12 {(TOP + BOTTOM) / 2}) rotate(-90)")

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """A straight stroke of the axes, in pixels."""
        ET.SubElement(self.root, "path", {"class": style, "d": f"M{_at(x1, y1)}L{_at(x2, y2)}"})

    def path(self, d: str, style: str) -> None:
        """A path of data of the given classes, unless it is empty."""
        if d:
            ET.SubElement(self.frame, "path", {"class": style, "d": d})

    def text(self, x: float, y: float, text: str, anchor: str, style: str = "tick", **more: str) -> None:
        """Real text."""
        at = {"x": _pixels(x), "y": _pixels(y), "text-anchor": anchor, "class": style, **more}
        ET.SubElement(self.root, "text", at).text = text

    def thinned(self, xs: Sequence[float]) -> list[int]:
        """Indices of all points, or of at most `MOST` evenly spread along the drawn axis, both ends among them."""
        if len(xs) <= MOST:
            return list(range(len(xs)))
        step, next_pixel, kept = (RIGHT - LEFT) / (MOST - 2), -math.inf, []
        for i, x in enumerate(xs[:-1]):
            if not math.isnan(x) and self.x(x) >= next_pixel:
                kept.append(i)
                next_pixel = self.x(x) + step
        return [*kept, len(xs) - 1]

    def curve(self, xs: Sequence[float], ys: Sequence[float], style: str) -> None:
        """A polyline, interrupted at NaN; a lone point between two interruptions still shows (round caps)."""
        d, pen = "", "M"
        for i in self.thinned(xs[: len(ys)]):
            if math.isnan(ys[i]) or math.isnan(xs[i]):
                pen = "M"
                continue
            d += pen + _at(self.x(xs[i]), self.y(ys[i])) + ("h0" if pen == "M" else "")
            pen = "L"
        self.path(d, style)

    def dots(self, points: Iterable[tuple[float, float]], style: str) -> None:
        """Points that are numbers, as zero-length strokes with round caps."""
        known = [(a, b) for a, b in points if not (math.isnan(a) or math.isnan(b))]
        self.path("".join(f"M{_at(self.x(a), self.y(b))}h0" for a, b in known), style)

    def band(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], style: str) -> None:
        """The area between two curves where both are numbers."""
        keep = [i for i in self.thinned(xs) if not any(map(math.isnan, (xs[i], low[i], high[i])))]
        there = [_at(self.x(xs[i]), self.y(high[i])) for i in keep]
        back = [_at(self.x(xs[i]), self.y(low[i])) for i in reversed(keep)]
        self.path("M" + "L".join(there + back) + "Z" if keep else "", style)

    def done(self) -> str:
        """The markup; every text and attribute is escaped."""
        return ET.tostring(self.root, encoding="unicode")


def _odd(values: Sequence[float], log: bool = True) -> list[str]:
    """What could not be placed as it is."""
    cases = (
        (sum(v == 0 for v in values) if log else 0, "exactly 0, drawn on the lower edge"),
        (sum(v < 0 for v in values) if log else 0, "negative, drawn on the lower edge"),
        (sum(math.isinf(v) for v in values), "infinite, drawn on the edge"),
        (sum(math.isnan(v) for v in values), "NaN, not drawn"),
    )
    return [f"{n} of {len(values)} values {what}." for n, what in cases if n]


def _residual(name: str, curve: Mapping[str, Any], ident: str) -> Figure:
    many = curve.get("series")
    series = {str(k): _floats(v) for k, v in (many or {curve.get("ylabel", "residual"): curve["y"]}).items()}
    longest = max((len(v) for v in series.values()), default=0)
    xs = _floats(curve["x"] if curve.get("x") is not None else range(longest))
    series = {k: v[: len(xs)] for k, v in series.items()}
    bound = curve.get("bound")
    bounds = [] if bound is None else [float(bound)] * len(xs) if isinstance(bound, int | float) \
        else _floats(bound)[: len(xs)]
    values = [v for ys in series.values() for v in ys]
    if not values:
        raise ValueError("no values")
    shown = [(k, ys) for k, ys in series.items() if ys][:4]
    drops = [f"{k}: {number(ys[0], 3)} to {number(ys[-1], 3)} in {len(ys)} points" for k, ys in shown]
    desc = "Logarithmic. " + "; ".join(drops) + (f"; and {len(series) - 4} more" if len(series) > 4 else "") + "."
    if bounds:
        desc += f" The bound ends at {number(bounds[-1], 3)}."
    labels = str(curve.get("xlabel", "iteration")), str(curve.get("ylabel", "‖r‖"))
    scales = _linear_scale(xs, LEFT, RIGHT, 0.02), _log_scale([*values, *bounds], BOTTOM, TOP)
    c = Canvas(ident, (name, desc), scales, labels)
    c.curve(xs, bounds, "bound")
    for i, ys in enumerate(series.values()):
        c.curve(xs, ys, f"line s{min(i, SERIES - 1)}")
        if len(ys) <= 40:
            c.dots(zip(xs, ys, strict=False), f"dots s{min(i, SERIES - 1)}")
    legend = [(f"line s{i}", k) for i, k in enumerate(list(series)[:SERIES])]
    legend += [("bound", str(curve.get("bound_label", "bound")))] if bounds else []
    more = [f"{len(series) - SERIES} further series share the last stroke."] if len(series) > SERIES else []
    return Figure(name, c.done(), legend, _odd(values) + more)


def _error_bound(name: str, curve: Mapping[str, Any], ident: str) -> Figure:
    pairs = list(zip(_floats(curve["x"]), _floats(curve["y"]), strict=False))
    if not pairs:
        raise ValueError("no rows")
    known = [(b, e) for b, e in pairs if not (math.isnan(b) or math.isnan(e))]
    bad = [(b, e) for b, e in known if not e <= b]
    good = sorted(((b, e) for b, e in known if e <= b), key=lambda p: -p[1] / p[0] if 0 < p[0] < math.inf else 0.0)
    worst = max((e / b for b, e in known if 0 < b < math.inf), default=math.nan)
    desc = f"{len(bad)} of {len(known)} rows lie above the diagonal, that is, their error exceeds their bound."
    desc += "" if math.isnan(worst) else f" The largest ratio of error to bound is {number(worst, 3)}."
    labels = str(curve.get("xlabel", "bound")), str(curve.get("ylabel", "true error"))
    x, y = _log_scale((b for b, _ in pairs), LEFT, RIGHT), _log_scale((v for p in pairs for v in p), BOTTOM, TOP)
    c = Canvas(ident, (name, desc), (x, y), labels)
    steps = sorted({x.low, x.high, *(v for v in (y.low, y.high) if x.low < v < x.high)})  # between them straight on logarithmic axes
    c.band(steps, steps, [math.inf] * len(steps), "forbidden")
    c.curve(steps, steps, "bound")
    c.dots(good[:MOST], "dots good")
    c.dots(bad[:MOST], "dots bad")
    legend = [("dots good", f"{len(good)} within the bound")] + ([("dots bad", f"{len(bad)} beyond it")] if bad else [])
    legend += [("bound", "error = bound")]
    thinned = [f"{len(good) - MOST} rows far within the bound are not drawn."] if len(good) > MOST else []
    return Figure(name, c.done(), legend, _odd([v for p in pairs for v in p]) + thinned)


def _estimator(name: str, curve: Mapping[str, Any], ident: str) -> Figure:
    xs, mean = _floats(curve["x"]), _floats(curve["y"])
    if not xs or not mean:
        raise ValueError("no samples")
    low, high = (_floats(curve[k])[: len(xs)] if curve.get(k) is not None else [] for k in ("low", "high"))
    truth, epsilon = (math.nan if curve.get(k) is None else float(curve[k]) for k in ("truth", "epsilon"))
    positive = [v for v in xs if v > 0]
    log = len(positive) == len(xs) and max(xs) / min(xs) >= 100
    x = _log_scale(xs, LEFT, RIGHT) if log else _linear_scale(xs, LEFT, RIGHT, 0.02)
    x = Scale(min(xs), max(xs), LEFT, RIGHT, log=True) if log else x
    # A confidence sequence starts very wide: the axis shows its last three quarters, and the start leaves the frame.
    late = [*low[len(low) // 4:], *high[len(high) // 4:]]
    zone = [truth - epsilon, truth + epsilon] if not math.isnan(epsilon) else []
    y = _linear_scale([truth, *zone, *mean[len(mean) // 4:], *late], BOTTOM, TOP)
    desc = f"After {number(xs[-1])} samples the mean is {number(mean[-1])}"
    desc += f", with confidence band {number(low[-1])} to {number(high[-1])}" if low and high else ""
    desc += "" if math.isnan(truth) else f"; the truth is {number(truth)}"
    desc += "." if math.isnan(epsilon) else f", and a deviation of {number(epsilon)} is allowed."
    labels = str(curve.get("xlabel", "samples")), str(curve.get("ylabel", "nats"))
    c = Canvas(ident, (name, desc), (x, y), labels)
    ends = [x.low, x.high]
    if zone and all(map(math.isfinite, zone)):
        c.band(ends, [zone[0]] * 2, [zone[1]] * 2, "allowed")
    n = min(len(xs), len(low), len(high))
    c.band(xs[:n], low[:n], high[:n], "band")
    if math.isfinite(truth):
        c.curve(ends, [truth, truth], "bound")
    c.curve(xs, mean[: len(xs)], "line s0")
    legend = [("line s0", "running mean")] + ([("band", "confidence band")] if n else [])
    legend += [("bound", "truth")] if math.isfinite(truth) else []
    legend += [("allowed", "truth ± ε")] if zone else []
    return Figure(name, c.done(), legend, _odd([*mean, *low, *high], log=False))


_KINDS = {"residual": _residual, "error-bound": _error_bound, "estimator": _estimator}


def draw(name: str, curve: Mapping[str, Any], ident: str) -> Figure:
    """The plot of one curve; `ident` makes its element ids unique on the page.

    A curve that cannot be drawn gives a figure without SVG and a note saying why: a report is never lost to a plot.
    """
    kind = curve.get("kind")
    try:
        if kind not in _KINDS:
            raise ValueError(f"kind {kind!r}, expected one of {', '.join(_KINDS)}")
        return _KINDS[kind](name, curve, ident)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as problem:
        return Figure(name, "", notes=[f"This plot could not be drawn: {type(problem).__name__}: {problem}"])
