"""A computer vision app in ten lines: read a photo, find the faces, say what there is, and draw it.

python examples/ten_lines.py photo.jpg annotated.png
"""

import sys

from facemtl import Predictor, read_image
from facemtl.draw import draw_faces
from facemtl.image import write_image

image = read_image(sys.argv[1])
faces = Predictor()(image)
for face in faces:
    said = ", ".join(attribute.label for attribute in face.attributes.values() if attribute.certain)
    print(f"a face at {face.box.round().astype(int).tolist()}: {said}")
write_image(sys.argv[2], draw_faces(image, faces))
