"""Small pictures of every kind that pictures come in, and what Pillow makes of them, as JSON:

    python3 testdata/decode/kinds.py > testdata/decode/kinds.json     (recorded with Pillow 9.4.0)

    { "pillow": version, "pictures": { NAME: { "file": base64, "width", "height", "sha256" of the RGB bytes } } }

"sha256" is null where Pillow does not read a kind. Most files are put together here byte by byte, since no program writes them all.
"""
import base64
import hashlib
import io
import json
import struct
import sys
import warnings
import zlib

import PIL
from PIL import Image

warnings.simplefilter("ignore")
W, H = 13, 9
files = {}


def value(x, y, c, most):
    """A channel of a pixel, 0 to most: some below 256, also where 65535 are possible; alpha is 0 somewhere."""
    if c == 3 and (x + y) % 5 == 0:
        return 0
    mixed = (x * 37 + y * 59 + c * 83 + x * y * 7) % 257
    return mixed * 255 % (most + 1) if most > 255 and (x + y) % 3 else min(mixed, 255) * min(most, 255) // 255


def samples(channels, most, width=W, height=H):
    return [[[value(x, y, c, most) for c in channels] for x in range(width)] for y in range(height)]


def packed(row, bits, order=">", kind="u"):
    flat = [v for pixel in row for v in pixel]
    if kind == "f":
        return struct.pack(f"{order}{len(flat)}f", *flat)
    if bits >= 16:
        code = {16: "hH", 32: "iI"}[bits][kind == "u"]
        return struct.pack(f"{order}{len(flat)}{code}", *flat)
    text = "".join(format(v & (1 << bits) - 1, f"0{bits}b") for v in flat)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i:i + 8], 2) for i in range(0, len(text), 8))


# --- PNG ---

