// Picture in, faces out, as facemtl/predictor.py: detect, crop, run the network, refine, put the answers back.
import { averageMirrored, describeFace, imagePoints } from "./decode.mjs";
import { Detector } from "./detect.mjs";
import { applyAffine, boxFromFive, cropMatrix, cropRoll, cropSide, rollOfFive, toFive, warpCrop } from "./geometry.mjs";

// The networks of the document /model.json, in onnxruntime-web; loaded is called with the name of each.
export async function loadPredictor(model, loaded = () => {}) {
  const { networks, script, wasm } = model.browser;
  const ort = await import(script);
  ort.env.wasm.wasmPaths = { wasm };
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  const sessions = {};
  for (const [name, address] of Object.entries(networks)) {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
    sessions[name] = await ort.InferenceSession.create(new Uint8Array(await answer.arrayBuffer()), {
      executionProviders: ["wasm"],
    });
    loaded(name);
  }
  async function run(name, data, shape, locate = false) {
    const session = sessions[name];
    const tensor = new ort.Tensor(data instanceof Uint8Array ? "uint8" : "float32", data, shape);
    const inputs = { [session.inputNames[0]]: tensor };
    if (session.inputNames.includes("locate")) inputs.locate = new ort.Tensor("bool", [locate], []);
    const outputs = await session.run(inputs);
    return name === "face" ? outputs : session.outputNames.map((output) => outputs[output]);
  }
  return new Predictor(run, model);
}

export class Predictor {
  // run(name, data, shape, locate): the outputs of a network; by their names for "face", in their order for the detector's
  constructor(run, model) {
    this.run = run;
    this.model = model;
    this.detector = new Detector(run, model.browser.detector, model.box_side);
  }

  // The faces of a picture {data, width, height}, as Face.to_dict; for each of `boxes`, or else where there are any.
  async predict(picture, boxes = null) {
    const found = boxes ? boxes.map((box) => ({ box, score: 1 })) : await this.detector.detect(picture);
    return (await this.describe(picture, found)).map(({ face }) => face);
  }

  // found: [{box, score, roll}] -> [{face, five}]. A roll means that box and roll are those of older points, as a later
  // pass has them: one pass is then enough.
  async describe(picture, found) {
    if (!found.length) return [];
    const { spec, schemas } = this.model;
    const { input_size: size, crop_scale: scale } = spec;
    const older = found.every(({ roll }) => roll !== undefined);
    const passes = older ? 1 : spec.passes;
    const locator = passes > 1 ? spec.locator : null;
    const first = locator ? locator.crop_scale : scale;
    let matrices = found.map(({ box, roll }) => cropMatrix(box, size, first, spec.passes > 1 ? roll : 0));
    for (let pass = 1; pass < passes; pass++) {
      const { landmarks } = await this.read(picture, matrices, { locate: pass === 1 && locator !== null });
      matrices = matrices.map((matrix, i) => {
        const five = toFive(imagePoints(landmarks[i], matrix, size), schemas[spec.schema].five);
        return this.through(five) ?? matrix;
      });
    }
    const laid = await this.laid(picture, found, matrices);
    if (passes === 1) return laid;
    for (const [i, { face }] of laid.entries()) {
      if (face.quality === null || face.quality >= this.model.doubted) continue;
      // Hardly a face: the first passes may have been lost.
      const [upright, ...turned] = await this.fromAllSides(picture, found[i]);
      const surer = (best, look) => (look.face.quality > best.face.quality ? look : best);
      const best = [laid[i], upright, ...turned].reduce(surer);
      // Where no side shows a face, it is taken to stand upright, as most do.
      laid[i] = best.face.quality >= this.model.doubted ? best : upright;
    }
    return laid;
  }

  // What the network itself finds in the box as it is, lying on either side, and upside down.
  fromAllSides(picture, found) {
    const { input_size: size, crop_scale: scale } = this.model.spec;
    const quarters = [0, 1, 2, 3];
    const crops = quarters.map((quarter) => cropMatrix(found.box, size, scale, (quarter * Math.PI) / 2));
    return this.laid(picture, quarters.map(() => found), crops);
  }

