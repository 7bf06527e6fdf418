"""Outlines by category: pieces, some of which are parts that have a name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keyseg.data.scenes.world import Points, heart, ring


@dataclass(frozen=True)
class Piece:
    """One polygon of a shape. part: its name, "" for none; tone: brightness against the body."""

    outline: Points
    part: str = ""
    tone: float = 1.0


_TURN = np.linspace(np.pi, 2 * np.pi, 16)
_RIMS = {"disc": ring(28, 1.0), "dome": np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)}


def _outline(kind: str, numbers: str) -> Points:
    points = np.array([pair.split(",") for pair in numbers.split()], dtype=float)
    if kind == "rect":
        (x0, y0), (x1, y1) = points
        points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    elif kind != "poly":
        centre, radii = points
        points = centre + radii * _RIMS[kind]
    return np.asarray(points, dtype=np.float64)


def _pieces(text: str) -> tuple[Piece, ...]:
    """A line a piece: `[part] kind x,y x,y ... [*tone]`.

    Kinds: poly, its corners; rect, two corners; disc and its upper half dome, centre and radii.
    """
    pieces = []
    for line in text.strip().splitlines():
        before, _, tone = line.partition("*")
        words = before.split()
        part = "" if "," in words[1] else words.pop(0)
        outline = _outline(words[0], " ".join(words[1:]))
        pieces.append(Piece(outline, part, float(tone or 1)))
    return tuple(pieces)


_TEXTS: dict[str, str] = {
    "ball": """disc 0,0 .95,.95
        rect -.9,-.12 .9,.12 *.75""",
    "box": """rect -.8,-.5 .8,.85
        lid rect -.95,-.85 .95,-.45 *.65""",
    "kite": "poly 0,-1.1 .65,-.25 0,1.1 -.65,-.25",
    "house": """rect -.75,-.15 .75,.9
        roof poly 0,-1.05 1,-.15 -1,-.15 *.6
        door rect -.22,.25 .22,.9 *.4""",
    "tower": """rect -.45,-.55 .45,1.1
        roof poly -.65,-.45 0,-1.15 .65,-.45 *.6
        door rect -.2,.55 .2,1.1 *.4""",
    "cup": """poly -.85,-.7 .45,-.7 .25,.85 -.6,.85
        handle poly .4,-.5 1.05,-.5 1.05,.3 .3,.3 .32,.05 .75,.05 .75,-.25 .4,-.25 *.8""",
    "tree": """poly 0,-1.1 .6,-.35 .3,-.35 .85,.45 -.85,.45 -.3,-.35 -.6,-.35
        trunk rect -.2,.45 .2,1.05 *.55""",
    "lamp": """poly -.45,-1 .45,-1 .85,-.1 -.85,-.1
        pole rect -.17,-.1 .17,.8 *.55
        base disc 0,.85 .65,.25 *.55""",
    "car": """poly -1.05,.4 -1.05,-.05 -.6,-.1 -.35,-.6 .4,-.6 .65,-.1 1.05,0 1.05,.4
        wheel disc -.55,.45 .3,.3 *.4
        wheel disc .55,.45 .3,.3 *.4""",
    "bus": """rect -1.05,-.75 1.05,.5
        rect -.85,-.5 .85,-.1 *1.5
        wheel disc -.6,.55 .28,.28 *.4
        wheel disc .6,.55 .28,.28 *.4""",
    "boat": """poly -1.05,.25 1.05,.25 .65,.85 -.65,.85
        sail poly -.05,-1.1 .85,.3 -.05,.3 *1.35
        sail poly -.05,-.85 -.75,.3 -.05,.3 *1.35""",
    "fish": """disc -.2,0 .8,.5
        tail poly .45,0 1.1,-.55 1.1,.55 *.7""",
    "bird": """disc .05,.15 .7,.45
        head disc -.6,-.35 .34,.34 *1.2
        tail poly .55,0 1.15,-.35 1.1,.3 *.65""",
    "cat": """disc .15,.45 .6,.58
        tail poly .6,.7 1.1,-.2 .92,-.3 .45,.45 *.7
        head poly -.7,-.4 -.65,-1.1 -.4,-.8 .05,-.8 .3,-1.1 .35,-.4 .1,-.05 -.45,-.05 *1.2""",
    "hat": """rect -.5,-.8 .5,.3
        brim disc 0,.4 1.1,.28 *.65""",
    "shoe": """poly -.95,-.7 -.3,-.7 -.1,-.1 .8,.05 1.05,.5 -.95,.5
        sole rect -1,.45 1.05,.75 *.45""",
    "clock": """disc 0,0 .95,.95
        disc 0,0 .7,.7 *1.5
        rect -.07,-.6 .07,.07 *.3
        rect -.07,-.07 .45,.07 *.3""",
    "apple": """disc 0,.15 .85,.8
        leaf poly 0,-.6 .3,-1.1 .75,-.95 .4,-.6 *.55""",
    "pear": """disc 0,.4 .68,.65
        disc 0,-.3 .38,.6
        leaf poly 0,-.75 .2,-1.15 .6,-1.05 .3,-.7 *.55""",
    "flower": """stem rect -.1,0 .1,1.1 *.55
        disc 0,-.75 .38,.38
        disc .45,-.3 .38,.38
        disc -.45,-.3 .38,.38
        disc .28,.15 .36,.36
        disc -.28,.15 .36,.36
        disc 0,-.25 .28,.28 *.55""",
    "mushroom": """stem rect -.25,0 .25,.95 *1.3
        dome 0,.15 .95,1.05""",
    "umbrella": """dome 0,.1 1.05,1
        handle poly -.08,.1 .08,.1 .08,.95 .4,.95 .4,1.1 -.08,1.1 *.5""",
    "bell": """poly -.25,-.95 .25,-.95 .55,-.3 .65,.5 .95,.7 -.95,.7 -.65,.5 -.55,-.3
        disc 0,.85 .25,.22 *.55""",
    "bottle": """poly -.42,1.05 -.42,-.1 -.16,-.45 -.16,-.85 .16,-.85 .16,-.45 .42,-.1 .42,1.05
        lid rect -.22,-1.15 .22,-.75 *.55""",
    "wine bottle": """
        poly -.42,1.05 -.42,-.1 -.16,-.45 -.16,-1.15 .16,-1.15 .16,-.45 .42,-.1 .42,1.05
        label rect -.42,.15 .42,.75 *1.55""",
    "wine glass": """poly -.6,-1 .6,-1 .5,-.3 .1,.05 -.1,.05 -.5,-.3
        pole rect -.08,0 .08,.8 *.7
        base disc 0,.88 .55,.18 *.7""",
    "hammer": """head rect -.8,-1 .8,-.45 *.55
        handle rect -.16,-.45 .16,1.1""",
    "key": """disc -.55,0 .5,.5
        poly -.2,-.14 1.1,-.14 1.1,.45 .9,.45 .9,.14 .7,.14 .7,.4 .5,.4 .5,.14 -.2,.14
        disc -.6,0 .2,.2 *.4""",
    "table": """rect -1.1,-.45 1.1,-.1
        leg rect -.95,-.1 -.55,.85 *.65
        leg rect .55,-.1 .95,.85 *.65""",
    "chair": """rect -.7,-.05 .7,.25
        back rect -.7,-1.1 -.4,-.05 *.75
        leg rect -.7,.25 -.45,1.05 *.6
        leg rect .45,.25 .7,1.05 *.6""",
    "book": """poly -1.1,-.6 0,-.4 1.1,-.6 1.1,.5 0,.7 -1.1,.5
        poly -.95,-.4 -.1,-.25 -.1,.45 -.95,.3 *1.5
        poly .95,-.4 .1,-.25 .1,.45 .95,.3 *1.5""",
    "flag": """pole rect -.85,-1.1 -.65,1.1 *.5
        poly -.65,-1 1,-.7 .8,-.35 1,.05 -.65,.1""",
    "drum": """rect -.8,-.5 .8,.7
        disc 0,.7 .8,.25
        lid disc 0,-.5 .85,.3 *1.5""",
    "teddy bear": """disc 0,.4 .65,.62
        disc -.6,.75 .28,.28
        disc .6,.75 .28,.28
        disc -.4,-.85 .25,.25 *.7
        disc .4,-.85 .25,.25 *.7
        head disc 0,-.45 .52,.5 *1.2""",
    "tennis ball": """disc 0,0 .95,.95
        poly -.75,-.6 -.5,-.8 -.2,-.3 -.2,.3 -.5,.8 -.75,.6 -.45,.25 -.45,-.25 *1.5
        poly .75,-.6 .5,-.8 .2,-.3 .2,.3 .5,.8 .75,.6 .45,.25 .45,-.25 *1.5""",
    "tennis racket": """disc 0,-.4 .62,.72
        disc 0,-.4 .42,.52 *1.5
        handle rect -.13,.25 .13,1.15 *.6""",
    "ice cream": """cone poly -.5,-.1 .5,-.1 0,1.15 *.6
        disc 0,-.45 .62,.58""",
    "hot dog": """disc 0,.1 1.05,.5 *1.25
        rect -1.15,-.18 1.15,.12 *.6""",
    "hot air balloon": """disc 0,-.35 .8,.8
        poly -.55,.2 .55,.2 .2,.65 -.2,.65
        basket rect -.28,.7 .28,1.1 *.5""",
    "fire truck": """poly -1.1,-.25 .45,-.25 .45,-.6 1.1,-.6 1.1,.5 -1.1,.5
        ladder poly -1.1,-.6 .4,-.9 .4,-.65 -1.1,-.35 *.55
        wheel disc -.6,.55 .28,.28 *.4
        wheel disc .65,.55 .28,.28 *.4""",
    "fire hydrant": """rect -.4,-.5 .4,.85
        dome 0,-.45 .5,.6 *.7
        rect -.75,-.2 .75,.15 *.7
        base rect -.6,.75 .6,1.05 *.55""",
    "traffic cone": """poly -.14,-1 .14,-1 .55,.7 -.55,.7
        poly -.32,-.25 .32,-.25 .42,.2 -.42,.2 *1.6
        base rect -.9,.65 .9,.98 *.6""",
    "traffic light": """rect -.45,-1.15 .45,.7
        disc 0,-.8 .24,.24 *.4
        disc 0,-.22 .24,.24 *1.6
        disc 0,.36 .24,.24 *.4
        pole rect -.15,.7 .15,1.15 *.5""",
    "traffic sign": """poly -.3,-1.1 .3,-1.1 .72,-.7 .72,-.1 .3,.3 -.3,.3 -.72,-.1 -.72,-.7
        rect -.5,-.52 .5,-.28 *1.6
        pole rect -.1,.3 .1,1.15 *.5""",
    "street lamp": """pole rect -.65,-1 -.3,1.05 *.6
        poly -.65,-1.1 .5,-1.1 .5,-.8 -.65,-.8 *.6
        dome .5,-.3 .6,.6
        base rect -.9,.8 -.05,1.12 *.6""",
}

SHAPES: dict[str, tuple[Piece, ...]] = {
    **{name: _pieces(text) for name, text in _TEXTS.items()},
    "star": (Piece(ring(10, [1.1, 0.48])),),
    "heart": (Piece(heart()),),
}
"""Pieces by category, back to front."""
