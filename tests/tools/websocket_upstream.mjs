// Replays recordings over WebSocket with the library `ws`, just as websocket_upstream.py does with another one.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [, , modules, folder] = process.argv;
const { WebSocketServer } = createRequire(modules + "/")("ws");
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: true });
server.on("listening", () => console.log(server.address().port));

server.on("connection", (connection, request) => {
  const url = new URL(request.url, "http://upstream");
  const lines = readFileSync(`${folder}${url.pathname}.txt`, "utf8").split("\n");
  const wanted = lines.filter((line) => line.startsWith("> ")).map((line) => line.slice(2));
  const messages = lines.filter((line) => line.startsWith("< ")).map((line) => line.slice(2));
  const play = (start) => messages.slice(start).forEach((message) => connection.send(message));
  const behind = (cursor) => messages.findIndex((message) => String(JSON.parse(message).time_us) === String(cursor));
  connection.on("error", () => {});

  if (url.pathname === "/jetstream") {
    if (!url.searchParams.has("said")) return play(url.searchParams.has("cursor") ? behind(url.searchParams.get("cursor")) : 0);
    return connection.once("message", (data) => play("cursor" in JSON.parse(data) ? behind(JSON.parse(data).cursor) : 0));
  }
  let heard = 0;
  if (wanted.length === 0) play(0);
  connection.on("message", (data) => {
    if (data.toString() !== wanted[heard]) return connection.close(1008, "that is not what was to be said");
    heard += 1;
    if (heard === wanted.length) play(0);
  });
});
