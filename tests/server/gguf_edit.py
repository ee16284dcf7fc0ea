"""Rewrites a GGUF file's metadata, its tensors as they are. Python's standard library alone."""
import struct

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
U32, I32, STRING, ARRAY = 4, 5, 8, 9
ALIGNMENT = 32


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def scalar(self, code):
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self):
        n = self.scalar("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            of, n = self.scalar("I"), self.scalar("Q")
            return of, [self.value(of) for _ in range(n)]
        return self.scalar(SCALARS[kind])


def written(kind, value):
    if kind == STRING:
        return struct.pack("<Q", len(value.encode())) + value.encode()
    if kind == ARRAY:
        return struct.pack("<IQ", value[0], len(value[1])) + b"".join(written(value[0], v) for v in value[1])
    return struct.pack("<" + SCALARS[kind], value)


def rewrite(source, target, change):
    """change(metadata): a dict of key -> (type, value), an array's value being (type of its elements, list)."""
    with open(source, "rb") as f:
        r = Reader(f.read())
    head = [r.scalar("I"), r.scalar("I"), r.scalar("Q")]
    metadata = {}
    for _ in range(r.scalar("Q")):
        key, kind = r.string(), r.scalar("I")
        metadata[key] = (kind, r.value(kind))
    begin = r.at
    for _ in range(head[2]):
        r.string()
        for _ in range(r.scalar("I")):
            r.scalar("Q")
        r.scalar("I"), r.scalar("Q")
    directory = r.data[begin:r.at]
    tensors = r.data[(r.at + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT:]
    change(metadata)
    out = struct.pack("<IIQQ", *head, len(metadata))
    out += b"".join(written(STRING, key) + struct.pack("<I", kind) + written(kind, value) for key, (kind, value) in metadata.items()) + directory
    with open(target, "wb") as f:
        f.write(out + bytes(-len(out) % ALIGNMENT) + tensors)