  // [{face, five}] of these crops; from a better one where the points say that theirs was off.
  async laid(picture, found, matrices) {
    const looked = await this.look(picture, found, matrices);
    if (this.model.spec.passes === 1) return looked;
    const better = looked.map(({ five }, i) => {
      const through = five && this.through(five);
      return through && this.wasOff(matrices[i], through) ? through : null;
    });
    const off = found.filter((_, i) => better[i]);
    const repeated = off.length ? await this.look(picture, off, better.filter(Boolean)) : [];
    return looked.map((look, i) => (better[i] ? repeated.shift() : look));
  }

  // The crop upright around five points; null where they are no face (all in one place).
  through(five) {
    const { input_size: size, crop_scale: scale } = this.model.spec;
    const box = boxFromFive(five, this.model.box_side);
    return box ? cropMatrix(box, size, scale, rollOfFive(five)) : null;
  }

  // Whether the middles of two crops, or their sides, are far apart.
  wasOff(matrix, better) {
    const { spec, crop_off: off, crop_resized: resized } = this.model;
    const size = spec.input_size;
    const side = cropSide(matrix, size);
    const [x, y] = applyAffine(matrix, [(size - 1) / 2, (size - 1) / 2]);
    const [betterX, betterY] = applyAffine(better, [(size - 1) / 2, (size - 1) / 2]);
    const turn = Math.abs(cropRoll(better) - cropRoll(matrix));
    const turned = Math.min(turn, 2 * Math.PI - turn) / 2;
    const grown = Math.abs(Math.log(cropSide(better, size) / side));
    return Math.hypot(betterX - x, betterY - y) > off * side || Math.max(grown, turned) > resized;
  }

  // [{face, five}] of these crops, in a single pass.
  async look(picture, found, matrices) {
    const { spec, schemas } = this.model;
    const outputs = await this.read(picture, matrices, { flip: spec.flip });
    return found.map(({ box, score }, i) => {
      const row = Object.fromEntries(Object.entries(outputs).map(([name, rows]) => [name, rows[i]]));
      const face = describeFace(box, score, row, matrices[i], this.model);
      const points = row.landmarks && imagePoints(row.landmarks, matrices[i], spec.input_size);
      return { face, five: points ? toFive(points, schemas[spec.schema].five) : null };
    });
  }

  // Name -> an array of numbers a crop: the network's, or its locator's, which knows nothing but the main points.
  async read(picture, matrices, { flip = false, locate = false } = {}) {
    const { channels, input_size: size } = this.model.spec;
    const crops = matrices.map((matrix) => planes(warpCrop(picture, matrix, size), channels));
    if (flip) crops.push(...crops.map((crop) => mirrored(crop, size)));
    const data = new Uint8Array(crops.length * channels * size * size);
    crops.forEach((crop, i) => data.set(crop, i * crop.length));
    const outputs = await this.run("face", data, [crops.length, channels, size, size], locate);
    const rows = {};
    for (const [name, { data: values, dims }] of Object.entries(outputs)) {
      const width = values.length / dims[0];
      rows[name] = crops.map((_, i) => Array.from(values.subarray(i * width, (i + 1) * width)));
      if (!rows[name].flat().every((value) => Math.abs(value) < 1e6)) {
        throw new Error(`${this.model.spec.name} is damaged: its ${name} are not finite, or far too large`);
      }
    }
    return flip ? averageMirrored(rows, this.model) : rows;
  }
}

// A crop as the network takes it: planes of blue, green, red; or one of grey, weighed as OpenCV weighs.
function planes({ data, width, height }, channels) {
  const count = width * height;
  const out = new Uint8Array(channels * count);
  for (let i = 0; i < count; i++) {
    const [red, green, blue] = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
    if (channels === 1) {
      out[i] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
    } else {
      out[i] = blue;
      out[count + i] = green;
      out[2 * count + i] = red;
    }
  }
  return out;
}

function mirrored(crop, size) {
  const out = new Uint8Array(crop.length);
  for (let i = 0; i < crop.length; i++) out[i] = crop[i - (i % size) + size - 1 - (i % size)];
  return out;
}
