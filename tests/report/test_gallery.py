"""Which examples are shown, and what is drawn of them."""

from __future__ import annotations

import base64
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools import mask as coco

from keyseg.data.example import Example, Target
from keyseg.report.figures.style import PALETTE
from keyseg.report.gallery import overlay, sheet
from keyseg.report.gallery.examples import failures, pick, ranked, top_words


def test_extremes_are_extremes() -> None:
    ids = [f"e{i:02d}" for i in range(40)]
    a = pd.Series(np.linspace(0, 1, 40), ids)
    iou = pd.DataFrame({"a": a, "b": a})
    iou.loc["e20", "b"] = 0.0
    chosen = pick(iou, None, seed=0)
    assert chosen["best"] == ids[:-7:-1]
    assert chosen["worst"][:2] == ["e00", "e01"]
    assert chosen["disputed"] == ["e20"]
    assert len(set(chosen["random"])) == 6
    assert chosen == pick(iou.sample(frac=1, random_state=1), None, seed=0)


def test_every_style_is_shown() -> None:
    ids = [f"e{i:02d}" for i in range(40)]
    iou = pd.DataFrame({"a": np.linspace(0, 1, 40)}, ids)
    style = pd.Series(["reasoning"] * 20 + ["short"] * 20, ids)
    best = pick(iou, style, seed=0)["best"]
    assert [style[i] for i in best].count("reasoning") == 3
    assert len(best) == 6


def test_ties_are_not_broken_by_name() -> None:
    iou = pd.DataFrame({"a": np.zeros(30)}, [f"e{i:02d}" for i in range(30)])
    worst = pick(iou, None, seed=0)["worst"]
    assert worst != sorted(iou.index)[:6]
    assert worst == pick(iou, None, seed=0)["worst"]


def test_a_mask_is_drawn_where_it_is() -> None:
    image = np.full((60, 80, 3), 120, np.uint8)
    mask = np.zeros((30, 40), bool)
    mask[10:20, 10:20] = True
    out = overlay.draw(image, mask, "#D55E00")
    assert out.shape == image.shape
    inside, outside = out[30, 30].astype(int), out[5, 70].astype(int)
    assert inside[0] - inside[2] > 60
    assert np.ptp(outside) <= 1


def test_an_edge_lies_outside_of_a_mask_and_an_outline_inside() -> None:
    """Two pixels wide, on every side."""
    image = np.zeros((30, 30, 3), np.uint8)
    mask = np.zeros((30, 30), bool)
    mask[10:20, 10:20] = True
    edged = (overlay.draw(image, mask, "#ff0000") == (255, 0, 0)).all(2)
    assert np.flatnonzero(edged[15]).tolist() == [8, 9, 20, 21]
    assert np.flatnonzero(edged[:, 15]).tolist() == [8, 9, 20, 21]
    outlined = (overlay.draw(image, None, "#ff0000", (mask, "#00ff00")) == (0, 255, 0)).all(2)
    assert np.flatnonzero(outlined[15]).tolist() == [10, 11, 18, 19]
    assert np.flatnonzero(outlined[:, 15]).tolist() == [10, 11, 18, 19]


