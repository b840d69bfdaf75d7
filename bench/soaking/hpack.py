"""HPACK (RFC 7541), as much of it as a peer needs that reads everything and writes literals alone."""

STATIC = """\
:authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|:status 206
:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|accept-language|accept-ranges
accept|access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|content-encoding
content-language|content-length|content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host
if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards
proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|strict-transport-security
transfer-encoding|user-agent|vary|via|www-authenticate"""
STATIC = [tuple((entry + " ").split(" ", 1)) for entry in STATIC.replace("\n", "|").split("|")]
STATIC = [(name, value.strip()) for name, value in STATIC]
assert len(STATIC) == 61

# The code is canonical (RFC 7541, appendix B), so the lengths of its words are all there is to know: A is 5 bits, Z is 30.
LENGTHS = (
    "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHFIBCCCCCCCCCCCCCCCCCCCCCCDCDIOIJBKABA"
    "BABBBACCBBBABCBAABCCCCCKGJIXPRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRTQRSSQQRQSRSSPRRRSRRSVVPORSRU"
    "VVVWWVTUOQVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVWVVWWWWWXWWWWWV"
)


def codes():
    words, code, before = {}, 0, 0
    for length, symbol in sorted((ord(letter) - 60, symbol) for symbol, letter in enumerate(LENGTHS)):
        code <<= length - before
        words[length, code] = symbol
        before, code = length, code + 1
    return words


CODES = codes()


def unhuffman(data):
    text, code, length = bytearray(), 0, 0
    for byte in data:
        for at in range(7, -1, -1):
            code, length = code << 1 | byte >> at & 1, length + 1
            if (symbol := CODES.get((length, code))) is not None:
                text.append(symbol)
                code = length = 0
    return bytes(text)


def integer(value, bits, first=0):
    if value < (most := (1 << bits) - 1):
        return bytes([first | value])
    text, value = bytearray([first | most]), value - most
    while value >= 128:
        text.append(value & 127 | 128)
        value >>= 7
    return bytes(text) + bytes([value])


def encode(fields):
    """Literals without indexing, with new names."""
    words = [word.encode("latin-1") for field in fields for word in field]
    texts = [integer(len(word), 7) + word for word in words]
    return b"".join(b"\0" + name + value for name, value in zip(texts[::2], texts[1::2]))


class Decoder:
    def __init__(self):
        self.dynamic = []

    def decode(self, block):
        self.block, self.at, fields = block, 0, []
        while self.at < len(block):
            first = block[self.at]
            if first & 0x80:
                fields.append(self.entry(self.integer(7)))
            elif first & 0xE0 == 0x20:
                self.integer(5)
            else:
                at = self.integer(6 if first & 0x40 else 4)
                name = self.entry(at)[0] if at else self.text()
                fields.append((name, self.text()))
                if first & 0x40:
                    self.dynamic.insert(0, fields[-1])
                    self.shrink()
        return fields

    def shrink(self):
        while sum(len(name) + len(value) + 32 for name, value in self.dynamic) > 4096:
            self.dynamic.pop()

    def entry(self, at):
        return STATIC[at - 1] if at <= 61 else self.dynamic[at - 62]

    def integer(self, bits):
        value = self.block[self.at] & (most := (1 << bits) - 1)
        self.at += 1
        shift = 0
        while value >= most:
            byte = self.block[self.at]
            self.at += 1
            value += (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return value

    def text(self):
        huffman = self.block[self.at] & 0x80
        length = self.integer(7)
        data = self.block[self.at : self.at + length]
        self.at += length
        return (unhuffman(data) if huffman else data).decode("latin-1")
