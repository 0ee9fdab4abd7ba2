// Two sessions of wampy, each on a URL and in a serializer of its own, do what WAMP clients do.
//
//     wampy_client.js REALM URL SERIALIZER URL SERIALIZER
//
// Prints a line for each thing that worked; the first that does not ends it with an error.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { Wampy } from "wampy";
import { CborSerializer } from "wampy/CborSerializer.js";
import { JsonSerializer } from "wampy/JsonSerializer.js";
import { MsgpackSerializer } from "wampy/MsgpackSerializer.js";
import WebSocket from "ws";

const PATIENCE_MS = 60_000;
const SERIALIZERS = { json: JsonSerializer, msgpack: MsgpackSerializer, cbor: CborSerializer };

async function join(realm, url, name) {
  const serializer = new SERIALIZERS[name]();
  const session = new Wampy(url, { realm, ws: WebSocket, serializer, autoReconnect: false });
  await session.connect();
  return session;
}

// The result of a call, which another node may take a moment to hear of.
async function eventually(call) {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (error.errorUri !== "wamp.error.no_such_procedure") throw error;
    }
    await pause(20);
  }
}

function done(what) {
  console.log(what);
}

async function rpc(caller, callee, uri) {
  await callee.register(`${uri}.add`, ({ argsList }) => ({ argsList: [argsList[0] + argsList[1]] }));
  const { argsList } = await eventually(() => caller.call(`${uri}.add`, [2, 3]));
  assert.deepEqual(argsList, [5]);
  done("called");
  await callee.register(`${uri}.echo`, ({ argsList }) => ({ argsList }));
  const values = [1, -1, 2 ** 40, 1.5, true, null, "grün", [1, [2]], { k: { l: "m" } }];
  const echoed = await eventually(() => caller.call(`${uri}.echo`, values));
  assert.deepEqual(echoed.argsList, values);
  done("echoed values");
  const calls = Array.from({ length: 100 }, (_, k) => caller.call(`${uri}.add`, [k, 1]));
  const sums = await Promise.all(calls);
  assert.deepEqual(sums.map((sum) => sum.argsList[0]), Array.from({ length: 100 }, (_, k) => k + 1));
  done("called 100 times at once");
}

async function progressive(caller, callee, uri) {
  await callee.register(`${uri}.count`, ({ argsList, result_handler }) => {
    for (let k = 0; k < argsList[0]; k += 1) {
      result_handler({ argsList: [k], options: { progress: true } });
    }
    return { argsList: ["done"] };
  });
  const parts = [];
  const options = { progress_callback: ({ argsList }) => parts.push(argsList[0]) };
  const last = await eventually(() => caller.call(`${uri}.count`, [10], options));
  assert.deepEqual(last.argsList, ["done"]);
  assert.deepEqual(parts, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  done("progressive results");
}

async function patterns(caller, callee, uri) {
  const which = ({ details }) => ({ argsList: [details.procedure] });
  await callee.register(`${uri}.pre`, which, { match: "prefix" });
  const { argsList } = await eventually(() => caller.call(`${uri}.pre.fix`));
  assert.deepEqual(argsList, [`${uri}.pre.fix`]);
  await callee.register(`${uri}.wild..card`, which, { match: "wildcard" });
  const wild = await eventually(() => caller.call(`${uri}.wild.x.card`));
  assert.deepEqual(wild.argsList, [`${uri}.wild.x.card`]);
  done("patterns");
}

async function pubsub(publisher, subscriber, uri) {
  const events = [];
  await subscriber.subscribe(`${uri}.topic`, ({ argsList }) => events.push(argsList[0]));
  while (events.length === 0) {
    await publisher.publish(`${uri}.topic`, ["probe"]);
    await pause(20);
  }
  for (let k = 0; k < 100; k += 1) publisher.publish(`${uri}.topic`, [k]);
  const numbers = () => events.filter((event) => event !== "probe");
  while (numbers().length < 100) await pause(20);
  assert.deepEqual(numbers(), Array.from({ length: 100 }, (_, k) => k));
  done("100 events in order");
}

async function main() {
  const [realm, first, one, second, two] = process.argv.slice(2);
  const a = await join(realm, first, one);
  const b = await join(realm, second, two);
  done("joined");
  const uri = `com.wampy.s${a.getSessionId()}`;
  await rpc(a, b, uri);
  await progressive(a, b, uri);
  await patterns(a, b, uri);
  await pubsub(a, b, uri);
  await pubsub(b, a, `${uri}.back`);
  await Promise.all([a.disconnect(), b.disconnect()]);
  done("all done");
}

const late = setTimeout(() => {
  console.error(`not done within ${PATIENCE_MS} ms`);
  process.exit(1);
}, PATIENCE_MS);
await main();
clearTimeout(late);