def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(rows, bits, color, interlaced=False, extra=b""):
    def filtered(some):
        lines, before = b"", None
        step = max(1, len(some[0][0]) * bits // 8) if some and some[0] else 1
        for i, row in enumerate(some):
            line = packed(row, bits)
            above = before or bytes(len(line))
            left = bytes(step) + line
            corner = bytes(step) + above
            kind = i % 5
            out = bytearray([kind])
            for j, v in enumerate(line):
                a, b, c = left[j], above[j], corner[j]
                p = a + b - c
                near = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
                out.append((v - (0, a, b, (a + b) // 2, near)[kind]) % 256)
            lines += out
            before = line
        return lines
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    passes = [[row[x::dx] for row in rows[y::dy]] for x, y, dx, dy in steps] if interlaced else [rows]
    data = b"".join(filtered(p) for p in passes if p and p[0])
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, color, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def palette(count):
    return bytes((i * 71 + 13) % 256 for i in range(3 * count))


for interlaced in (False, True):
    end = "_interlaced.png" if interlaced else ".png"
    for bits in (1, 2, 4, 8, 16):
        grey = samples([0], 2 ** bits - 1)
        files[f"png_grey{bits}{end}"] = png(grey, bits, 0, interlaced)
        transparent = chunk(b"tRNS", struct.pack(">H", grey[2][3][0]))
        files[f"png_grey{bits}_transparent{end}"] = png(grey, bits, 0, interlaced, transparent)
        if bits < 16:
            colors = chunk(b"PLTE", palette(2 ** bits))
            files[f"png_palette{bits}{end}"] = png(grey, bits, 3, interlaced, colors)
            alphas = chunk(b"tRNS", bytes(i * 50 % 256 for i in range(2 ** bits)))
            files[f"png_palette{bits}_transparent{end}"] = png(grey, bits, 3, interlaced, colors + alphas)
    for bits in (8, 16):
        most = 2 ** bits - 1
        files[f"png_grey_alpha{bits}{end}"] = png(samples([0, 3], most), bits, 4, interlaced)
        files[f"png_rgb{bits}{end}"] = png(samples([0, 1, 2], most), bits, 2, interlaced)
        files[f"png_rgba{bits}{end}"] = png(samples([0, 1, 2, 3], most), bits, 6, interlaced)
rgb = samples([0, 1, 2], 255)
transparent = chunk(b"tRNS", struct.pack(">HHH", *rgb[3][4]))
files["png_rgb8_transparent.png"] = png(rgb, 8, 2, False, transparent)
files["png_gamma.png"] = png(rgb, 8, 2, False, chunk(b"gAMA", struct.pack(">I", 100000)))
turn = Image.Exif()
turn[274] = 6
files["png_turned.png"] = png(rgb, 8, 2, False, chunk(b"eXIf", turn.tobytes().replace(b"Exif\0\0", b"", 1)))
files["png_1x1_interlaced.png"] = png(samples([0], 15, 1, 1), 4, 0, True)


# --- What Pillow writes ---

def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


photo = Image.frombytes("RGB", (W, H), bytes(v for row in rgb for pixel in row for v in pixel))
smooth = photo.resize((29, 23), Image.BICUBIC)
rgba = Image.frombytes("RGBA", (W, H), bytes(v for row in samples([0, 1, 2, 3], 255) for pixel in row for v in pixel))
for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
    for progressive in (False, True):
        end = "_progressive.jpg" if progressive else ".jpg"
        files[f"jpeg_{name}{end}"] = saved(smooth, "JPEG", subsampling=subsampling, progressive=progressive, quality=85)
files["jpeg_grey.jpg"] = saved(smooth.convert("L"), "JPEG")
files["jpeg_cmyk.jpg"] = saved(smooth.convert("CMYK"), "JPEG")
ycck = bytearray(files["jpeg_cmyk.jpg"])
ycck[ycck.index(b"Adobe") + 11] = 2
files["jpeg_ycck.jpg"] = bytes(ycck)
files["jpeg_turned.jpg"] = saved(smooth, "JPEG", exif=turn.tobytes())
files["jpeg_1x1.jpg"] = saved(photo.resize((1, 1)), "JPEG")
files["webp.webp"] = saved(smooth, "WEBP")
files["webp_alpha.webp"] = saved(rgba, "WEBP")
files["webp_lossless_alpha.webp"] = saved(rgba, "WEBP", lossless=True, exact=True)
files["webp_animated.webp"] = saved(photo, "WEBP", save_all=True, append_images=[photo.transpose(0)], lossless=True)
files["webp_turned.webp"] = saved(photo, "WEBP", exif=turn.tobytes())


def webp_offset(frame, x, y, width, height, flags):
    """An animation whose first frame does not reach everywhere."""
    def part(name, data):
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    def three(number):
        return struct.pack("<I", number)[:3]
    image = saved(frame, "WEBP", lossless=True, exact=True)[12:]
    if image[:4] == b"VP8X":
        image = image[18:]
    place = three(x // 2) + three(y // 2) + three(frame.width - 1) + three(frame.height - 1) + three(100)
    body = part(b"VP8X", bytes([0x12, 0, 0, 0]) + three(width - 1) + three(height - 1))
    body += part(b"ANIM", bytes([10, 200, 30, 255, 0, 0])) + part(b"ANMF", place + bytes([flags]) + image) * 2
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


files["webp_first_frame_smaller.webp"] = webp_offset(photo, 4, 2, 20, 16, 0)
files["webp_first_frame_smaller_alpha.webp"] = webp_offset(rgba, 4, 2, 20, 16, 2)


# --- GIF ---

def lzw(indices, bits):
    """Codes that never grow: every second one clears the table."""
    text, clear = "", 1 << bits
    for i, index in enumerate(indices):
        if i % 2 == 0:
            text = format(clear, f"0{bits + 1}b") + text
        text = format(index, f"0{bits + 1}b") + text
    text = format(clear + 1, f"0{bits + 1}b") + text
    text = "0" * (-len(text) % 8) + text
    data = bytes(int(text[i:i + 8], 2) for i in range(0, len(text), 8))[::-1]
    return bytes([bits]) + b"".join(bytes([len(data[i:i + 255])]) + data[i:i + 255] for i in range(0, len(data), 255)) + b"\0"


def gif(screen, left, top, colors=None, own=None, transparent=None, interlaced=False, background=0, junk=b""):
    rows = [[value(x, y, 0, 15) for x in range(W)] for y in range(H)]
    if interlaced:
        rows = rows[0::8] + rows[4::8] + rows[2::4] + rows[1::2]

    def flags(table):
        return 0x80 | (len(table) // 3).bit_length() - 2 if table else 0
    file = b"GIF89a" + struct.pack("<HHBBB", *screen, flags(colors), background, 0) + (colors or b"") + junk
    if transparent is not None:
        file += b"!\xf9\x04\x01\0\0" + bytes([transparent, 0])
    file += b"," + struct.pack("<HHHHB", left, top, W, H, flags(own) | 0x40 * interlaced) + (own or b"")
    return file + lzw([v for row in rows for v in row], 4) + b";"


some, others = palette(16), palette(32)[:48]
others = bytes(255 - v for v in others)
greys = bytes(i // 3 for i in range(48))
files["gif.gif"] = gif((W, H), 0, 0, some)
files["gif_interlaced.gif"] = gif((W, H), 0, 0, some, interlaced=True)
files["gif_transparent.gif"] = gif((W, H), 0, 0, some, transparent=7)
files["gif_first_frame_smaller.gif"] = gif((20, 15), 3, 2, some, background=5)
files["gif_first_frame_smaller_transparent.gif"] = gif((20, 15), 3, 2, some, transparent=7, background=5)
files["gif_own_palette.gif"] = gif((20, 15), 3, 2, some, own=others)
files["gif_own_palette_transparent.gif"] = gif((20, 15), 3, 2, some, own=others, transparent=9)
files["gif_beyond_screen.gif"] = gif((5, 4), 3, 2, some)
files["gif_no_palette.gif"] = gif((20, 15), 3, 2)
files["gif_grey_palette.gif"] = gif((20, 15), 3, 2, greys)
files["gif_own_grey_palette.gif"] = gif((20, 15), 3, 2, some, own=greys)
files["gif_junk.gif"] = gif((W, H), 0, 0, some, junk=b"\0\x05!\xfe\x03abc\0")
files["gif_pillow.gif"] = saved(smooth.resize((60, 40)).quantize(64), "GIF")
files["gif_animated.gif"] = saved(photo.quantize(16), "GIF", save_all=True, append_images=[photo.quantize(8)])
files["gif_rgba.gif"] = saved(rgba, "GIF")


# --- TIFF ---

def tiff(rows, bits, photometric, order="<", kind="u", extra=None, orientation=None, tags={}, planes=False, inverted=False,
         deflated=False, tiled=False):
    channels = len(rows[0][0])
    if tiled:  # one of 16 x 16
        row_tags = {322: [16], 323: [16]}
        empty = [0] * channels
        padded = [row + [empty] * (16 - len(row)) for row in rows] + [[empty] * 16] * (16 - len(rows))
        strip = zlib.compress(b"".join(packed(row, bits, order, kind) for row in padded))
        return assembled(rows, bits, photometric, order, kind, [strip], {259: [8], **row_tags})
    parts = [[[[pixel[c]] for pixel in row] for row in rows] for c in range(channels)] if planes else [rows]
    strips = [b"".join(packed(row, bits, order, kind) for row in part[y:y + 4]) for part in parts for y in range(0, len(rows), 4)]
    if inverted:
        strips = [bytes(int(format(v, "08b")[::-1], 2) for v in strip) for strip in strips]
    if deflated:
        strips = [zlib.compress(strip) for strip in strips]
    more = {259: [8 if deflated else 1], 266: [2 if inverted else 1], 278: [4], 284: [2 if planes else 1], **tags}
    if extra is not None:
        more[338] = [extra]
    if orientation is not None:
        more[274] = [orientation]
    return assembled(rows, bits, photometric, order, kind, strips, more)


def assembled(rows, bits, photometric, order, kind, strips, tags):
    channels = len(rows[0][0])
    file = bytearray(b"II*\0\0\0\0\0" if order == "<" else b"MM\0*\0\0\0\0")
    offsets = []
    for strip in strips:
        offsets.append(len(file))
        file += strip + b"\0" * (len(strip) % 2)
    places, sizes = (324, 325) if 322 in tags else (273, 279)
    entries = {
        256: [len(rows[0])], 257: [len(rows)], 258: [bits] * channels, 262: [photometric], 277: [channels],
        places: offsets, sizes: [len(s) for s in strips], 339: [{"u": 1, "i": 2, "f": 3}[kind]] * channels, **tags,
    }
    directory = struct.pack(order + "H", len(entries))
    behind = len(file) + 2 + 12 * len(entries) + 4
    data = b""
    for tag in sorted(entries):
        values = entries[tag]
        size, code = (4, "I") if tag in (256, 257, 273, 278, 279, 324, 325) else (2, "H")
        written = struct.pack(f"{order}{len(values)}{code}", *values)
        directory += struct.pack(order + "HHI", tag, 4 if size == 4 else 3, len(values))
        if len(written) <= 4:
            directory += written.ljust(4, b"\0")
        else:
            directory += struct.pack(order + "I", behind + len(data))
            data += written
    struct.pack_into(order + "I", file, 4, len(file))
    return bytes(file) + directory + b"\0\0\0\0" + data


for name, order in (("little", "<"), ("big", ">")):
    for bits in (1, 2, 4, 8, 16):
        grey = samples([0], 2 ** bits - 1)
        files[f"tiff_grey{bits}_{name}.tif"] = tiff(grey, bits, 1, order)
        if bits < 16 or order == "<":
            files[f"tiff_white_is_zero{bits}_{name}.tif"] = tiff(grey, bits, 0, order)
        if bits < 16:
            colors = [v * 257 for v in palette(2 ** bits)]
            files[f"tiff_palette{bits}_{name}.tif"] = tiff(grey, bits, 3, order, tags={320: colors})
    files[f"tiff_dark_palette_{name}.tif"] = tiff(samples([0], 255), 8, 3, order, tags={320: list(palette(256))})
    signed = [[[v - 100 for v in pixel] for pixel in row] for row in samples([0], 400)]
    files[f"tiff_signed16_{name}.tif"] = tiff(signed, 16, 1, order, "i")
    files[f"tiff_signed32_{name}.tif"] = tiff(signed, 32, 1, order, "i")
    files[f"tiff_float_{name}.tif"] = tiff([[[v / 1.7 for v in pixel] for pixel in row] for row in signed], 32, 1, order, "f")
    files[f"tiff_grey_alpha_{name}.tif"] = tiff(samples([0, 3], 255), 8, 1, order, extra=2)
    for bits in (8, 16):
        most = 2 ** bits - 1
        four = samples([0, 1, 2, 3], most)
        files[f"tiff_rgb{bits}_{name}.tif"] = tiff(samples([0, 1, 2], most), bits, 2, order)
        files[f"tiff_four_channels{bits}_{name}.tif"] = tiff(four, bits, 2, order)
        for extra, what in ((0, "unspecified"), (1, "premultiplied"), (2, "alpha")):
            files[f"tiff_{what}{bits}_{name}.tif"] = tiff(four, bits, 2, order, extra=extra)
        if bits == 8 or order == "<":
            files[f"tiff_cmyk{bits}_{name}.tif"] = tiff(four, bits, 5, order)
    five = samples([0, 1, 2, 3, 4], 255)
    files[f"tiff_cmyk_extra_{name}.tif"] = tiff(five, 8, 5, order, extra=0)
for orientation in range(10):
    files[f"tiff_orientation{orientation}.tif"] = tiff(rgb, 8, 2, orientation=orientation)
files["tiff_orientation6_grey16.tif"] = tiff(samples([0], 65535), 16, 1, orientation=6)
files["tiff_orientation8_cmyk.tif"] = tiff(samples([0, 1, 2, 3], 255), 8, 5, orientation=8)
files["tiff_orientation5_bilevel.tif"] = tiff(samples([0], 1), 1, 0, orientation=5)
files["tiff_tile.tif"] = tiff(rgb, 8, 2, tiled=True)
files["tiff_planes.tif"] = tiff(rgb, 8, 2, planes=True)
files["tiff_planes_cmyk.tif"] = tiff(samples([0, 1, 2, 3], 255), 8, 5, planes=True)
files["tiff_inverted_bits.tif"] = tiff(samples([0], 1), 1, 0, inverted=True)
files["tiff_deflate16.tif"] = tiff(samples([0], 65535), 16, 1, deflated=True)
files["tiff_deflate_cmyk16.tif"] = tiff(samples([0, 1, 2, 3], 65535), 16, 5, deflated=True)
pillow = {"rgb": smooth, "rgba": rgba, "grey": smooth.convert("L"), "cmyk": smooth.convert("CMYK"), "palette": photo.quantize(16)}
for name, image in pillow.items():
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        files[f"tiff_{name}_{compression}.tif"] = saved(image, "TIFF", compression=compression)
for name in ("rgb", "grey"):
    files[f"tiff_{name}_jpeg.tif"] = saved(pillow[name], "TIFF", compression="jpeg")
for compression in ("group3", "group4", "tiff_ccitt"):
    files[f"tiff_{compression}.tif"] = saved(smooth.convert("1"), "TIFF", compression=compression)
files["tiff_pages.tif"] = saved(photo, "TIFF", save_all=True, append_images=[photo.transpose(0)])


def reading(file):
    try:
        image = Image.open(io.BytesIO(file)).convert("RGB")
    except Exception:
        return {"width": 0, "height": 0, "sha256": None}
    return {"width": image.width, "height": image.height, "sha256": hashlib.sha256(image.tobytes()).hexdigest()}


pictures = {name: {"file": base64.b64encode(file).decode(), **reading(file)} for name, file in sorted(files.items())}
json.dump({"pillow": PIL.__version__, "pictures": pictures}, sys.stdout, indent=0)
