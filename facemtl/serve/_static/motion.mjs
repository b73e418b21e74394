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
    this.crowded = false;
  }

  // Go on to what was found in a later frame.
  follow(five, box, time) {
    const step = time - this.now.time;
    let { velocity } = this.alone;
    const next = stateOf(five, box, time, velocity);
    if (!this.crowded && step > 0) { // beside another face the points are dragged, and say little about the motion
      const span = Math.min(this.settings.velocity_memory + step, time - this.born); // at first a plain mean
      velocity = this.now.velocity.map((v, k) => v + (step / span) * ((next.centre[k] - this.now.centre[k]) / step - v));
    }
    this.now = { ...next, velocity };
  }

  // Be the face that was lost: with the velocity that brought it from there to here. Unless one is sure of it, it is
  // still half hidden, and its points say nothing against its motion and shape before.
  comeBack(lost, sure) {
    const step = this.now.time - lost.alone.time;
    const velocity = sure ? this.now.centre.map((c, k) => (c - lost.alone.centre[k]) / step) : lost.alone.velocity;
    this.now = { ...this.now, velocity };
    this.alone = sure ? this.now : lost.alone;
  }

  // Note whether its box stands apart from those of the others in this frame.
  lookAround(box, others) {
    this.crowded = others.some((other) => overlap(box, other) > this.settings.crowded);
    if (!this.crowded || this.now.time - this.alone.time > this.settings.alone_memory) this.alone = this.now;
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