def test_of_several_masks_each_edge_is_seen_and_each_has_its_number() -> None:
    """One inside another; two that coincide have their numbers beside each other."""
    image = np.zeros((90, 90, 3), np.uint8)
    large, small = np.zeros((2, 90, 90), bool)
    large[10:80, 10:80] = True
    small[30:60, 10:80] = True
    colours = ["#0072B2", "#E69F00", "#0072B2"]

    def shows(drawn: np.ndarray, colour: str) -> np.ndarray:
        return (drawn == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(2)

    one = overlay.draw_each(image, [large], colours[:1])
    assert np.array_equal(one, overlay.draw(image, large, colours[0]))
    for masks in ([large, small], [small, large]):  # whichever is drawn last
        drawn = overlay.draw_each(image, masks, colours[:2])
        assert shows(drawn, colours[masks[0] is small])[8:10, 12:78].all()
        assert shows(drawn, colours[masks[1] is small])[28:30, 12:78].all()
    twice = overlay.draw_each(image, [large, large], ["#0072B2", "#D55E00"])
    patches = [shows(twice, c)[12:78, 12:78] for c in ("#0072B2", "#D55E00")]
    left, right = (np.flatnonzero(p.any(0)) for p in patches)
    assert left.max() < right.min()
    assert (twice[12:78, 12:78] > 250).all(2).any(), "white letters"


def test_a_sheet_has_room_for_every_tile_and_its_lines(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    example = Example(
        id="a",
        image=tmp_path / "a.png",
        image_id="a",
        query="the thing " * 40,
        is_sentence=True,
        keyword="thing",
        text=None,
        slices={},
        load_mask=lambda: np.ones((30, 40), np.uint8),
    )
    drawn = sheet.contact_sheet([example] * 6, 6, seed=0)
    picture = sheet.TILE * 30 // 40
    height = picture + sheet.LINES * sheet.LINE + 12
    assert drawn.size == (4 * (sheet.TILE + 12) + 12, 2 * height + 12)
    below = np.asarray(drawn.convert("L"))[12 + picture : 12 + height, 12 : 12 + sheet.TILE]
    rows = np.flatnonzero(below.min(1) < 200)  # text: in all five lines, and not beyond
    assert rows.min() < sheet.LINE
    assert (sheet.LINES - 1) * sheet.LINE < rows.max() < sheet.LINES * sheet.LINE


def test_each_of_several_targets_has_its_colour_and_its_name(tmp_path: Path) -> None:
    """An edge in the picture, and a patch of the same colour before its name; too many: counted."""
    Image.new("RGB", (300, 200)).save(tmp_path / "a.png")

    def square(n: int) -> np.ndarray:
        mask = np.zeros((200, 300), np.uint8)
        mask[60 * (n // 6) : 60 * (n // 6) + 40, 50 * (n % 6) : 50 * (n % 6) + 40] = 1
        return mask

    def sheet_of(count: int) -> np.ndarray:
        targets = tuple(
            Target(f"the long name of number {n}", None, partial(square, n)) for n in range(count)
        )
        example = Example(
            id="a",
            image=tmp_path / "a.png",
            image_id="a",
            query="all",
            is_sentence=False,
            keyword=None,
            text=None,
            slices={},
            load_mask=lambda: np.maximum.reduce([square(n) for n in range(count)]),
            targets=targets,
        )
        return np.asarray(sheet.contact_sheet([example], 1, seed=0))

    def colours(part: np.ndarray) -> set[str]:
        known = {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)): c for c in PALETTE[:9]}
        return {known[p] for p in set(map(tuple, part.reshape(-1, 3).tolist())) if p in known}

    two, nine = sheet_of(2), sheet_of(9)
    for drawn, count in ((two, 2), (nine, 9)):
        assert colours(drawn[12 : 12 + 200]) == set(PALETTE[:count])
    first = two[12 : 12 + 40, 12 : 12 + 40]
    assert colours(first) == {PALETTE[0]}
    assert colours(two[12 + 200 :]) == set(PALETTE[:2])
    below = colours(nine[12 + 200 :])  # four lines with a name each; the others are counted
    assert below == set(PALETTE[:4])
    assert len(nine) - len(two) == 2 * sheet.LINE


@pytest.mark.parametrize(
    ("size", "shown", "masked"),
    [((128, 96), (128, 96), (256, 192)), ((1600, 800), (320, 160), (320, 160))],
)
def test_pictures_have_the_size_of_the_page(
    tmp_path: Path, size: tuple[int, int], shown: tuple[int, int], masked: tuple[int, int]
) -> None:
    """A small image is stored as it is, and its masks larger, so that their edges are thin."""
    Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "x.png")
    image, there = overlay.load(tmp_path / "x.png", size[1], size[0])
    assert there
    assert image.shape == (shown[1], shown[0], 3)
    assert overlay.layer(image, np.ones(size[::-1], bool)).shape == masked[::-1]
    grey, there = overlay.load(tmp_path / "absent.png", size[1], size[0])
    assert not there
    assert grey.shape == image.shape


def test_a_layer_over_its_image_is_what_is_drawn_as_one() -> None:
    """As a browser lays it: the paled image, then each pixel by how much its colour covers."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (300, 240, 3)).astype(np.uint8)
    mask, target = np.zeros((2, 300, 240), bool)
    mask[60:200, 40:180] = True
    target[80:220, 60:200] = True
    uri = overlay.layer_uri(overlay.layer(image, mask, target), "#D55E00", "#F0E442")
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    assert len(content) < 3000
    over = np.asarray(Image.open(BytesIO(base64.b64decode(content))).convert("RGBA"), float)
    cover = over[..., 3:] / 255
    laid = cover * over[..., :3] + (1 - cover) * overlay.draw(image, None, "#D55E00")
    whole = overlay.draw(image, mask, "#D55E00", (target, "#F0E442"))
    off = np.abs(laid - whole)
    assert (off < 2).all(), "where the outline lies on the tint, too"


def test_masks_are_decoded() -> None:
    mask = np.zeros((5, 7), np.uint8)
    mask[1:3, 2:6] = 1
    counts = coco.encode(np.asfortranarray(mask))["counts"].decode()
    found = overlay.decode(counts, 5, 7)
    assert found is not None
    np.testing.assert_array_equal(found, mask.astype(bool))
    assert overlay.decode("", 5, 7) is None
    assert overlay.decode(None, 5, 7) is None


def test_top_words() -> None:
    words = top_words('[["ring", 0.7], ["disc", 0.2], ["box", 0.05], ["bar", 0.01]]', "disc")
    assert [(w.word, w.right) for w in words] == [("ring", False), ("disc", True), ("box", False)]
    assert top_words(None, "disc") == ()
    assert top_words("[[1]]", "disc") == ()


def test_ranked_takes_turns_between_styles_and_leaves_out_zero() -> None:
    values = pd.Series([0.9, 0.8, 0.7, 0.1, 0.0, -0.5, float("nan")], list("abcdefg"))
    style = pd.Series(["x", "x", "x", "y", "y", "y", "y"], list("abcdefg"))
    assert ranked(values, style, 0, 2) == ["a", "d"]
    assert ranked(values, None, 0, 9) == ["a", "b", "c", "d"]


def test_failures_by_kind() -> None:
    def rle(*boxes: tuple[int, int]) -> str:
        mask = np.zeros((20, 20), np.uint8)
        for x, y in boxes:
            mask[y : y + 4, x : x + 4] = 1
        return str(coco.encode(np.asfortranarray(mask))["counts"].decode())

    table = pd.DataFrame(
        {
            "iou": [0.2, 0.9, 0.0, 0.4, 0.9],
            "keyword": ["ring"] * 5,
            "keyword_rank": [0, 3, 1, 1, 0],
            "mask_rle": [rle((0, 0)), rle((1, 1)), rle(), rle((0, 0), (10, 10)), rle((2, 2))],
            "target_rle": [rle((8, 8))] * 5,
            "height": [20] * 5,
            "width": [20] * 5,
        },
        index=list("abcde"),
    )
    found = {kind: list(share.dropna().index) for kind, share in failures({"v": table}).items()}
    assert found == {"key_right": ["a"], "key_wrong": ["b"], "empty": ["c"], "several": ["d"]}


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_an_image_is_shown_as_the_readers_see_it(tmp_path: Path, orientation: int) -> None:
    """A camera that was held on its side: pixels lie as they came, and EXIF says how to turn."""
    seen = np.full((300, 200, 3), 20, np.uint8)
    target = np.zeros((300, 200), bool)
    target[30:90, 20:80] = True  # upper left of what a viewer shows
    seen[target] = 230
    turn = Image.Transpose
    turns = {1: None, 3: turn.ROTATE_180, 6: turn.ROTATE_90, 8: turn.ROTATE_270}[orientation]
    lying = Image.fromarray(seen)
    lying = lying if turns is None else lying.transpose(turns)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "photo.png"
    lying.save(file, exif=exif)
    shown, there = overlay.load(file, 300, 200)
    assert there
    assert shown.shape == (300, 200, 3)
    tinted = overlay.draw(shown, target, "#0000ff")
    blue = (tinted[..., 2] > tinted[..., 0] + 60) & (shown[..., 0] > 200)
    assert blue.sum() == target.sum()  # the mask lies on the bright square, and on all of it
