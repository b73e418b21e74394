"""What the tests of the page run in it: JavaScript functions of one argument."""

# pictures: [[png as base64, boxes or null], ...] -> the faces of each
PREDICT = """async (pictures) => {
  const model = await (await fetch("/model.json")).json();
  const { loadPredictor } = await import("/static/predict.mjs");
  window.predictor ??= await loadPredictor(model);
  const found = [];
  for (const [png, boxes] of pictures) {
    const bytes = Uint8Array.from(atob(png), (c) => c.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none" });
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, bitmap.width, bitmap.height);
    found.push(await window.predictor.predict({ data, width, height }, boxes));
  }
  return found;
}"""

# scenes: for each frame the faces [x, y, side] -> [id, x] of those that are followed, and how often was looked
FOLLOW = """async ([scenes]) => {
  // A predictor that sees faces (x, y, side) where they are: each look gives the face that its crop is nearest to.
  const model = await (await fetch("/model.json")).json();
  const { Follower } = await import("/static/follow.mjs");
  const upright = [[-0.2, -0.2], [0.2, -0.2], [0, 0.02], [-0.17, 0.2], [0.17, 0.2]];
  let scene = [], searches = 0, looks = 0;
  const box = ([x, y, side]) => [x - side / 2, y - side / 2, x + side / 2, y + side / 2];
  const far = (given, [x, y, side]) => Math.hypot((given[0] + given[2]) / 2 - x, (given[1] + given[3]) / 2 - y) / side;
  const predictor = {
    model,
    detector: { detect: async () => (searches++, scene.map((face) => ({ box: box(face), score: 0.9 }))) },
    describe: async (_, found) => {
      looks += found.length;
      return found.map((look) => {
        const [nearest] = [...scene].sort((a, b) => far(look.box, a) - far(look.box, b));
        const there = nearest !== undefined && far(look.box, nearest) < 0.4;
        const [x, y, side] = there ? nearest : [look.box[0] + 30, look.box[1] + 30, 60];
        const five = upright.map(([u, v]) => [x + u * side, y + v * side]);
        const landmarks = Object.fromEntries(model.schemas[model.spec.schema].names.map((name, k) => [name, five[k]]));
        const face = { box: look.box, schema: model.spec.schema, landmarks, attributes: {}, pose: null };
        return { face: { ...face, quality: there ? 0.99 : 0.01, landmark_sigma: null }, five };
      });
    },
  };
  const follower = new Follower(predictor);
  const seen = [];
  for (const [i, faces] of scenes.entries()) {
    scene = faces;
    const found = await follower.follow({ width: 640, height: 480 }, i / 30);
    seen.push(found.map((face) => [face.track_id, Math.round((face.box[0] + face.box[2]) / 2)]));
  }
  return { seen, searches, looks };
}"""

# [boxes, returns], each [[x, y, side, seconds], ...] -> what it costs a face that was in these boxes to be in each of
# the others, in a picture of 640 x 480; null where it cannot be
RETURN = """async ([boxes, returns]) => {
  const { tracking } = await (await fetch("/model.json")).json();
  const { Motion } = await import("/static/motion.mjs");
  const upright = [[-0.2, -0.2], [0.2, -0.2], [0, 0.02], [-0.17, 0.2], [0.17, 0.2]];
  const box = ([x, y, side]) => [x - side / 2, y - side / 2, x + side / 2, y + side / 2];
  const five = ([x, y, side]) => upright.map(([u, v]) => [x + u * side, y + v * side]);
  const start = (at) => new Motion(five(at), box(at), at[3], tracking);
  const motion = start(boxes[0]);
  for (const at of boxes.slice(1)) {
    motion.follow(five(at), box(at), at[3]);
    motion.lookAround({ box: box(at), face: { quality: null } }, [], []);
  }
  const costs = returns.map((at) => motion.returnCost(start(at), { width: 640, height: 480 }));
  return costs.map((cost) => (Number.isFinite(cost) ? cost : null));
}"""

# [box, velocity, found, sure], boxes [x, y, side, seconds] -> the velocity of a face that was lost and is found, and
# where, when and how large it was when it last stood apart
COME_BACK = """async ([box, velocity, found, sure]) => {
  const { tracking } = await (await fetch("/model.json")).json();
  const { Motion } = await import("/static/motion.mjs");
  const start = ([x, y, side, time]) => {
    const box = [x - side / 2, y - side / 2, x + side / 2, y + side / 2];
    return new Motion(Array(5).fill([x, y]), box, time, tracking);
  };
  const [lost, back] = [start(box), start(found)];
  lost.now = lost.alone = { ...lost.alone, velocity };
  back.comeBack(lost, sure);
  return [back.now.velocity, [...back.alone.centre, back.alone.side, back.alone.time]];
}"""

# [face, quality, others, followed], faces [x, y, side, seconds] -> whether each other one disturbs the face, be all of
# them followed or lost
DISTURBED = """async ([face, quality, others, followed]) => {
  const { tracking } = await (await fetch("/model.json")).json();
  const { Motion } = await import("/static/motion.mjs");
  const track = ([x, y, side, time], quality) => {
    const box = [x - side / 2, y - side / 2, x + side / 2, y + side / 2];
    return { box, face: { quality }, motion: new Motion(Array(5).fill([x, y]), box, time, tracking) };
  };
  return others.map((at) => {
    const [seen, other] = [track(face, quality), track(at, null)];
    seen.motion.lookAround(seen, followed ? [other] : [], followed ? [] : [other]);
    return seen.motion.disturbed;
  });
}"""

# A network of one GridSample -> its output
RUN_GRID = """async ([bytes, x, grid]) => {
  const { browser } = await (await fetch("/model.json")).json();
  const ort = await import(browser.script);
  ort.env.wasm.wasmPaths = { wasm: browser.wasm };
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(Uint8Array.from(bytes), { executionProviders: ["wasm"] });
  const { y } = await session.run({
    x: new ort.Tensor("float32", Float32Array.from(x), [1, 2, 5, 6]),
    grid: new ort.Tensor("float32", Float32Array.from(grid), [1, 3, 4, 2]),
  });
  return [...y.data];
}"""

# How many pixels of each chart are drawn
DRAWN = """() => ["shares", "angles"].map((id) => {
  const { width, height } = document.getElementById(id);
  const { data } = document.getElementById(id).getContext("2d").getImageData(0, 0, width, height);
  return data.filter((value, i) => i % 4 === 3 && value > 128).length;
})"""
