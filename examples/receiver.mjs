// A receiver in Node: npm install standardwebhooks; HOOKCAST_SECRET=whsec_… node receiver.mjs
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.HOOKCAST_SECRET);
const seen = new Set(); // A real receiver keeps these in its database, in the transaction that does the work.

createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString("utf8"); // The text as it came, never parsed and written again.
  try {
    webhook.verify(body, request.headers, { jsonParse: false }); // Without the option it takes JSON only.
  } catch {
    return response.writeHead(401).end();
  }
  const id = request.headers["webhook-id"];
  if (!seen.has(id)) {
    console.log(id, request.headers["ce-topic"], body);
    seen.add(id);
  }
  response.writeHead(204).end();
}).listen(Number(process.env.PORT ?? 9002), "127.0.0.1");
