// The network in a thread of its own, so that the page stays smooth. One message in, one message out.
import { Follower } from "./follow.mjs";
import { loadPredictor } from "./predict.mjs";

let predictor = null;
let follower = null;

const tasks = {
  async load({ model }) {
    predictor = await loadPredictor(model);
    follower = new Follower(predictor);
  },
  restart() {
    follower = new Follower(predictor);
  },
  photo: ({ picture }) => predictor.predict(picture),
  frame: ({ picture, time }) => follower.follow(picture, time),
};

self.onmessage = async ({ data }) => {
  try {
    const start = performance.now();
    const result = await tasks[data.task](data);
    self.postMessage({ id: data.id, result, milliseconds: performance.now() - start });
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
};
