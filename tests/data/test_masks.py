import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco

from keyseg.data.files import DataError
from keyseg.data.masks import (
    CocoMask,
    ReasonMask,
    check_run_lengths,
    decode_rle,
    draw_polygon,
    encode_rle,
    polygon_area,
    raster_area,
)
from keyseg.data.pictures import image_size

HEIGHT, WIDTH = 24, 30
# Drawn by OpenCV 5.0 (polylines, then fillPoly; points cast to int32) on 24 x 30 pixels; the last
# number is how many pixels may differ.
OPENCV = {
    "corners not whole": (
        [[2.7, 3.9], [25.2, 8.6], [11.5, 20.99]],
        "c11g02N2O1N2N2N2O1N2N1OO1O2N100O1O1O2N1O1O101N1O1Oi2",
        0,
    ),
    "sliver": (
        [[1, 1], [28, 7], [1, 2]],
        "i02f000010O000001O0001O0001O0001O01O000001O01O00000010O000a0",
        1,
    ),
    "outside": (
        [[-6, 10], [15, -4], [36, 12], [15, 29]],
        "6:=2O1N2N2O0O2N2O1NZ80gG1O0O2N2N2O0O2N2NJ",
        10,
    ),
    "concave": (
        [[2, 2], [27, 3], [26, 20], [15, 9], [4, 21]],
        "b15c0:F5KO1O1O1O1O1N2O1O1O1O2N11O1O1O1O1O1O1O1O1O1O1OGf1",
        0,
    ),
    "crosses itself": (
        [[3, 3], [26, 20], [26, 3], [3, 20]],
        "[2b07N101N2N2N101N2N2N101N10O2O0O2N2N2O0O2N2N2O0O2T2",
        0,
    ),
    "two points": ([[4, 5], [9, 7]], "U31g0010O010O0i>", 0),
    "one point": ([[12.9, 3.2]], "S91\\=", 0),
}


def rectangle(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def shape(label, points):
    return {"label": label, "labels": [label], "shape_type": "polygon", "points": points}


@pytest.mark.parametrize("name", OPENCV)
def test_polygons_are_drawn_as_opencv_draws_them(name):
    points, counts, tolerance = OPENCV[name]
    canvas = Image.new("L", (WIDTH, HEIGHT))
    draw_polygon(canvas, points, 1)
    expected = decode_rle(counts, HEIGHT, WIDTH)
    assert (np.asarray(canvas) != expected).sum() <= tolerance
    assert raster_area(points, HEIGHT, WIDTH) == np.asarray(canvas).sum()


def test_raster_area_outside_of_the_image():
    assert raster_area(rectangle(40, 2, 50, 8), HEIGHT, WIDTH) == 0
    assert raster_area(rectangle(-9, -9, 1, 2), HEIGHT, WIDTH) == 2 * 3


def test_polygon_area():
    assert polygon_area(rectangle(1, 2, 5, 4)) == 8
    assert polygon_area([[0, 0], [4, 0], [0, 3]]) == 6
    assert polygon_area([[0, 0], [4, 4]]) == 0


# ---------------------------------------------------------------- ReasonSeg


def test_smaller_shapes_overwrite_larger_ones_in_any_order():
    """Target inside ignore inside target; outline and fill reach both ends of a rectangle."""
    shapes = [
        shape("target", rectangle(5, 5, 7, 6)),
        shape("Ignore", rectangle(3, 3, 12, 9)),
        shape("target", rectangle(1, 1, 20, 15)),
        shape("flag", rectangle(0, 0, 29, 23)),
    ]
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[1:16, 1:21] = 1
    expected[3:10, 3:13] = 255
    expected[5:7, 5:8] = 1
    for order in (shapes, shapes[::-1], [shapes[i] for i in (2, 0, 3, 1)]):
        mask = ReasonMask(order, HEIGHT, WIDTH)()
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, expected)


def test_of_two_equal_shapes_the_first_is_on_top():
    """What argsort()[::-1] gives LISA."""
    box = rectangle(2, 2, 6, 6)
    assert ReasonMask([shape("ignore", box), shape("target", box)], 9, 9)().max() == 255
    assert ReasonMask([shape("target", box), shape("ignore", box)], 9, 9)().max() == 1


def test_area_counts_pixels_inside_the_image_only():
    """A large ignore shape mostly outside of the image is the smaller one, and lies on top."""
    shapes = [
        shape("ignore", rectangle(25, 0, 400, 5)),
        shape("target", rectangle(0, 0, 29, 10)),
    ]
    mask = ReasonMask(shapes, HEIGHT, WIDTH)()
    assert (mask[:6, 25:] == 255).all()
    assert (mask[:11, :25] == 1).all()


def test_no_shapes_is_an_empty_mask():
    mask = ReasonMask([], 4, 6)
    np.testing.assert_array_equal(mask(), np.zeros((4, 6), np.uint8))
    assert mask.target_share() == 0


