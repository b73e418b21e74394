// Two ways to the same answer: the network in this browser, or the server's.

// A canvas -> {data, width, height}, to be handed over to the worker.
function pixels(canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
  return { data, width, height };
}

export class BrowserRunner {
  constructor(model) {
    this.worker = new Worker("/static/worker.mjs", { type: "module" });
    this.waiting = new Map();
    this.next = 0;
    this.worker.onmessage = ({ data }) => {
      const { resolve, reject } = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(data);
    };
    this.worker.onerror = (event) => {
      const error = new Error(event.message || "the network's thread could not be started");
      for (const { reject } of this.waiting.values()) reject(error);
      this.waiting.clear();
    };
    this.ready = this.ask({ task: "load", model });
  }

  ask(message, transfer = []) {
    return new Promise((resolve, reject) => {
      const id = this.next++;
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ ...message, id }, transfer);
    });
  }

  async look(message) {
    const { result, milliseconds } = await this.ask(message, [message.picture.data.buffer]);
    return { faces: result, milliseconds };
  }

  photo = (canvas) => this.look({ task: "photo", picture: pixels(canvas) });

  frame = (canvas, time) => this.look({ task: "frame", picture: pixels(canvas), time });

  restart = () => this.ask({ task: "restart" });
}

export class ServerRunner {
  ready = Promise.resolve();

  async send(blob, name) {
    const start = performance.now();
    const form = new FormData();
    form.append("image", blob, name);
    const answer = await fetch("/predict", { method: "POST", body: form });
    const document = await answer.json();
    if (!answer.ok) throw new Error(document.detail);
    return { faces: document.images[0].faces, milliseconds: performance.now() - start };
  }

  photo = async (canvas, name) => this.send(await blobOf(canvas, "image/png"), name);

  frame = async (canvas) => this.send(await blobOf(canvas, "image/jpeg"), "frame.jpg");

  restart = () => Promise.resolve();
}

const blobOf = (canvas, type) =>
  new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture is too large"))), type, 0.92);
  });
