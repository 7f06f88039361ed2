// Follows a stream with a library or an engine that is not ours and prints every event as a line of JSON.
//
//     stream_client.js eventsource URL [LAST_EVENT_ID]     the npm package; comes back by itself
//     stream_client.js page URL [LAST_EVENT_ID]            runs the scripts of a page as a browser would, in a context of its own

const { createRequire } = require("node:module");
const http = require("node:http");
const path = require("node:path");
const vm = require("node:vm");

const installed = createRequire(path.join(__dirname, "../../target/tools/node/package.json"));
const [how, url, last] = process.argv.slice(2);
const show = (value) => process.stdout.write(JSON.stringify(value) + "\n");

function eventsource() {
  const { EventSource } = installed("eventsource");
  const address = last ? `${url}&last_event_id=${last}` : url;
  const source = new EventSource(address);
  for (const type of ["message", "line", "odd"]) {
    source.addEventListener(type, (event) => show({ seq: event.lastEventId, data: event.data }));
  }
}

function page() {
  const request = http.get(url, { headers: last ? { "last-event-id": last } : {} }, (response) => {
    const nonce = /script-src 'nonce-([0-9a-f]+)'/.exec(response.headers["content-security-policy"])[1];
    const parent = { document: {}, app: { take: (event) => show({ seq: event.seq, form: event }) } };
    const context = vm.createContext({ parent });
    let rest = "";
    response.setEncoding("utf8");
    response.on("data", (chunk) => {
      rest += chunk;
      // As the parser of HTML does: a script ends at the first `</script`, whatever stands before it.
      for (let found; (found = /<script nonce="([0-9a-f]+)">([^]*?)<\/script>/.exec(rest)); ) {
        if (found[1] === nonce) vm.runInContext(found[2], context);
        rest = rest.slice(found.index + found[0].length);
      }
    });
  });
  request.on("error", () => process.exit(1));
}

({ eventsource, page })[how]();