def test_target_share_leaves_out_ignore_and_flag():
    shapes = [
        shape("target", rectangle(0, 0, 10, 6)),
        shape("ignore", rectangle(0, 0, 20, 20)),
        shape("flag", [[3, 3], [4, 9]]),
    ]
    assert ReasonMask(shapes, HEIGHT, WIDTH).target_share() == pytest.approx(60 / 720)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"points": [[1, 2]]}, "without label"),
        ("target", "without label"),
        ({"label": "target"}, "without points"),
        ({"label": "target", "points": []}, "without points"),
        ({"label": "target", "points": [[1, 2], [3]]}, "without points"),
        ({"label": "target", "points": [[1, "2"]]}, "without points"),
        ({"label": "target", "points": [[1, math.nan]]}, "'target' with nan for a coordinate"),
        ({"label": "target", "points": [[1, 1e300]]}, "for a coordinate"),
        (
            {"label": "target", "points": [[1, 1], [2, 2]], "shape_type": "mask"},
            "'target' is a mask: only polygons, rectangles and circles are drawn",
        ),
        (
            {"label": "target", "points": [[1, 1]], "shape_type": "circle"},
            "a circle has 2 points, not 1",
        ),
    ],
)
def test_broken_shapes(broken, why):
    with pytest.raises(ValueError, match=why):
        ReasonMask([broken], 4, 6)


def test_rectangles_and_circles_of_labelme_are_drawn_as_such():
    corners = {"label": "target", "points": [[20, 4], [5, 12]], "shape_type": "rectangle"}
    drawn = ReasonMask([corners], HEIGHT, WIDTH)
    wanted = ReasonMask([shape("target", rectangle(5, 4, 20, 12))], HEIGHT, WIDTH)
    np.testing.assert_array_equal(drawn(), wanted())
    assert drawn.target_share() == wanted.target_share()
    circle = {"label": "target", "points": [[12, 12], [20, 12]], "shape_type": "circle"}
    mask = ReasonMask([circle], HEIGHT, WIDTH)
    assert mask().sum() == pytest.approx(math.pi * 8**2, rel=0.15)
    assert mask.target_share() == pytest.approx(math.pi * 8**2 / (HEIGHT * WIDTH), rel=0.01)


def test_real_reason_seg_sample(samples):
    """Areas that OpenCV draws for this file: target 32124, ignore 265326 pixels."""
    content = json.loads((samples / "reason_seg/914980029_4a7c8f579e_o.json").read_text())
    mask = ReasonMask(content["shapes"], 2228, 3336)
    drawn = mask()
    assert np.count_nonzero(drawn == 1) == 32124
    assert np.count_nonzero(drawn == 255) == 265326 - 32124
    assert set(np.unique(drawn)) == {0, 1, 255}
    assert mask.target_share() == pytest.approx(32124 / (2228 * 3336), rel=0.02)


# ---------------------------------------------------------------- COCO


def test_several_polygons_are_united_and_never_summed():
    parts = [[1, 1, 6, 1, 6, 5, 1, 5], [4, 3, 9, 3, 9, 8, 4, 8]]
    mask = CocoMask(parts, 10, 12)()
    expected = np.zeros((10, 12), np.uint8)
    expected[1:5, 1:6] = 1
    expected[3:8, 4:9] = 1
    np.testing.assert_array_equal(mask, expected)


def test_run_lengths_compressed_or_not():
    truth = np.zeros((5, 4), np.uint8)
    truth[1:4, 1] = 1
    truth[0:2, 3] = 1
    plain = {"counts": [6, 3, 6, 2, 3], "size": [5, 4]}  # column by column, background first
    packed = coco.encode(np.asfortranarray(truth))
    for counts in (packed["counts"], packed["counts"].decode()):
        runs = {"counts": counts, "size": [5, 4]}
        np.testing.assert_array_equal(CocoMask(runs, 5, 4)(), truth)
    np.testing.assert_array_equal(CocoMask(plain, 5, 4)(), truth)
    other = {"counts": [0, 1, 19], "size": [5, 4]}
    truth[0, 0] = 1
    np.testing.assert_array_equal(CocoMask([plain, other], 5, 4)(), truth)


