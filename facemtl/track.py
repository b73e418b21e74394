"""Faces that keep their identity in a video: the next crop comes from the last points, and the detector rarely runs.

What is possible without recognising people: a face is followed by where it is, how it moves, how large it is and how
its five points lie. Two faces that meet are told apart by their motion before they met; if both turn back behind one
another, or change size and pose meanwhile, their ids may swap. A face that has been away longer than ``memory``, or
comes back elsewhere, is a new one.

``python tools/benchmark_live.py --parts identities`` counts the identity switches of five cut-out faces that cross
within two seconds, up to four behind others at once (docs/live.md; six of the scenes, which then had no switch, chose
``SHAPE_WEIGHT`` in :mod:`facemtl.identity`). Where the network is right about every face that can be seen
(``tests/moving_faces.py``): none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from facemtl.detect import Detections
from facemtl.errors import BoxError, ConfigError, ModelError
from facemtl.face import Face
from facemtl.geometry import box_from_five
from facemtl.identity import Track, is_clear, state_of
from facemtl.image import as_bgr
from facemtl.landmarks import SCHEMAS
from facemtl.matching import assign, box_cost, centre_of, same_place
from facemtl.motion import Motion
from facemtl.predictor import Predictor
from facemtl.presence import presence
from facemtl.search import Search
from facemtl.smoothing import FaceSmoother

MOTION_PAUSE = 22  # frames between detections for the sake of motion: under a twentieth of them where all moves
VOUCHED = 30  # frames for which a doubt is settled once the detector has found the face in much the same crop
MISS = 1.5  # log-odds by which presence falls with each detection that did not find the face, twice at most
MEMORY = 1.5  # seconds for which a lost face is remembered, unless told otherwise
SMALLEST = 10.0  # pixels; points that shrink to less are on no face
# Costs of two boxes: sides between their centres, plus the natural logarithm of the ratio of their sides.
MATCH = 0.7  # under which a detection is the face of a track
DRIFTED = 0.3  # over which the crop is then taken from the detection
JUMP = 0.5  # sides from what was expected beyond which points have jumped to something else


@dataclass(slots=True, eq=False)
class _Look:
    """What was found for a track in this frame; ``odds`` are the log-odds that it is a face."""

    track: Track
    face: Face
    box: np.ndarray
    odds: float


class Tracker:
    """Follows faces through the frames of a video. Use one for each video, from one thread.

    The crops of the next frame come from the last points, moved on at constant velocity, in one pass of the network
    (:meth:`Predictor.follow`). The detector of ``predict`` looks for faces: every ``search`` frames while a lost one is
    remembered, one stays doubtful or two overlap; every ``every`` frames; and, at least 22 frames after the last time,
    when something moves away from the known faces (:mod:`facemtl.motion`, asked every ``search`` frames). So that no
    ordinary frame is late, such a search is spread over frames (:mod:`facemtl.search`). It is done at once where no
    face is followed, and in the frame in which one becomes doubtful or is lost.

    *An id ends* when :mod:`facemtl.presence` falls under even odds, or the points jump by half a side, and the detector
    finds no face there; a detection that misses a face counts against it. Of two tracks on one face
    that one stays which is nearer to its own motion, size and shape before they met; the other is hidden, and lost.
    *An id comes back* when within ``memory`` seconds a new face appears within 0.75 face sides, and one more for each
    second, of where the lost one was last seen or would have moved to; difference in size (natural logarithm) and in
    shape count like distance. Otherwise a new face gets the next number; none is given twice.

    Args:
        predict: finds the points; needs a model that has some. Its detector may look for faces in pieces.
        every: frames between detections while all is well, at least 1.
        search: frames between detections while a face is looked for, 1 to ``every``.
        memory: seconds for which a lost face is remembered, not negative.
        smooth: steady the points, angles, probabilities and labels (:mod:`facemtl.smoothing`).

    Attributes:
        detections: how many searches began.

    Raises:
        ConfigError: a number out of its range.
    """

    def __init__(
        self, predict: Predictor, every: int = 60, search: int = 3, memory: float = MEMORY, smooth: bool = True
    ) -> None:
        if not 1 <= search <= every:
            raise ConfigError(f"search must be at least 1 and at most every; got {search} and {every}")
        if not 0 <= memory < math.inf:
            raise ConfigError(f"memory must be a number of seconds, not negative; got {memory}")
        self._predict = predict
        self._every, self._search, self._memory, self._smooth = every, search, memory, smooth
        self._numbers = itertools.count(1)
        self.detections = 0
        self.reset()

    def reset(self) -> None:
        """Forget all faces and the clock, as at a cut or for another video; ids go on counting."""
        self._tracks: list[Track] = []
        self._lost: list[Track] = []
        self._size: tuple[int, int] | None = None
        self._time = -math.inf
        self._frame = self._searched = 0  # number of this frame, and of the last one that was searched to the end
        self._search_under_way: Search | None = None
        self._motion = Motion()

    def __call__(self, frame: np.ndarray, time: float) -> list[Face]:
        """The faces of the next frame, by ascending ``track_id``.

        Each has the box of its points, the score of the detector when it last saw the face, and ``track_id``.

        Args:
            frame: (H, W, 3) uint8 BGR, or another array that :func:`facemtl.image.as_bgr` takes. A frame of another
                size than the last forgets all faces: it is another view.
            time: seconds, from any origin, later than that of the last frame; any spacing.

        Raises:
            ConfigError: a time that is not finite, or not later than the last.
            ImageError: a picture that cannot be read; the tracker goes on with the next.
            ModelError: a model without points, or as :class:`Predictor`.
        """
        frame = as_bgr(frame)
        self._advance(frame.shape[:2], time)
        looks = self._look(frame, self._tracks, [track.next_box(time) for track in self._tracks])
        self._motion.see(frame, [look.box for look in looks])
        looks = self._hide_duplicates(looks, time)
        found = self._search_on(frame, looks)
        if found is not None:
            looks = self._settle(frame, looks, found, time)
        for look in looks:
            if look.track.state.time < time:  # those of new faces stand where they are
                look.track.follow(look.face, look.box, time)
        self._tracks = sorted((look.track for look in looks), key=lambda track: track.number)
        for track in self._tracks:
            track.look_around(self._tracks, self._lost)
        self._lost = [track for track in self._lost if time - track.state.time <= self._memory]
        return [_shown(track, time) for track in self._tracks]

    def _advance(self, size: tuple[int, int], time: float) -> None:
        if not math.isfinite(time) or time <= self._time:
            raise ConfigError(
                f"frames must come in order: {time} s is not after {self._time} s; reset() starts another video"
            )
        if size != self._size:
            self.reset()
            self._size = size
        self._time = time
        self._frame += 1

    def _look(self, frame: np.ndarray, tracks: Sequence[Track], boxes: Sequence[np.ndarray]) -> list[_Look]:
        """What the network finds in a box for each track."""
        if not tracks:
            return []
        faces = self._predict.follow(frame, np.stack(boxes), [track.state.roll for track in tracks])
        return self._judge(tracks, boxes, faces)

    def _judge(self, tracks: Sequence[Track], boxes: Sequence[np.ndarray], faces: Sequence[Face]) -> list[_Look]:
        looks = []
        for track, given, face in zip(tracks, boxes, faces, strict=True):
            box = self._face_box(face)
            odds = -math.inf if box is None else presence(face, given, box)
            looks.append(_Look(track, face, given if box is None else box, odds))
        return looks

    def _face_box(self, face: Face) -> np.ndarray | None:
        """The box of a face's points, or None where they can be on no face of this picture."""
        if not len(face.landmarks):
            raise ModelError("tracking needs a model that finds points")
        try:
            box = box_from_five(SCHEMAS[face.schema].to_five(face.landmarks))
        except BoxError:
            return None
        (x, y), (height, width) = centre_of(box).tolist(), self._size
        return box if 0 <= x < width and 0 <= y < height and box[2] - box[0] >= SMALLEST else None

    def _hide_duplicates(self, looks: list[_Look], time: float) -> list[_Look]:
        """Of several tracks on one face the least surprising one; the others are lost, for they may be behind it."""
        kept: list[_Look] = []
        surprises = [look.track.surprise(state_of(look.face, look.box, time, np.zeros(2))) for look in looks]
        for surprise, look in sorted(zip(surprises, looks, strict=True), key=lambda pair: pair[0]):
            jumped = surprise > JUMP
            if jumped or any(same_place(look.box, other.box) for other in kept):
                self._lost.append(look.track)
            else:
                kept.append(look)
        return kept

    def _search_on(self, frame: np.ndarray, looks: list[_Look]) -> Detections | None:
        """Begin a search or go on with one; what it found once it is done."""
        now = not looks or len(looks) < len(self._tracks) or any(self._new_doubt(look) for look in looks)
        if now or (self._search_under_way is None and self._wants_search(looks)):
            known = {look.track: (look.box, look.odds) for look in looks}
            self._search_under_way = Search(self._predict.detector, frame, self._frame, known)
            self.detections += 1
            self._motion.remember()
        if self._search_under_way is None:
            return None
        return self._search_under_way.finish() if now else self._search_under_way.advance()

    def _wants_search(self, looks: list[_Look]) -> bool:
        """Whether it is time to look for faces again, though nothing has happened that must be known at once."""
        since = self._frame - self._searched
        if since >= self._every:
            return True
        if since >= self._search and (self._lost or any(look.track.crowded or self._doubt(look) for look in looks)):
            return True
        return since >= MOTION_PAUSE and since % self._search == 0 and self._motion.elsewhere()

    def _doubt(self, look: _Look) -> bool:
        """Whether presence has fallen, also because detections missed the face."""
        return look.odds - MISS * min(look.track.misses, 2) < 0

    def _new_doubt(self, look: _Look) -> bool:
        """Whether it has, and not in spite of what the detector has said of much the same crop."""
        track = look.track
        vouched = self._frame - track.confirmed < VOUCHED and look.odds > track.vouched - MISS
        return self._doubt(look) and not vouched

    def _settle(self, frame: np.ndarray, looks: list[_Look], found: Detections, time: float) -> list[_Look]:
        """Lose what a search did not confirm, put right what has drifted, begin what is new.

        The boxes that were found are compared with those of the frame that was searched, some frames ago perhaps.
        """
        search, self._search_under_way = self._search_under_way, None
        self._searched = search.number
        boxes, scores = found.boxes, found.scores.tolist()
        known = [search.known[look.track] for look in looks]
        costs = np.array([[box_cost(before, box) for box in boxes] for before, _ in known]).reshape(
            len(looks), len(boxes)
        )
        pairs = assign(costs, MATCH)
        again: list[tuple[Track, np.ndarray]] = []
        going: list[_Look] = []
        for i, look in enumerate(looks):
            track = look.track
            if i not in pairs:
                track.misses += 1
                if self._doubt(look):
                    self._lost.append(track)
                else:
                    going.append(look)
                continue
            before, odds = known[i]
            track.misses, track.confirmed, track.vouched = 0, search.number, odds
            track.score = scores[pairs[i]]
            if look.odds < 0 or costs[i, pairs[i]] > DRIFTED:
                moved = np.tile(centre_of(look.box) - centre_of(before), 2)
                again.append((track, boxes[pairs[i]] + moved))
            else:
                going.append(look)
        for look in self._look_afresh(frame, again):
            look.track.vouched = look.odds
            if look.odds == -math.inf:
                self._lost.append(look.track)
            else:
                going.append(look)
        rest = [j for j in range(len(boxes)) if j not in pairs.values()]
        return going + self._begin(frame, going, boxes[rest], [scores[j] for j in rest], time)

    def _look_afresh(self, frame: np.ndarray, again: Sequence[tuple[Track, np.ndarray]]) -> list[_Look]:
        """What the network finds in boxes of the detector."""
        if not again:
            return []
        boxes = [box for _, box in again]
        return self._judge([track for track, _ in again], boxes, self._predict(frame, boxes=np.stack(boxes)))

    def _begin(
        self, frame: np.ndarray, going: list[_Look], boxes: np.ndarray, scores: Sequence[float], time: float
    ) -> list[_Look]:
        """Tracks for detections (N, 4) that belong to none: those of lost faces that are back, or new ones."""
        if not len(boxes):
            return []
        taken = [look.box for look in going]
        fresh, sure = [], []
        late = self._searched < self._frame
        for face, given, score in zip(self._predict(frame, boxes=boxes), boxes, scores, strict=True):
            box = self._face_box(face)
            if box is None or any(same_place(box, other) for other in taken):
                continue
            there = presence(face, given, box) >= 0
            if late and not there:  # it has gone since
                continue
            taken.append(box)
            sure.append(there and is_clear(face))
            fresh.append(Track(face, box, score, time, self._smoother()))
        costs = [[lost.return_cost(track.state, self._size, self._memory) for track in fresh] for lost in self._lost]
        pairs = assign(np.array(costs).reshape(len(self._lost), len(fresh)), math.inf)
        back = {j: self._lost[i] for i, j in pairs.items()}
        self._lost = [track for track in self._lost if track not in back.values()]
        for j, track in enumerate(fresh):
            track.confirmed = self._searched
            if j in back:
                track.come_back(back[j], sure[j])
            else:
                track.number = next(self._numbers)
        return [_Look(track, track.face, track.box, 0.0) for track in fresh]

    def _smoother(self) -> FaceSmoother | None:
        return FaceSmoother(self._predict.spec.thresholds, self._predict.spec.priors) if self._smooth else None


def _shown(track: Track, time: float) -> Face:
    face = replace(track.face, track_id=track.number, score=track.score, box=track.box.astype(np.float32))
    return face if track.smooth is None else track.smooth(face, time)
