// Faces through the frames of a camera: the next crop comes from the last points, and the detector rarely runs.
// A small relative of facemtl/track.py: a face that was lost comes back as a new one.
import { boxFromFive, mean, rollOfFive, toFive } from "./geometry.mjs";
import { overlap } from "./detect.mjs";

const EVERY = 15; // frames between two detections while faces are followed
const SEARCH = 5; // and while there are none
const SAME = 0.3; // of their union that two boxes of one face share
const SMALLEST = 10; // pixels; points that shrink to less are on no face

export class Follower {
  constructor(predictor) {
    this.predictor = predictor;
    this.model = predictor.model;
    this.tracks = [];
    this.frame = 0;
    this.detected = -Infinity;
    this.count = 0;
  }

  // picture, seconds -> the smoothed faces of the frame, with their track_id
  async follow(picture, time) {
    this.frame++;
    const looked = await this.look(picture);
    const kept = [];
    looked.forEach(({ face, five }, i) => {
      const track = this.tracks[i];
      const box = five && boxFromFive(five, this.model.box_side);
      if (!box || !this.there(face, five, box, picture)) return;
      if (kept.some((other) => overlap(other.box, box) > SAME)) return;
      Object.assign(track, { face, five, box, roll: rollOfFive(five) });
      kept.push(track);
    });
    const lost = kept.length < this.tracks.length;
    this.tracks = kept;
    const since = this.frame - this.detected;
    if (lost || since >= (kept.length ? EVERY : SEARCH)) await this.detect(picture);
    return this.tracks.map((track) => track.smoother.smooth(track, time));
  }

  // What is in the crops of the last points; again through the new ones where those crops were off (Predictor.follow).
  async look(picture) {
    const looked = await this.predictor.describe(picture, this.tracks);
    const again = looked.map(({ five }, i) => {
      const box = five && boxFromFive(five, this.model.box_side);
      const better = box && { box, roll: rollOfFive(five), score: this.tracks[i].score };
      return better && this.wasOff(this.tracks[i], better) ? better : null;
    });
    const repeated = await this.predictor.describe(picture, again.filter(Boolean));
    return looked.map((look, i) => (again[i] ? repeated.shift() : look));
  }

  wasOff(old, better) {
    const { spec, crop_off: off, crop_resized: resized } = this.model;
    const side = (old.box[2] - old.box[0]) * spec.crop_scale;
    const apart = Math.hypot(...[0, 1].map((k) => better.box[k] + better.box[k + 2] - old.box[k] - old.box[k + 2])) / 2;
    const grown = Math.abs(Math.log((better.box[2] - better.box[0]) / (old.box[2] - old.box[0])));
    const turn = Math.abs(better.roll - old.roll);
    const turned = Math.min(turn, 2 * Math.PI - turn) / 2;
    return spec.passes > 1 && (apart > off * side || Math.max(grown, turned) > resized);
  }

  // The detector's word: it begins what is new, and ends what it has missed twice.
  async detect(picture) {
    this.detected = this.frame;
    const found = await this.predictor.detector.detect(picture);
    for (const track of this.tracks) {
      const seen = found.find(({ box }) => overlap(box, track.box) > SAME);
      track.misses = seen ? 0 : track.misses + 1;
      if (seen) track.score = seen.score;
    }
    this.tracks = this.tracks.filter(({ misses }) => misses < 2);
    const fresh = found.filter(({ box }) => !this.tracks.some((track) => overlap(box, track.box) > SAME));
    for (const [i, { face, five }] of (await this.predictor.describe(picture, fresh)).entries()) {
      const box = five && boxFromFive(five, this.model.box_side);
      if (!box || this.tracks.some((track) => overlap(track.box, box) > SAME)) continue;
      const smoother = new FaceSmoother(this.model, ++this.count);
      this.tracks.push({ face, five, box, roll: rollOfFive(five), score: fresh[i].score, misses: 0, smoother });
    }
  }

  // Whether there still is a face: by its quality where the model has one, else by how unsure its points are.
  there({ quality, landmark_sigma: sigma }, five, box, { width, height }) {
    const [x, y] = [0, 1].map((axis) => mean(five.map((point) => point[axis])));
    if (box[2] - box[0] < SMALLEST || x < 0 || y < 0 || x >= width || y >= height) return false;
    if (quality !== null) return quality >= 0.5;
    return sigma === null || mean(sigma) / (box[2] - box[0]) < this.model.sigma_limit;
  }
}

