// The cascade of facemtl/detect.py (MtcnnDetector), step by step the same, with the same three networks.
import { boxFromFive } from "./geometry.mjs";
import { cut, halve, resizeArea, resizeLinear, roundEven } from "./pixels.mjs";

export class Detector {
  // run(name, tensor data, shape) -> outputs [{data, dims}] of the network; settings: "detector" of /model.json
  constructor(run, settings, boxSide) {
    Object.assign(this, { run, settings, boxSide });
  }

  // picture -> [{box: [x1, y1, x2, y2], score}], surest first
  async detect(picture) {
    const longest = Math.max(picture.width, picture.height);
    let small = picture;
    if (longest > this.settings.max_side) {
      const scale = this.settings.max_side / longest;
      const [width, height] = [picture.width, picture.height].map((side) => Math.max(roundEven(side * scale), 1));
      small = resizeArea(picture, width, height);
    }
    const step = [picture.width / small.width, picture.height / small.height];
    const octaves = octavesOf(small);
    const proposed = await this.propose(octaves);
    const refined = await this.refine(octaves, proposed);
    const found = await this.locate(octaves, refined);
    found.sort((a, b) => b.score - a.score);
    return found.map(({ points, score }) => {
      const moved = points.map((point) => point.map((value, axis) => (value + 0.5) * step[axis] - 0.5));
      return { box: boxFromFive(moved, this.boxSide).map(Math.fround), score };
    });
  }

  async propose(octaves) {
    const { cell, stride, pad, thresholds, max_proposals: most } = this.settings;
    const all = [];
    for (const { level, step } of this.pyramid(octaves)) {
      const [offsets, chances] = await this.run("pnet", lying([level]), [1, level.width, level.height, 3]);
      const [, columns, rows] = chances.dims;
      const cells = [];
      for (let i = 0; i < columns * rows; i++) {
        const score = chances.data[2 * i + 1];
        if (score > thresholds[0]) cells.push({ i, score });
      }
      cells.sort((a, b) => b.score - a.score);
      const windows = cells.slice(0, most).map(({ i, score }) => {
        const place = [Math.floor(i / rows), i % rows];
        const centre = place.map((k, axis) => (k * stride + cell / 2 - pad) * step[axis] - 0.5);
        const half = step.map((value) => (cell / 2) * value);
        const box = [centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]];
        return { box, score, i };
      });
      for (const { box, score, i } of nms(windows, 0.5)) {
        all.push({ box: move(box, offsets.data.subarray(4 * i, 4 * i + 4)), score });
      }
    }
    return nms(all, 0.7);
  }

  *pyramid(octaves) {
    const { cell, pad, factor, finest_scale: finest } = this.settings;
    for (let scale = finest; ; scale *= factor) {
      const width = Math.max(roundEven(octaves[0].width * scale), 1);
      const height = Math.max(roundEven(octaves[0].height * scale), 1);
      if (Math.min(width, height) + 2 * pad < cell) return;
      const index = octaveOf(octaves, 1 / scale);
      const octave = octaves[index];
      const level = resizeLinear(octave, width, height);
      const step = [(octave.width * 2 ** index) / width, (octave.height * 2 ** index) / height];
      yield { level: cut(level, -pad, -pad, width + 2 * pad, height + 2 * pad), step };
    }
  }

  async refine(octaves, boxes) {
    if (!boxes.length) return [];
    const { squares, crops } = cutAll(octaves, boxes, 24);
    const [offsets, chances] = await this.run("rnet", lying(crops), [crops.length, 24, 24, 3]);
    const kept = squares
      .map((box, i) => ({ box, i, score: chances.data[2 * i + 1] }))
      .filter(({ score }) => score > this.settings.thresholds[1]);
    return nms(best(kept), 0.5).map(({ box, i, score }) => ({ box: move(box, offsets.data.subarray(4 * i, 4 * i + 4)), score }));
  }

  async locate(octaves, boxes) {
    if (!boxes.length) return [];
    const { squares, crops } = cutAll(octaves, boxes, 48);
    const [offsets, places, chances] = await this.run("onet", lying(crops), [crops.length, 48, 48, 3]);
    const kept = squares
      .map((square, i) => ({ square, i, score: chances.data[2 * i + 1] }))
      .filter(({ score }) => score > this.settings.thresholds[2])
      .map((face) => ({ ...face, box: move(face.square, offsets.data.subarray(4 * face.i, 4 * face.i + 4)) }));
    return nms(best(kept), 0.7, true).map(({ square, i, score }) => {
      const side = square[2] - square[0];
      const at = places.data.subarray(10 * i, 10 * i + 10);
      const points = [0, 1, 2, 3, 4].map((k) => [square[0] + side * at[k], square[1] + side * at[5 + k]]);
      return { points, score };
    });
  }
}

const best = (boxes) => [...boxes].sort((a, b) => b.score - a.score);

// Greedy non-maximum suppression; see nms in facemtl/detect.py. The order is by descending score.
export function nms(boxes, threshold, ofSmaller = false) {
  let rest = best(boxes);
  const kept = [];
  while (rest.length) {
    const [first, ...others] = rest;
    kept.push(first);
    rest = others.filter(({ box }) => overlap(first.box, box, ofSmaller) <= threshold);
  }
  return kept;
}

// The shared area of two boxes over that of their union, or of the smaller one.
export function overlap(a, b, ofSmaller = false) {
  const width = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
  const height = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const [first, second] = [a, b].map((box) => (box[2] - box[0]) * (box[3] - box[1]));
  const shared = width * height;
  return shared / (ofSmaller ? Math.min(first, second) : first + second - shared);
}

function octavesOf(picture) {
  const octaves = [picture];
  while (Math.min(octaves.at(-1).width, octaves.at(-1).height) >= 24) octaves.push(halve(octaves.at(-1)));
  return octaves;
}

const octaveOf = (octaves, step) => Math.min(Math.floor(Math.log2(Math.max(step, 1))), octaves.length - 1);

function cutAll(octaves, boxes, size) {
  const squares = [];
  const crops = [];
  for (const { box } of boxes) {
    const [x1, y1, x2, y2] = box;
    const long = Math.max(x2 - x1, y2 - y1);
    const index = octaveOf(octaves, long / size);
    const step = 2 ** index;
    const side = Math.max(roundEven(long / step), 1);
    const [x, y] = [[x1, x2], [y1, y2]].map(([low, high]) => roundEven((low + high + 1) / 2 / step - side / 2));
    squares.push([x, y, x + side, y + side].map((value) => value * step - 0.5));
    crops.push(resizeLinear(cut(octaves[index], x, y, side, side), size, size));
  }
  return { squares, crops };
}

const move = (box, offsets) => box.map((value, k) => value + offsets[k] * (box[2] - box[0]));

// Pictures of one size as the networks take them: lying on their side, red green blue, about -1..1.
function lying(pictures) {
  const { width, height } = pictures[0];
  const out = new Float32Array(3 * width * height * pictures.length);
  let to = 0;
  for (const { data } of pictures) {
    for (let x = 0; x < width; x++) {
      for (let y = 0; y < height; y++) {
        const from = 4 * (y * width + x);
        out[to++] = (data[from] - 127.5) / 128;
        out[to++] = (data[from + 1] - 127.5) / 128;
        out[to++] = (data[from + 2] - 127.5) / 128;
      }
    }
  }
  return out;
}
