"""Watch the network work, on a camera, a video, a photo or a folder: ``python tools/demo.py --help``."""

import sys

from facemtl.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
