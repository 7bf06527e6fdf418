"""Pictures of every form that a file may have: read right, or refused by name."""

import numpy as np
import pytest
from PIL import Image

from keyseg.data.files import DataError
from keyseg.data.pictures import image_size, open_rgb

RAMP = np.linspace(0, 65535, 12 * 16).reshape(12, 16).astype(np.uint16)
EIGHT = np.round(RAMP / 257).astype(np.uint8)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_scaled(tmp_path, form):
    """Pillow cuts them off at 255, which is white nearly everywhere."""
    Image.fromarray(RAMP).save(tmp_path / "x", form)
    seen = np.asarray(open_rgb(tmp_path / "x"))
    np.testing.assert_array_equal(seen, np.stack([EIGHT] * 3, axis=-1))


def test_sixteen_bits_of_a_pgm(tmp_path):
    head = f"P5 {RAMP.shape[1]} {RAMP.shape[0]} 65535\n".encode()
    (tmp_path / "x.pgm").write_bytes(head + RAMP.astype(">u2").tobytes())
    seen = np.asarray(open_rgb(tmp_path / "x.pgm"))
    np.testing.assert_array_equal(seen[..., 0], EIGHT)


def test_sixteen_bits_are_turned_as_others_are(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RAMP).save(tmp_path / "x.png", exif=exif)
    assert image_size(tmp_path / "x.png") == (16, 12)
    seen = np.asarray(open_rgb(tmp_path / "x.png"))
    np.testing.assert_array_equal(seen[..., 0], np.rot90(EIGHT, -1))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_what_has_no_range_is_refused_with_its_mode(tmp_path, kind):
    Image.fromarray((RAMP / 65535).astype(kind)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"x\.tif .*mode [FI]: 32 bits a pixel have no range"):
        open_rgb(tmp_path / "x.tif")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_eight_bits_are_as_they_were(tmp_path, mode):
    picture = Image.fromarray(EIGHT).convert(mode)
    form = "TIFF" if mode == "CMYK" else "PNG"
    picture.save(tmp_path / "x", form)
    np.testing.assert_array_equal(
        np.asarray(open_rgb(tmp_path / "x")), np.asarray(picture.convert("RGB"))
    )


def test_a_picture_that_no_memory_holds_is_named(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    for read in (open_rgb, image_size):
        with pytest.raises(DataError, match=r"bomb\.png .*400000000 pixels"):
            read(tmp_path / "bomb.png")


def test_a_large_one_that_fits_is_read_without_a_word(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    assert image_size(tmp_path / "large.png") == (10_000, 10_000)


@pytest.mark.parametrize("damage", ["cut", "words", "header"])
def test_what_is_no_picture_is_named(tmp_path, damage):
    file = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(file)
    whole = file.read_bytes()
    changed = {"cut": whole[:900], "words": b"no picture", "header": whole[:20] + b"\xff" * 20}
    file.write_bytes(changed[damage])
    with pytest.raises(DataError, match=r"x\.png is not an image that can be read"):
        open_rgb(file)
