// From what the network gives for a crop to a face as Face.to_dict gives it: facemtl/decode.py and facemtl/face.py.
import { applyAffine, boxFromFive, cropRoll, cropSide, mean, pointToCrop, toFive } from "./geometry.mjs";

const SIGMA = "landmark_sigma";
const ANGLES = "angles";

// outputs: name -> array of one number array a crop. The last half are of the mirrored crops, in the same order.
export function averageMirrored(outputs, model) {
  const averaged = {};
  for (const [name, rows] of Object.entries(outputs)) {
    const count = rows.length / 2;
    averaged[name] = rows.slice(0, count).map((row, i) => {
      const other = unmirrored(name, rows[count + i], model);
      return row.map((v, k) => (name === SIGMA ? Math.sqrt((v ** 2 + other[k] ** 2) / 2) : (v + other[k]) / 2));
    });
  }
  return averaged;
}

function unmirrored(name, row, model) {
  const schema = schemaOf(name, model);
  if (schema) return schema.flip_order.flatMap((k) => [-row[2 * k], row[2 * k + 1]]);
  if (name === SIGMA) return model.schemas[model.spec.schema].flip_order.map((k) => row[k]);
  if (name === ANGLES) return [-row[0], row[1], -row[2]];
  return name === "pose" ? [...row].reverse() : row;
}

// The schema of a task's points; undefined for a task of another kind, or points that the page does not show.
function schemaOf(task, model) {
  if (task === "landmarks") return model.schemas[model.spec.schema];
  return task === model.points_task ? model.schemas[model.schema] : undefined;
}

// A row of network coordinates [x0, y0, x1, ...] -> [[x, y], ...] in image pixels.
export function imagePoints(row, matrix, size) {
  const points = [];
  for (let k = 0; k < row.length; k += 2) {
    points.push(applyAffine(matrix, pointToCrop([row[k], row[k + 1]], size)).map(Math.fround));
  }
  return points;
}

// One face: its box and score, the row of each output, and the matrix of its crop.
export function describeFace(box, score, row, matrix, model) {
  const { spec } = model;
  const schema = model.schemas[model.schema];
  const points = model.points_task ? imagePoints(row[model.points_task], matrix, spec.input_size) : [];
  const sigma = row[SIGMA]?.map((value) => value * spec.sigma_scale * cropSide(matrix, spec.input_size));
  const attributes = {};
  for (const task of model.tasks) {
    if (spec.attributes[task]) attributes[task] = attribute(task, row[task], spec);
  }
  return {
    box: box.map((value) => rounded(value, 3)),
    score: rounded(score, 6),
    schema: model.schema,
    landmarks: Object.fromEntries(points.map((point, k) => [schema.names[k], point.map((v) => rounded(v, 3))])),
    landmark_sigma: sigma && model.schema === spec.schema ? sigma.map((value) => rounded(value, 4)) : null,
    attributes,
    pose: row[ANGLES] && model.tasks.includes(ANGLES) ? pose(row[ANGLES], matrix) : null,
    quality: sigma && model.quality ? quality(row.landmarks, sigma, matrix, model) : null,
    track_id: null,
  };
}

function attribute(task, logits, spec) {
  const labels = spec.attributes[task];
  const offsets = spec.offsets[task] ?? labels.map(() => 0);
  const shares = softmax(logits.map((value, k) => value + offsets[k]), spec.temperatures[task] ?? 1);
  const relative = relativeShares(shares, spec.priors[task]);
  const best = relative.indexOf(Math.max(...relative));
  return {
    label: labels[best],
    confidence: rounded(shares[best], 6),
    probabilities: Object.fromEntries(labels.map((label, k) => [label, rounded(shares[k], 6)])),
    certain: shares[best] >= (spec.thresholds[task] ?? 0),
  };
}

// Probabilities had all classes been equally common: a label is the greatest of these.
export function relativeShares(shares, prior) {
  if (!prior) return shares;
  const relative = shares.map((share, k) => share / prior[k]);
  const total = relative.reduce((sum, value) => sum + value, 0);
  return relative.map((value) => value / total);
}

function softmax(logits, temperature) {
  const largest = Math.max(...logits);
  const powers = logits.map((value) => Math.exp((value - largest) / temperature));
  const total = powers.reduce((sum, value) => sum + value, 0);
  return powers.map((value) => value / total);
}

// The head in its crop -> in the image, where the crop's own roll comes on top.
function pose([yaw, pitch, roll], matrix) {
  const turned = roll + (cropRoll(matrix) * 180) / Math.PI;
  const wrapped = turned - 360 * Math.round(turned / 360);
  return { yaw: rounded(yaw, 3), pitch: rounded(pitch, 3), roll: rounded(wrapped, 3) };
}

function quality(mainRow, sigma, matrix, model) {
  const five = toFive(imagePoints(mainRow, matrix, model.spec.input_size), model.schemas[model.spec.schema].five);
  const box = boxFromFive(five, model.box_side);
  if (!box) return 0;
  const [slope, limit] = model.quality;
  const odds = slope * Math.log(limit / Math.max(mean(sigma) / (box[2] - box[0]), 1e-9));
  return rounded(1 / (1 + Math.exp(-odds)), 6);
}

const rounded = (value, digits) => Number(value.toFixed(digits));
