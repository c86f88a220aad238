// transformers.js in process: node transformers.mjs PACKAGES MODELS NAME DTYPE
//
// It answers the same requests as worker.py. PACKAGES is the folder that holds node_modules.

import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';

const [packages, models, name, dtype] = process.argv.slice(2);
const {
  AutoProcessor, AutoTokenizer, CLIPTextModelWithProjection, CLIPVisionModelWithProjection, RawImage, env,
} = createRequire(`${packages}/`)('@huggingface/transformers');
env.allowRemoteModels = false;
env.localModelPath = models;

const BATCH = 8;
const options = { dtype, device: 'cpu' };
const tokenizer = await AutoTokenizer.from_pretrained(name);
const processor = await AutoProcessor.from_pretrained(name);
const textModel = await CLIPTextModelWithProjection.from_pretrained(name, options);
const visionModel = await CLIPVisionModelWithProjection.from_pretrained(name, options);

async function embedText(text) {
  const { text_embeds } = await textModel(tokenizer([text], { padding: true, truncation: true }));
  return text_embeds.data;
}

async function embedPhotos(photos) {
  const images = await Promise.all(photos.map((bytes) => RawImage.fromBlob(new Blob([bytes]))));
  const { image_embeds } = await visionModel(await processor(images));
  return image_embeds.data;
}

async function timed(work) {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

async function inTurn(values, work) {
  const answers = [];
  for (const value of values) answers.push(await work(value));
  return answers;
}

async function together(inputs, work, clients, end) {
  const start = performance.now();
  const ms = [];
  let next = 0;
  const client = async () => {
    while (performance.now() < end) {
      const input = inputs[next++ % inputs.length];
      ms.push(await timed(() => work(input)));
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  return { rate: ms.length / ((performance.now() - start) / 1000), ms };
}

const answers = {
  text: ({ texts }) => inTurn(texts, (text) => timed(() => embedText(text))),
  photo: ({ files }) => inTurn(files, async (file) => {
    const bytes = await readFile(file);
    return timed(() => embedPhotos([bytes]));
  }),
  async bulk({ files }) {
    const photos = await Promise.all(files.map((file) => readFile(file)));
    const took = await timed(async () => {
      for (let start = 0; start < photos.length; start += BATCH) await embedPhotos(photos.slice(start, start + BATCH));
    });
    return [took / files.length];
  },
  async clients({ kind, clients, inputs, seconds }) {
    const work = kind === 'text' ? embedText : (bytes) => embedPhotos([bytes]);
    const ready = kind === 'text' ? inputs : await Promise.all(inputs.map((file) => readFile(file)));
    return together(ready, work, clients, performance.now() + seconds * 1000);
  },
  async beside({ texts, files, clients, seconds }) {
    const photos = await Promise.all(files.map((file) => readFile(file)));
    const end = performance.now() + seconds * 1000;
    const [ofTexts, ofPhotos] = await Promise.all([
      together(texts, embedText, 1, end), together(photos, (bytes) => embedPhotos([bytes]), clients, end),
    ]);
    return { ms: ofTexts.ms, photos: ofPhotos.rate };
  },
  memory: () => [process.memoryUsage().rss / 2 ** 20],
  async vectors({ texts, files }) {
    return {
      texts: await inTurn(texts, async (text) => Array.from(await embedText(text))),
      photos: await inTurn(files, async (file) => Array.from(await embedPhotos([await readFile(file)]))),
    };
  },
};

console.log(JSON.stringify('ready'));
for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, ...request } = JSON.parse(line);
  console.log(JSON.stringify(await answers[what](request)));
}
