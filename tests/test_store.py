"""The decoded store: right pixels, decoded once, whole or not at all, and every unreadable image named."""

import struct
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps

from reidlib.data import DataError
from reidlib.data import store as store_module
from reidlib.data.store import decode, gather, read_image


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for i in range(6):
        file = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(file)
        made.append(str(file))
    return made


def test_pixels_are_kept_when_the_size_is(paths, tmp_path):
    store = decode(pd.DataFrame({"path": paths}), (32, 16), tmp_path / "new" / "store.npy", workers=2)
    assert store.shape == (6, 3, 32, 16) and store.dtype == np.uint8 and isinstance(store, np.memmap)
    for row, path in zip(store, paths):
        assert np.array_equal(row.transpose(1, 2, 0), np.asarray(Image.open(path)))


def test_number_of_workers_does_not_matter(paths, tmp_path):
    one, three = (decode(paths, (20, 10), tmp_path / f"{n}.npy", workers=n) for n in (1, 3))
    assert np.array_equal(one, three)


def test_large_jpegs_and_grey_images(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 640).astype(np.uint8), (1280, 1))
    Image.fromarray(ramp).convert("RGB").save(tmp_path / "large.jpg", quality=95)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    reduced, full = read_image(tmp_path / "large.jpg", (128, 64)), read_image(tmp_path / "grey.png", (128, 64))
    assert reduced.shape == full.shape == (128, 64, 3)
    assert np.abs(reduced.astype(int) - full).max() <= 3


def plain(path, size):
    """What a picture with nothing special about it has always been decoded to."""
    with Image.open(path) as image:
        image.draft(None, (2 * size[1], 2 * size[0]))
        return np.asarray(image.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (64, 128), (300, 701), (1100, 2300)])
def test_plain_jpegs_keep_every_bit(tmp_path, mode, size):
    noise = np.random.default_rng(0).integers(0, 256, (12, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    picture.convert(mode).save(tmp_path / "plain.jpg", dpi=(72, 72))
    assert read_image(tmp_path / "plain.jpg", size[::-1]).mean() == pytest.approx(np.mean(picture), abs=2)
    for wanted in ((128, 64), (64, 64), size[::-1]):
        assert np.array_equal(read_image(tmp_path / "plain.jpg", wanted), plain(tmp_path / "plain.jpg", wanted))


def deep_grey(name):
    """A ramp of 256 values in a part of the range, as a picture of more than 8 bits."""
    ramp = np.arange(256).reshape(16, 16)
    thermal = (290 + ramp / 10).astype(np.float32)  # Kelvin
    thermal[0, 0], thermal[15, 15], thermal[0, 1] = np.nan, np.inf, -np.inf
    return Image.fromarray({
        "I;16.png": (7000 + ramp).astype(np.uint16), "I;16.tif": (ramp * 257).astype(np.uint16),
        "I;16B.tif": (ramp * 16).astype(">u2"), "I.tif": (ramp - 2**31).astype(np.int32), "F.tif": thermal,
    }[name])  # fmt: skip


@pytest.mark.parametrize("name", ["I;16.png", "I;16.tif", "I;16B.tif", "I.tif", "F.tif"])
def test_grey_of_more_than_8_bits_is_stretched_from_its_lowest_to_its_highest_value(tmp_path, name):
    deep_grey(name).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert image.mode == name.partition(".")[0]
    ramp = np.repeat(np.arange(256).reshape(16, 16, 1), 3, 2)
    assert np.abs(read_image(tmp_path / name, (16, 16)).astype(int) - ramp).max() <= (2 if name == "F.tif" else 0)


def test_grey_of_one_value_or_none_is_black(tmp_path):
    Image.fromarray(np.full((1, 1), 40000, np.uint16)).save(tmp_path / "one.png")
    Image.fromarray(np.full((3, 3), np.nan, np.float32)).save(tmp_path / "none.tif")
    assert not read_image(tmp_path / "one.png", (4, 2)).any() and not read_image(tmp_path / "none.tif", (4, 2)).any()


@pytest.mark.parametrize("orientation", range(10))
def test_photographs_are_set_upright_before_they_are_reduced(tmp_path, orientation):
    ramp = np.arange(3 * 64).reshape(8, 8, 3).astype(np.uint8)
    picture = Image.fromarray(ramp).resize((1000, 400), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("held.png", "held.tif", "held.webp"):
        picture.save(tmp_path / name, exif=exif, **({"lossless": True} if name == "held.webp" else {}))
        upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / name)))
        assert np.array_equal(read_image(tmp_path / name, upright.shape[:2]), upright)
    picture.save(tmp_path / "held.jpg", exif=exif, quality=95)
    reduced = read_image(tmp_path / "held.jpg", (128, 64)).astype(int)
    assert np.abs(reduced - read_image(tmp_path / "held.png", (128, 64))).max() <= 6
    # a picture on its side, 400 wide when it is upright, must not be reduced to less than twice 180
    sharp = Image.fromarray(np.indices((400, 1000)).sum(0).astype(np.uint8) % 2 * 255)
    sharp.save(tmp_path / "sharp.jpg", exif=exif, quality=95)
    assert read_image(tmp_path / "sharp.jpg", (180, 450)).std() < 5


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0no header", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"]
)
def test_broken_exif_is_passed_over(paths, tmp_path, exif):
    Image.open(paths[0]).save(tmp_path / "held.jpg", exif=exif)
    assert np.array_equal(read_image(tmp_path / "held.jpg", (32, 16)), plain(tmp_path / "held.jpg", (32, 16)))


