"""Masks for any annotation: what must hold whatever the polygons are."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco

from keyseg.data.masks import CocoMask, ReasonMask, draw_polygon, raster_area

HEIGHT, WIDTH = 17, 23
corner = st.tuples(st.integers(-5, WIDTH + 5), st.integers(-5, HEIGHT + 5)).map(list)
polygon = st.lists(corner, min_size=1, max_size=7)
ring = st.lists(corner, min_size=3, max_size=7).map(lambda p: [float(v) for xy in p for v in xy])
shape = st.fixed_dictionaries(
    {"label": st.sampled_from(["target", "ignore", "flag"]), "points": polygon}
)


pixels = hnp.arrays(np.uint8, (HEIGHT, WIDTH), elements=st.integers(0, 1))
patient = settings(deadline=None)  # the machine's load is no fault of a mask


@patient
@given(st.lists(ring, min_size=1, max_size=4))
def test_parts_are_united(parts):
    whole = CocoMask(parts, HEIGHT, WIDTH)()
    single = [CocoMask([part], HEIGHT, WIDTH)() for part in parts]
    np.testing.assert_array_equal(whole, np.maximum.reduce(single))
    np.testing.assert_array_equal(whole, CocoMask(parts[::-1], HEIGHT, WIDTH)())
    assert set(np.unique(whole)) <= {0, 1}


@patient
@given(pixels)
def test_crowds_compressed_or_not(mask):
    flat, size = mask.ravel(order="F"), [HEIGHT, WIDTH]
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    counts = [0, *runs] if flat[0] else runs  # they begin with background
    np.testing.assert_array_equal(CocoMask({"size": size, "counts": counts}, *size)(), mask)
    packed = coco.encode(np.asfortranarray(mask))["counts"].decode()
    np.testing.assert_array_equal(CocoMask({"size": size, "counts": packed}, *size)(), mask)


@patient
@given(polygon)
def test_area_is_what_is_drawn(points):
    canvas = Image.new("L", (WIDTH, HEIGHT))
    draw_polygon(canvas, points, 1)
    assert raster_area(points, HEIGHT, WIDTH) == np.count_nonzero(np.asarray(canvas))


@patient
@given(st.lists(shape, max_size=5), st.randoms(use_true_random=False))
def test_a_pixel_belongs_to_the_smallest_shape_on_it(shapes, random):
    """A slow painter by another road: of the shapes on a pixel, the one of least area counts."""
    drawn = [s for s in shapes if s["label"] != "flag"]
    layers = []
    for s in drawn:
        canvas = Image.new("L", (WIDTH, HEIGHT))
        draw_polygon(canvas, s["points"], 1)
        layers.append(np.asarray(canvas, bool))
    areas = [int(layer.sum()) for layer in layers]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    for y, x in np.argwhere(np.any(layers, axis=0)) if layers else ():
        on_it = [i for i, layer in enumerate(layers) if layer[y, x]]
        least = min(on_it, key=lambda i: (areas[i], i))
        expected[y, x] = 255 if drawn[least]["label"] == "ignore" else 1
    mask = ReasonMask(shapes, HEIGHT, WIDTH)()
    np.testing.assert_array_equal(mask, expected)
    if len(set(areas)) == len(areas):
        random.shuffle(shapes)
        np.testing.assert_array_equal(ReasonMask(shapes, HEIGHT, WIDTH)(), expected)
