"""Ask a running `facemtl serve` for the faces of photos; needs nothing but Python.

facemtl serve &
python examples/server_client.py http://127.0.0.1:8000 photo.jpg other.png

One line of JSON a photo. A service that is busy is asked again; what it refuses is said as it says it.
"""

import json
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path


def ask(server: str, photo: Path, tries: int = 5) -> dict:
    """The answer of ``/predict``: ``face_version`` and ``images``, as docs/formats.md describes them."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{photo.name}"\r\n\r\n'
    body = head.encode() + photo.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    request = urllib.request.Request(f"{server}/predict", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 503 and tries > 1:
                time.sleep(float(error.headers.get("Retry-After", 1)))
                return ask(server, photo, tries - 1)
            raise SystemExit(f"{photo}: {json.load(error)['detail']}") from None


if __name__ == "__main__":
    for name in sys.argv[2:]:
        print(json.dumps(ask(sys.argv[1].rstrip("/"), Path(name))))