@pytest.mark.parametrize("empty", [[], [[1, 1, 6, 6]], [[2, 2]]])
def test_parts_that_enclose_nothing(empty):
    """Two points are not a box, though pycocotools takes four numbers for one."""
    np.testing.assert_array_equal(CocoMask(empty, 8, 8)(), np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        (None, "NoneType"),
        ("abc", "str"),
        ([[1, 2, 3]], "no x, y list"),
        ([[1, 2, 3, 4, 5, "6"]], "no x, y list"),
        ([7], "no x, y list"),
        ({"counts": [6, 3], "size": [5, 4]}, "do not add up"),
        ({"counts": [-3, 23], "size": [5, 4]}, "do not add up"),
        ({"counts": [20], "size": [4, 5]}, "is not the image's"),
        ({"counts": [20]}, "RLE size None"),
        ({"size": [5, 4]}, "no list of whole numbers: None"),
        ({"counts": [20.0], "size": [5, 4]}, "no list of whole numbers"),
        ({"counts": [], "size": [5, 4]}, "do not add up"),
        ({"counts": "]]]]]]", "size": [5, 4]}, "damaged run lengths"),
        ({"counts": "0e0", "size": [5, 4]}, "run lengths do not add up to 5 x 4"),
        ({"counts": "5", "size": [5, 4]}, "run lengths do not add up to 5 x 4"),
        ([[1, 1, 4, 1, 4, 4, math.nan, 4]], "with nan for a coordinate"),
        ([[math.nan, 1, 4, 1, 4, 4, 1, 4]], "with nan for a coordinate"),
        ([[1, 1, 4, 1, 4, 4, -math.inf, 4]], "with -inf for a coordinate"),
        ([[1, 1, 1e12, 1, 4, 4, 1, 4]], "with 1000000000000.0 for a coordinate"),
        ([[1, 1, 10**400, 1, 4, 4, 1, 4]], "for a coordinate"),
    ],
)
def test_broken_segmentations_are_refused_before_they_are_drawn(segmentation, why):
    with pytest.raises(ValueError, match=why):
        CocoMask(segmentation, 5, 4)


@pytest.mark.parametrize("size", [(10**6, 10**6), (0, 5), (-3, 5), (4.0, 5), ("4", 5), (True, 5)])
def test_a_mask_of_no_size_or_of_one_that_no_memory_holds(size):
    for make in (CocoMask, ReasonMask):
        with pytest.raises(ValueError, match=r"megapixels|no height and width"):
            make([], *size)
    with pytest.raises(ValueError, match=r"megapixels|no height and width"):
        decode_rle("", *size)


@given(st.binary(max_size=12), st.integers(1, 6), st.integers(1, 6))
def test_no_run_lengths_leave_pixels_as_the_memory_was(counts, height, width):
    """What passes the check is what pycocotools makes of that mask, byte by byte."""
    try:
        check_run_lengths(counts, height, width)
    except ValueError:
        return
    mask = decode_rle(counts.decode("latin-1"), height, width)
    assert set(np.unique(mask)) <= {0, 1}
    area = coco.area({"counts": counts, "size": [height, width]})
    assert mask.sum() == area


def test_real_coco_sample(samples):
    """The drawn area of every annotation is the stated one, up to the outline."""
    content = json.loads((samples / "refer_seg/instances_sample.json").read_text())
    sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
    assert max(len(a["segmentation"]) for a in content["annotations"]) == 4
    for annotation in content["annotations"]:
        mask = CocoMask(annotation["segmentation"], *sizes[annotation["image_id"]])()
        assert mask.shape == sizes[annotation["image_id"]]
        assert mask.max() == 1
        assert mask.sum() == pytest.approx(annotation["area"], rel=0.05)


# ---------------------------------------------------------------- run lengths, sizes


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)))
def test_run_lengths_there_and_back(mask):
    counts = encode_rle(mask)
    assert isinstance(counts, str)
    decoded = decode_rle(counts, *mask.shape)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, mask)


@given(st.integers(1, 255))
def test_any_value_counts(value):
    mask = np.array([[0, value]], np.uint8)
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), 1, 2), [[0, 1]])


def test_empty_string_is_the_empty_mask():
    np.testing.assert_array_equal(decode_rle("", 2, 3), np.zeros((2, 3), np.uint8))


def test_run_lengths_of_another_size():
    with pytest.raises(ValueError, match="do not add up to 3 x 3"):
        decode_rle(encode_rle(np.ones((4, 4), bool)), 3, 3)


def test_image_size_is_the_size_as_seen(tmp_path):
    picture = Image.new("RGB", (30, 20))
    picture.save(tmp_path / "upright.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert image_size(tmp_path / "upright.jpg") == (20, 30)
    assert image_size(tmp_path / "turned.jpg") == (30, 20)
    (tmp_path / "page.jpg").write_text("<html>")
    with pytest.raises(DataError, match=r"page\.jpg is not an image"):
        image_size(tmp_path / "page.jpg")


def test_digest_tells_annotations_apart():
    one, same = (CocoMask([[1, 1, 6, 1, 6, 5]], 8, 8) for _ in range(2))
    assert one.digest() == same.digest()
    assert one.digest() != CocoMask([[1, 1, 6, 1, 6, 6]], 8, 8).digest()
    box = shape("target", rectangle(1, 1, 3, 3))
    assert ReasonMask([box], 8, 8).digest() != ReasonMask([], 8, 8).digest()
