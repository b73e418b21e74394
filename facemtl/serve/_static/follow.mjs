// Faces through the frames of a camera: the next crop comes from the last points, and the detector rarely runs.
// A small relative of facemtl/track.py: who comes back is decided by the same rule, motion.mjs.
import { boxFromFive, mean, rollOfFive, toFive } from "./geometry.mjs";
import { relativeShares } from "./decode.mjs";
import { overlap } from "./detect.mjs";
import { assign, isClear, Motion } from "./motion.mjs";

const EVERY = 15; // frames between two detections while all is well
const SEARCH = 5; // and while there are no faces, or a lost one is remembered
const SAME = 0.3; // of their union that two boxes of one face share

export class Follower {
  constructor(predictor) {
    this.predictor = predictor;
    this.model = predictor.model;
    this.tracks = [];
    this.lost = [];
    this.frame = 0;
    this.detected = -Infinity;
    this.count = 0;
  }

  // picture, seconds -> the smoothed faces of the frame, with their track_id
  async follow(picture, time) {
    this.frame++;
    const before = this.tracks;
    this.tracks = this.keep(await this.predictor.describe(picture, this.tracks), picture, time);
    const lost = this.forget(before);
    const since = this.frame - this.detected;
    if (lost || since >= (this.tracks.length && !this.lost.length ? EVERY : SEARCH)) await this.detect(picture, time);
    for (const track of this.tracks) {
      track.motion.lookAround(track, this.tracks.filter((other) => other !== track), this.lost);
    }
    this.lost = this.lost.filter(({ motion }) => time - motion.now.time <= this.model.tracking.memory);
    return this.tracks.map((track) => track.smoother.smooth(track, time));
  }

  // The tracks that still are on a face: of several on one the least surprising, for the others may be behind it.
  keep(looked, picture, time) {
    const found = looked.map(({ face, five }, i) => {
      const { motion } = this.tracks[i];
      const box = five && boxFromFive(five, this.model.box_side);
      const there = box && this.there(face, five, box, picture);
      return { track: this.tracks[i], face, five, box, surprise: there ? motion.surprise(five, box, time) : Infinity };
    });
    const kept = [];
    for (const { track, face, five, box, surprise } of found.sort((a, b) => a.surprise - b.surprise)) {
      if (surprise === Infinity || kept.some((other) => overlap(other.box, box) > SAME)) continue;
      Object.assign(track, { face, five, box, roll: rollOfFive(five) });
      track.motion.follow(five, box, time);
      kept.push(track);
    }
    return this.tracks.filter((track) => kept.includes(track));
  }

  // Remember those that are followed no more; how many they are.
  forget(before) {
    const gone = before.filter((track) => !this.tracks.includes(track));
    this.lost.push(...gone);
    return gone.length;
  }

  // The detector's word: it ends what it has missed twice, and begins what is new or back.
  async detect(picture, time) {
    this.detected = this.frame;
    const found = await this.predictor.detector.detect(picture);
    const before = this.tracks;
    for (const track of before) {
      const seen = found.find(({ box }) => overlap(box, track.box) > SAME);
      track.misses = seen ? 0 : track.misses + 1;
      if (seen) track.score = seen.score;
    }
    this.tracks = before.filter(({ misses }) => misses < 2);
    this.forget(before);
    const unknown = found.filter(({ box }) => !this.tracks.some((track) => overlap(box, track.box) > SAME));
    const fresh = [];
    for (const [i, { face, five }] of (await this.predictor.describe(picture, unknown)).entries()) {
      const box = five && boxFromFive(five, this.model.box_side);
      if (!box || [...this.tracks, ...fresh].some((track) => overlap(track.box, box) > SAME)) continue;
      const motion = new Motion(five, box, time, this.model.tracking);
      fresh.push({ face, five, box, roll: rollOfFive(five), score: unknown[i].score, misses: 0, motion });
    }
    this.number(fresh, picture);
    this.tracks = [...this.tracks, ...fresh].sort((a, b) => a.smoother.number - b.smoother.number);
  }

  // The numbers of lost faces for those that are back, the next ones for the others.
  number(fresh, picture) {
    const costs = this.lost.map(({ motion }) => fresh.map((track) => motion.returnCost(track.motion, picture)));
    const back = new Map([...assign(costs)].map(([i, j]) => [fresh[j], this.lost[i]]));
    this.lost = this.lost.filter((track) => ![...back.values()].includes(track));
    for (const track of fresh) {
      const lost = back.get(track);
      const sure = isClear(track.face, this.model.tracking) && this.there(track.face, track.five, track.box, picture);
      if (lost) track.motion.comeBack(lost.motion, sure);
      track.smoother = new FaceSmoother(this.model, lost ? lost.smoother.number : ++this.count);
    }
  }

  // Whether there still is a face: by its quality where the model has one, else by how unsure its points are.
  there({ quality, landmark_sigma: sigma }, five, box, { width, height }) {
    const [x, y] = [0, 1].map((axis) => mean(five.map((point) => point[axis])));
    if (box[2] - box[0] < this.model.tracking.smallest || x < 0 || y < 0 || x >= width || y >= height) return false;
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
    const relative = relativeShares(shares, this.model.spec.priors[name]);
    const label = this.labels[name].show(Object.fromEntries(labels.map((label, k) => [label, relative[k]])), time);
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