// Casiez, Roussel and Vogel (CHI 2012), as in facemtl/smoothing.py: rows of numbers that move together.
export class OneEuro {
  constructor([minCutoff, beta], speedCutoff) {
    Object.assign(this, { minCutoff, beta, speedCutoff, last: null });
  }

  smooth(rows, time, scale = 1) {
    if (this.last) {
      const step = time - this.time;
      if (!(step > 0)) return this.last;
      rows = rows.map((row, i) => {
        const before = this.last[i];
        const quick = share(this.speedCutoff, step);
        const speed = row.map((v, k) => this.speeds[i][k] + quick * ((v - before[k]) / (step * scale) - this.speeds[i][k]));
        this.speeds[i] = speed;
        const weight = share(this.minCutoff + this.beta * Math.hypot(...speed), step);
        return row.map((v, k) => before[k] + weight * (v - before[k]));
      });
    } else {
      this.speeds = rows.map((row) => row.map(() => 0));
    }
    this.last = rows;
    this.time = time;
    return rows;
  }
}

const share = (cutoff, step) => 1 / (1 + 1 / (2 * Math.PI * cutoff * step));

// A label that changes only after the same other one has led by a margin for a while.
class Hysteresis {
  constructor({ label_margin: margin, label_hold: hold }) {
    Object.assign(this, { margin, hold, label: null, rival: null });
  }

  show(shares, time) {
    const best = Object.keys(shares).reduce((a, b) => (shares[b] > shares[a] ? b : a));
    this.label ??= best;
    if (best === this.label || shares[best] - shares[this.label] < this.margin) this.rival = null;
    else if (best !== this.rival) Object.assign(this, { rival: best, since: time });
    if (this.rival !== null && time - this.since >= this.hold - 1e-9) {
      Object.assign(this, { label: best, rival: null });
    }
    return this.label;
  }
}

export class FaceSmoother {
  constructor(model, number) {
    const { speed_cutoff: speed, points, angles, shares } = model.smoothing;
    this.model = model;
    this.number = number;
    this.points = new OneEuro(points, speed);
    this.angles = new OneEuro(angles, speed);
    this.shares = {};
    this.labels = {};
    this.newShares = () => new OneEuro(shares, speed);
  }

  smooth({ face, box, score }, time) {
    const names = Object.keys(face.landmarks);
    const points = this.points.smooth(Object.values(face.landmarks), time, box[2] - box[0]);
    const { five } = this.model.schemas[face.schema];
    return {
      ...face,
      score,
      track_id: this.number,
      box: points.length ? boxFromFive(toFive(points, five), this.model.box_side) : face.box,
      landmarks: Object.fromEntries(names.map((name, k) => [name, points[k]])),
      pose: face.pose && this.pose(face.pose, time),
      attributes: Object.fromEntries(Object.entries(face.attributes).map(([name, a]) => [name, this.attribute(name, a, time)])),
    };
  }

  pose(angles, time) {
    const names = Object.keys(angles);
    const rows = names.map((name, k) => {
      const before = this.angles.last?.[k][0] ?? angles[name];
      return [before + wrapped(angles[name] - before)]; // 179 and -179 degrees are neighbours
    });
    const smooth = this.angles.smooth(rows, time);
    return Object.fromEntries(names.map((name, k) => [name, wrapped(smooth[k][0])]));
  }

  attribute(name, { probabilities }, time) {
    this.shares[name] ??= this.newShares();
    this.labels[name] ??= new Hysteresis(this.model.smoothing);
    const labels = Object.keys(probabilities);
    const [shares] = this.shares[name].smooth([Object.values(probabilities)], time);
    const smooth = Object.fromEntries(labels.map((label, k) => [label, shares[k]]));
    const label = this.labels[name].show(smooth, time);
    const confidence = smooth[label];
    return {
      label,
      confidence,
      probabilities: smooth,
      certain: confidence >= (this.model.spec.thresholds[name] ?? 0),
    };
  }
}

const wrapped = (degrees) => degrees - 360 * Math.round(degrees / 360);
