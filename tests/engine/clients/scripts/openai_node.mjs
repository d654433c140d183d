// OpenAI's package for Node. The settings come from the environment.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(process.env.NODE_FOLDER + "/");
const { default: OpenAI, toFile, NotFoundError, AuthenticationError, APIConnectionTimeoutError } =
  await import(require.resolve("openai").replace(/\.js$/, ".mjs"));

const client = new OpenAI();
const chat = client.chat.completions;
const { MODEL: model, ENDPOINT } = process.env;
const messages = [{ role: "user", content: "hello" }];
const slow = (call) => [{ role: "user", content: `slow ${call}` }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { type: "function", function: { name: "weather", description: "The weather", parameters } };
const audio = Buffer.alloc(2 * 1024 * 1024, "x");

const CALLS = {
  async chat() {
    const answer = await chat.create({ model, messages, max_tokens: 4000 });
    assert.equal(answer.choices[0].message.content, "hello");
    assert.equal((await chat.create({ model: ENDPOINT, messages })).model, model);
  },
  async completions() {
    const answer = await client.completions.create({ model, prompt: "hello", max_tokens: 500 });
    assert.equal(answer.choices[0].text, "hello");
  },
  async stream() {
    const words = [];
    for await (const chunk of await chat.create({ model, messages, stream: true })) {
      words.push(chunk.choices[0].delta.content);
    }
    assert.deepEqual(words, ["hel", "lo"]);
  },
  async tools() {
    const answer = await chat.create({ model, messages, tools: [weather] });
    const asked = answer.choices[0].message.tool_calls[0].function;
    assert.deepEqual([asked.name, asked.arguments], ["weather", '{"city": "Bonn"}']);
  },
  async usage() {
    assert.equal((await chat.create({ model, messages })).usage.total_tokens, 4);
    let last;
    const options = { include_usage: true };
    for await (const chunk of await chat.create({ model, messages, stream: true, stream_options: options })) {
      last = chunk;
    }
    assert.equal(last.usage.total_tokens, 4);
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model, input: "x" });
    assert.deepEqual(answer.data[0].embedding, [0.5, 0.25]);
  },
  async models() {
    assert.deepEqual((await client.models.list()).data.map((one) => one.id), [model]);
    assert.equal((await client.models.retrieve(model)).id, model);
  },
  async "audio in"() {
    const answer = await client.audio.transcriptions.create({ model, file: await toFile(audio, "a.mp3") });
    assert.equal(answer.text, `${audio.length} bytes`);
  },
  async "speech out"() {
    const answer = await client.audio.speech.create({ model, voice: "a", input: "x" });
    assert.equal((await answer.arrayBuffer()).byteLength, 102400);
  },
  async images() {
    assert.equal((await client.images.generate({ model, prompt: "x" })).data[0].b64_json, "aGk=");
  },
  async errors() {
    await assert.rejects(chat.create({ model: "gpt-none", messages }), (fault) => {
      assert(fault instanceof NotFoundError && /does not exist/.test(fault.message), String(fault));
      return true;
    });
    await assert.rejects(new OpenAI({ apiKey: "sk-wrong" }).models.list(), (fault) => {
      assert(fault instanceof AuthenticationError && fault.code === "auth_error", String(fault));
      return true;
    });
  },
  async cancel() {
    const stream = await chat.create({ model, messages: slow("cancel"), stream: true });
    for await (const _ of stream) break;
    stream.controller.abort();
  },
  async timeout() {
    const asked = chat.create({ model, messages: slow("timeout") }, { timeout: 1000, maxRetries: 0 });
    await assert.rejects(asked, APIConnectionTimeoutError);
  },
  async "50 at once"() {
    const answers = await Promise.all(Array.from({ length: 50 }, () => chat.create({ model, messages })));
    assert(answers.every((answer) => answer.choices[0].message.content === "hello"));
  },
};

for (const [call, make] of Object.entries(CALLS)) {
  let error = "";
  try {
    await make();
  } catch (fault) {
    console.error(call, fault);
    error = String(fault).slice(0, 300);
  }
  console.log("CALL " + JSON.stringify({ call, error }));
}
process.exit(0);