def transparent(name):
    """A picture that is opaque and white on the left, and on the right red, hidden by its transparency."""
    picture = Image.new("RGBA", (8, 8), "white")
    picture.paste((255, 0, 0, 0), (4, 0, 8, 8))
    if name == "LA.png":
        return picture.convert("LA"), {}
    if name in ("P.png", "P.gif"):
        return picture.convert("RGB").quantize(2), {"transparency": picture.convert("RGB").quantize(2).getpixel((7, 7))}
    return (picture.convert("RGB"), {"transparency": (255, 0, 0)}) if name == "RGB.png" else (picture, {"lossless": True})


@pytest.mark.parametrize("name", ["RGBA.png", "RGBA.webp", "LA.png", "P.png", "P.gif", "RGB.png"])
def test_what_is_transparent_is_black_whatever_colour_it_hides(tmp_path, name):
    picture, options = transparent(name)
    picture.save(tmp_path / name, **options)
    pixels = read_image(tmp_path / name, (8, 8))
    assert (pixels[:, :4] == 255).all() and not pixels[:, 4:].any()


@pytest.mark.parametrize("name", ["moving.gif", "moving.png", "moving.webp", "pages.tif"])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("blue", "red")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    assert (read_image(tmp_path / name, (4, 4)) == (0, 0, 255)).all()


def test_a_very_long_picture(tmp_path):
    Image.new("RGB", (50_000, 1), "red").save(tmp_path / "long.png")
    assert (read_image(tmp_path / "long.png", (8, 4)) == (255, 0, 0)).all()


def test_reopened_not_decoded_again(paths, tmp_path, monkeypatch):
    first = np.array(decode(paths, (8, 4), tmp_path / "store.npy"))
    monkeypatch.setattr(store_module, "read_image", lambda *_: pytest.fail("decoded again"))
    assert np.array_equal(decode(paths, (8, 4), tmp_path / "store.npy"), first)
    with pytest.raises(DataError, match=r"holds uint8 \(6, 3, 8, 4\), not uint8 \(5, 3, 8, 4\)"):
        decode(paths[:5], (8, 4), tmp_path / "store.npy")
    (tmp_path / "store.npy").write_bytes(b"")
    with pytest.raises(DataError, match="no readable store"):
        decode(paths, (8, 4), tmp_path / "store.npy")


def bomb(side):
    """A PNG that claims to be side x side pixels, in a few bytes."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_unreadable_images_are_all_named_and_nothing_is_left(paths, tmp_path):
    Image.effect_noise((64, 128), 50).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:1500])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "bomb.png").write_bytes(bomb(50_000))
    (tmp_path / "program.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n")
    bad = {"cut.jpg": "truncated", "text.jpg": "cannot identify", "empty.jpg": "cannot identify", "bomb.png": "Bomb",
           "program.jpg": "PostScript", "absent.jpg": "No such file"}  # fmt: skip
    with pytest.raises(DataError, match="6 of 12 images can't be read"):
        decode([*paths, *(tmp_path / name for name in bad)], (8, 4), tmp_path / "stores" / "store.npy")
    for name, message in bad.items():
        file = tmp_path / name
        with pytest.raises(DataError, match=f"1 of 7 images .*{message}") as error:
            decode([*paths, str(file)], (8, 4), tmp_path / "stores" / "store.npy")
        assert str(file) in str(error.value)
        assert not list((tmp_path / "stores").iterdir())


@pytest.mark.parametrize("error", [KeyError("x"), struct.error("x"), EOFError("x"), MemoryError(), ZeroDivisionError("x")])
def test_a_picture_is_named_whatever_its_decoder_raises(paths, tmp_path, monkeypatch, error):
    monkeypatch.setattr(store_module, "_rgb", lambda _: (_ for _ in ()).throw(error))
    with pytest.raises(DataError, match=f"6 of 6 images can't be read.*0.png .{type(error).__name__}"):
        decode(paths, (8, 4), tmp_path / "store.npy")


def test_a_file_that_vanishes_during_the_run_is_named(paths, tmp_path, monkeypatch):
    def vanish(path, size):
        (tmp_path / "5.png").unlink(missing_ok=True)
        return read_image(path, size)

    monkeypatch.setattr(store_module, "read_image", vanish)
    with pytest.raises(DataError, match="1 of 6 images can't be read.*5.png .FileNotFoundError"):
        decode(paths, (8, 4), tmp_path / "store.npy", workers=1)


def test_a_disk_that_fills_during_the_run(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module.os, "pwrite", lambda *_: 10)
    with pytest.raises(DataError, match="store.npy could not be written whole"):
        decode(paths, (8, 4), tmp_path / "store.npy")
    assert not (tmp_path / "store.npy").exists()


def test_an_interrupted_run_leaves_nothing(paths, tmp_path, monkeypatch):
    def interrupt(path, size):
        if path == paths[3]:
            raise KeyboardInterrupt
        return read_image(path, size)

    monkeypatch.setattr(store_module, "read_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode(paths, (8, 4), tmp_path / "stores" / "store.npy", workers=1)
    assert not list((tmp_path / "stores").iterdir())


def test_a_full_disk_is_refused_before_work(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match="needs .* GB"):
        decode(paths, (8, 4), tmp_path / "store.npy")


def test_gather_copies_the_rows_asked_for(paths, tmp_path):
    store = decode(paths, (8, 4), tmp_path / "store.npy")
    batch = gather(store, [4, 0, 4])
    assert batch.dtype == torch.uint8 and batch.shape == (3, 3, 8, 4)
    assert np.array_equal(batch.numpy(), store[[4, 0, 4]])
    batch.zero_()
    assert store[4].any()
