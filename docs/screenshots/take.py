"""The pictures in the README: a demo is made in a temporary directory, served, photographed by
chromium and removed. `python -m docs.screenshots.take`
"""

import base64
import json
import shutil
import struct
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from console.demo import OWNER
from console.demo.story import IN_GRACE, SHOP
from tests.browser.conftest import ARGUMENTS, sign_in
from tests.server import RunningServer

PICTURES = Path(__file__).parent
WIDTH, HEIGHT, SCALE = 1280, 800, 1.5
SETTLE_MS = 500  # for what scripts do to a page once it is there
BYTES_MAX = 250_000
COLOURS = 256
PASSWORD = "only for the pictures"

# A picture's pixels, four bytes each, as chromium decodes it.
PIXELS = """async picture => {
  const image = new Image();
  image.src = "data:image/png;base64," + picture;
  await image.decode();
  const drawn = new OffscreenCanvas(image.width, image.height).getContext("2d");
  drawn.drawImage(image, 0, 0);
  const pixels = drawn.getImageData(0, 0, image.width, image.height).data;
  let text = "";
  for (let start = 0; start < pixels.length; start += 8192)
    text += String.fromCharCode(...pixels.subarray(start, start + 8192));
  return [image.width, image.height, btoa(text)];
}"""


def take() -> None:
    """Writes keys.png, key.png and audit-log.png beside this file."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed (apt-get install chromium)")
    with tempfile.TemporaryDirectory(prefix="latchkey-") as directory:
        server = RunningServer(Path(directory) / "data")
        _run(server, "demo", "--password-stdin", stdin=PASSWORD)
        found = json.loads(_run(server, "list-keys", "--project", SHOP, "--json"))
        key_id = next(key["id"] for key in found if key["name"] == IN_GRACE)
        with server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            page = _signed_in(browser, server.url)
            for name, path in (
                ("keys", "keys"), ("key", f"keys/{key_id}"), ("audit-log", "audit-log"),
            ):  # fmt: skip
                _photograph(page, f"/projects/{SHOP}/{path}", PICTURES / f"{name}.png")
            browser.close()


def _run(server: RunningServer, *arguments: str, stdin: str = "") -> str:
    ran = server.run(*arguments, stdin=stdin)
    if ran.returncode:
        sys.exit(ran.stderr)
    return ran.stdout


def _signed_in(browser: Browser, url: str) -> Page:
    context = browser.new_context(
        base_url=url,
        viewport={"width": WIDTH, "height": HEIGHT},
        device_scale_factor=SCALE,
        color_scheme="light",
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="Europe/Berlin",
    )
    page = context.new_page()
    sign_in(page, email=OWNER, password=PASSWORD)
    return page


def _photograph(page: Page, path: str, picture: Path) -> None:
    answer = page.goto(path, wait_until="load")
    if answer is None or not answer.ok:
        sys.exit(f"{path} answers {answer.status if answer else 'nothing'}")
    page.wait_for_timeout(SETTLE_MS)
    page.mouse.move(WIDTH - 1, HEIGHT - 1)  # nothing is hovered over
    taken = page.screenshot(animations="disabled", caret="hide")
    aside = page.context.new_page()  # the console's own policy would not have the picture in it
    width, height, pixels = aside.evaluate(PIXELS, base64.b64encode(taken).decode())
    aside.close()
    picture.write_bytes(_png(width, height, base64.b64decode(pixels)))
    size = picture.stat().st_size
    print(f"{picture.name}: {size // 1000} kB")
    if size > BYTES_MAX:
        sys.exit(f"{picture.name} is larger than {BYTES_MAX // 1000} kB")


def _png(width: int, height: int, pixels: bytes) -> bytes:
    """The picture in its 256 most frequent colours: half as large, and looks the same."""
    points = list(zip(pixels[0::4], pixels[1::4], pixels[2::4], strict=True))
    counts = Counter(points)
    palette = [colour for colour, _ in counts.most_common(COLOURS)]
    index_of = {colour: _nearest(colour, palette) for colour in counts}
    indexes = bytes(map(index_of.__getitem__, points))
    lines = b"".join(b"\0" + indexes[at : at + width] for at in range(0, len(indexes), width))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", b"".join(map(bytes, palette))),
            _chunk(b"IDAT", zlib.compress(lines, 9)),
            _chunk(b"IEND", b""),
        )
    )


def _nearest(colour: tuple[int, int, int], palette: list[tuple[int, int, int]]) -> int:
    def distance(index: int) -> int:
        return sum((one - other) ** 2 for one, other in zip(colour, palette[index], strict=True))

    return min(range(len(palette)), key=distance)


def _chunk(kind: bytes, content: bytes) -> bytes:
    """One part of a PNG (RFC 2083): its length, kind, content and checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


if __name__ == "__main__":
    take()
