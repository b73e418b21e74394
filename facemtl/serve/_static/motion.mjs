// How a face moved, and whether one that appears is one that was lost: the rule of facemtl/identity.py (State, Track),
// whose names and formulas these are. `settings` are "tracking" of /model.json.
import { overlap } from "./detect.mjs";
import { mean } from "./geometry.mjs";

export class Motion {
  // five points, the box around them, seconds
  constructor(five, box, time, settings) {
    this.settings = settings;
    this.born = time;
    this.now = this.alone = stateOf(five, box, time, [0, 0]); // alone: when it last stood apart from all others
    this.disturbed = false;
  }

  // Go on to what was found in a later frame.
  follow(five, box, time) {
    const step = time - this.now.time;
    let { velocity } = this.alone;
    const next = stateOf(five, box, time, velocity);
    if (!this.disturbed && step > 0) { // the points of a disturbed face are dragged, and say little about the motion
      const span = Math.min(this.settings.velocity_memory + step, time - this.born); // at first a plain mean
      velocity = this.now.velocity.map((v, k) => v + (step / span) * ((next.centre[k] - this.now.centre[k]) / step - v));
    }
    this.now = { ...next, velocity };
  }

  // Be the face that was lost: with the velocity that brought it from there to here. Unless one is sure of it, it is
  // still half hidden, and its points say nothing against its motion before. What size and shape it has they say once it
  // stands apart.
  comeBack(lost, sure) {
    const { time, side, shape } = lost.alone;
    const step = this.now.time - time;
    const velocity = sure ? this.now.centre.map((c, k) => (c - lost.alone.centre[k]) / step) : lost.alone.velocity;
    this.now = { ...this.now, velocity };
    this.alone = sure ? { ...this.now, side, shape } : lost.alone;
  }

  // Note whether it stands apart in this frame: its box overlaps no other, and it is not partly covered by another face,
  // be that one followed or lost. For who is behind somebody still covers those that are farther away.
  lookAround({ box, face }, others, lost) {
    const { crowded, alone_memory: memory } = this.settings;
    const covered = !isClear(face, this.settings) && [...others, ...lost].some(({ motion }) => this.isNear(motion));
    this.disturbed = covered || others.some((other) => overlap(box, other.box) > crowded);
    if (!this.disturbed || this.now.time - this.alone.time > memory) this.alone = this.now;
  }

  // Whether another is within a head's reach, if it has moved on as it did when it stood apart.
  isNear({ alone }) {
    const apart = centreAt(alone, this.now.time).map((c, k) => c - this.now.centre[k]);
    return Math.hypot(...apart) < this.settings.near * this.now.side;
  }

  // How far a face is from what its motion, size and shape before the others came let expect, in sides.
  surprise(five, box, time) {
    const found = stateOf(five, box, time, [0, 0]);
    return this.unlike(found, centreAt(this.alone, time));
  }

  // How unlike it a face is that appears while it is lost, in sides; infinite where it cannot be the same: it may come
  // back near where it was last seen, or near where it would be had it moved on, within the picture.
  returnCost({ now: found }, { width, height }) {
    const { reach, reach_speed: speed, stopped, memory } = this.settings;
    const coasted = centreAt(this.alone, found.time).map((c, k) => Math.min(Math.max(c, 0), [width, height][k]));
    const cost = Math.min(this.unlike(found, coasted), this.unlike(found, this.now.centre) + stopped);
    return cost < reach + speed * Math.min(found.time - this.now.time, memory) ? cost : Infinity;
  }

  unlike(found, centre) {
    const { side, shape } = this.alone;
    const distance = Math.hypot(...centre.map((c, k) => c - found.centre[k])) / Math.min(side, found.side);
    const apart = mean(shape.map(([x, y], k) => (x - found.shape[k][0]) ** 2 + (y - found.shape[k][1]) ** 2));
    return distance + Math.abs(Math.log(side / found.side)) + this.settings.shape_weight * Math.sqrt(apart);
  }
}

// Whether all of a face can be seen, as far as its model can tell.
export const isClear = ({ quality }, { clear }) => quality === null || quality >= clear;

// Row -> column, each once, the cheapest pair of finite cost first (facemtl/matching.py).
export function assign(costs) {
  const all = costs.flatMap((row, i) => row.map((cost, j) => ({ cost, i, j }))).filter(({ cost }) => cost < Infinity);
  const pairs = new Map();
  const taken = new Set();
  for (const { i, j } of all.sort((a, b) => a.cost - b.cost)) {
    if (pairs.has(i) || taken.has(j)) continue;
    pairs.set(i, j);
    taken.add(j);
  }
  return pairs;
}

const centreAt = ({ time, centre, velocity }, now) => centre.map((c, k) => c + velocity[k] * (now - time));

// Where a face was: seconds, pixels, the five points in sides of the box, pixels a second.
function stateOf(five, [x1, y1, x2, y2], time, velocity) {
  const centre = [(x1 + x2) / 2, (y1 + y2) / 2];
  const side = x2 - x1;
  return { time, centre, side, shape: five.map((point) => point.map((c, k) => (c - centre[k]) / side)), velocity };
}
