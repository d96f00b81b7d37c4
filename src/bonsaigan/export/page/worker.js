// Draws beside the page, so that the page never waits: latent vectors in, pixels out.

let session, facts;

self.onmessage = async ({ data: { id, load, latents } }) => {
  try {
    const result = load ? await start(load) : await draw(latents);
    self.postMessage({ id, ...result }, result.pixels ? [result.pixels.buffer] : []);
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};

async function start(given) {
  facts = given;
  const [script, wasm, model] = await Promise.all(
    [facts.runtime.script, facts.runtime.wasm, { url: "generator.onnx" }].map(fetched));
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = 1; // more need headers that static hosts do not send
  session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
  facts.Tensor = ort.Tensor;
  return {};
}

// latents: Float32Array (count * latent) → pixels: RGBA, count * height * width * 4.
async function draw(latents) {
  const began = performance.now();
  const count = latents.length / facts.latent;
  const latent = new facts.Tensor("float32", latents, [count, facts.latent]);
  const { picture } = await session.run({ latent });
  const values = picture.data, plane = facts.width * facts.height, { channels } = facts;
  const pixels = new Uint8ClampedArray(count * plane * 4);
  for (let n = 0, to = 0; n < count; n++) {
    const from = n * channels * plane;
    for (let i = from; i < from + plane; i++, to += 4) {
      for (let c = 0; c < 3; c++) pixels[to + c] = level(values[i + (channels === 1 ? 0 : c) * plane]);
      pixels[to + 3] = channels === 4 ? level(values[i + 3 * plane]) : 255;
    }
  }
  return { pixels, milliseconds: (performance.now() - began) / count };
}

// [-1, 1] to a grey level; the array rounds it.
const level = (value) => (value + 1) * 127.5;

async function fetched({ url, integrity }) {
  const answer = await fetch(url, { referrerPolicy: "no-referrer", ...(integrity && { integrity }) }).catch(() => null);
  if (!answer?.ok) throw new Error(`${url} could not be fetched, or is not what it should be`);
  return answer.arrayBuffer();
}
