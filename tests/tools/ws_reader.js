// Reads a WebSocket stream with the npm package `ws`: to COUNT events in all, with the connection cut after CUT of them.
// MODE says how it goes on: `since` puts the position into the address, `message` says it in the subprotocol.
// Prints one JSON object: the seq of every event in their order.
const path = require("path");
const WebSocket = require(path.join(process.env.HOOKCAST_NODE_MODULES, "ws"));

const [base, count, cut, mode] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4]), process.argv[5]];
const seqs = [];
let pings = 0;

function read(query, resume, enough, then) {
  const socket = new WebSocket(`${base}?${query}`, resume === null ? [] : ["hookcast.v1"]);
  let waiting = resume !== null;
  socket.on("open", () => {
    if (waiting) socket.send(JSON.stringify({ resume: String(resume) }));
  });
  socket.on("ping", () => (pings += 1));
  socket.on("message", (data, isBinary) => {
    if (isBinary) throw new Error("an event is text");
    const event = JSON.parse(data.toString());
    if (event.type === "hookcast.resumed") waiting = false;
    else if (!waiting && seqs.length < enough) seqs.push(Number(event.seq));
    if (seqs.length >= enough && then) {
      const next = then;
      then = null;
      next(socket);
    }
  });
  socket.on("error", (error) => {
    console.error(String(error));
    process.exit(1);
  });
}

read("since=earliest", null, cut, (socket) => {
  socket.terminate();
  const last = seqs[seqs.length - 1];
  const [query, resume] = mode === "since" ? [`since=${last}`, null] : ["since=latest", last];
  read(query, resume, count, (second) => {
    second.on("close", (code) => {
      console.log(JSON.stringify({ seqs, pings, code }));
      process.exit(0);
    });
    second.close(1000);
  });
});
