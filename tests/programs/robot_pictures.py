"""What the robots of the tests see: twelve patches of one colour each, in whatever encoding a camera may have.

The tests know the colours, and look at the middle of each patch. Distances are the numbers of patches in metres, 0 to 11.
"""
import numpy as np

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (230, 230, 230), (20, 20, 20), (128, 128, 128),
           (200, 200, 40), (40, 200, 200), (200, 40, 200), (250, 130, 30), (30, 130, 250), (90, 60, 30)]
COLUMNS, ROWS = 4, 3


def patches(width, height):
    """The number of the patch that each pixel belongs to."""
    column = np.arange(width) * COLUMNS // width
    row = np.arange(height) * ROWS // height
    return row[:, None] * COLUMNS + column[None, :]


def colours(width, height):
    return np.array(COLOURS, np.uint8)[patches(width, height)]


def yuv(rgb):
    """BT.601 with room at both ends, one blueness and redness for every two pixels."""
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    planes = 16 + y * 219 / 255, 128 + (b - y) * 112 / 0.886 / 255, 128 + (r - y) * 112 / 0.701 / 255
    y, u, v = (np.round(plane).astype(np.uint8) for plane in planes)
    return y, u[:, ::2], v[:, ::2]


def packed(encoding, width, height):
    """The pixels as an array of rows, of bytes or of numbers that have a byte order."""
    rgb = colours(width, height)
    grey = rgb[..., 1]
    alpha = np.full((height, width, 1), 7, np.uint8)
    if encoding.startswith("bayer_"):
        tiles = {"r": 0, "g": 1, "b": 2}
        first, second, third, fourth = (tiles[letter] for letter in encoding[6:10])
        mosaic = np.empty((height, width), np.uint8)
        mosaic[::2, ::2], mosaic[::2, 1::2] = rgb[::2, ::2, first], rgb[::2, 1::2, second]
        mosaic[1::2, ::2], mosaic[1::2, 1::2] = rgb[1::2, ::2, third], rgb[1::2, 1::2, fourth]
        return mosaic.astype(np.uint16) * 256 + 99 if encoding.endswith("16") else mosaic
    if encoding.startswith("yuv422"):
        y, u, v = yuv(rgb)
        first, second = (0, 1) if encoding.endswith("yuy2") else (1, 0)
        rows = np.empty((height, width, 2), np.uint8)
        rows[..., first], rows[:, ::2, second], rows[:, 1::2, second] = y, u, v
        return rows
    return {
        "rgb8": lambda: rgb,
        "bgr8": lambda: rgb[..., ::-1],
        "rgba8": lambda: np.concatenate([rgb, alpha], 2),
        "bgra8": lambda: np.concatenate([rgb[..., ::-1], alpha], 2),
        "mono8": lambda: grey,
        "mono16": lambda: grey.astype(np.uint16) * 256 + 99,
        "16UC1": lambda: (patches(width, height) * 1000).astype(np.uint16),
        "32FC1": lambda: patches(width, height).astype(np.float32),
    }[encoding]()


def image(encoding, width, height, rubbish=0, is_bigendian=False):
    """The data and the step of a message, with so many bytes of rubbish after each row."""
    rows = packed(encoding, width, height)
    rows = rows.astype(rows.dtype.newbyteorder(">" if is_bigendian else "<"))
    rows = np.frombuffer(rows.tobytes(), np.uint8).reshape(height, -1)
    rows = np.concatenate([rows, np.full((height, rubbish), 0xA5, np.uint8)], 1)
    return rows.tobytes(), rows.shape[1]
