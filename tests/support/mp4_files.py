"""MP4 files that state what OpenCV's writer cannot: uneven times, oblong pixels, a turn."""

import struct

import cv2

CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def write_mp4(path, frames, fps=50.0, steps=None, pixel=None, quarter_turn=False):
    """Grey frames uint8 (T, H, W).

    steps: milliseconds from each frame to the next, the last one's own included. pixel: width and
    height of a pixel. quarter_turn: to be shown turned by 90 degrees.
    """
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, frames.shape[:0:-1], isColor=True
    )
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    writer.release()
    data = path.read_bytes()
    if steps is not None:
        scale = _timescale(data)
        counts = b"".join(struct.pack(">2I", 1, round(s * scale / 1000)) for s in steps)
        content = struct.pack(">2I", 0, len(steps)) + counts
        data = _changed(
            data, (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"), lambda _: content
        )
        for name in (b"mvhd", b"tkhd", b"mdhd", b"elst"):  # else the file ends when its header says
            data = _longer(data, name, sum(steps) / 1000)
    if pixel is not None:
        box = _box(b"pasp", struct.pack(">2I", *pixel))
        data = _changed(
            data, (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"), lambda c: _with(c, box)
        )
    if quarter_turn:
        at = data.index(b"tkhd") + 4 + 40
        turn = struct.pack(
            ">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, frames.shape[1] << 16, 0, 1 << 30
        )
        data = data[:at] + turn + data[at + 36 :]
    path.write_bytes(data)
    return path


def _box(name, content):
    return struct.pack(">I", 8 + len(content)) + name + content


def _changed(data, names, change):
    """The boxes `data` with the content of the one at the path `names` changed."""
    out, at = b"", 0
    while at < len(data):
        size, name = struct.unpack(">I", data[at : at + 4])[0], data[at + 4 : at + 8]
        content = data[at + 8 : at + size]
        if name == names[0]:
            content = change(content) if len(names) == 1 else _changed(content, names[1:], change)
        out, at = out + _box(name, content), at + size
    return out


def _with(stsd, box):
    """A sample description with a box more in its first entry."""
    size = struct.unpack(">I", stsd[8:12])[0]
    entry = _box(stsd[12:16], stsd[16 : 8 + size] + box)
    return stsd[:8] + entry + stsd[8 + size :]


def _timescale(data):
    at = data.index(b"mdhd") + 4
    return struct.unpack(">I", data[at + 12 : at + 16])[0]


def _longer(data, name, seconds):
    at = data.index(name) + 4
    offset = {b"mvhd": 16, b"mdhd": 16, b"tkhd": 20, b"elst": 8}[name]
    scale = _timescale(data)
    if name != b"mdhd":
        movie = data.index(b"mvhd") + 4
        scale = struct.unpack(">I", data[movie + 12 : movie + 16])[0]
    return data[: at + offset] + struct.pack(">I", round(seconds * scale)) + data[at + offset + 4 :]
