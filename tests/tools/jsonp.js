// Runs scripts as a page would: prints what each gave the page's function, and fails when one did anything else.
//
//     node jsonp.js URL FUNCTION…

const vm = require("vm");

const [url, ...names] = process.argv.slice(2);

async function run(name) {
  const answer = await fetch(`${url}&callback=${encodeURIComponent(name)}`);
  if (!/^application\/javascript\b/.test(answer.headers.get("content-type"))) throw new Error("no script");
  const calls = [];
  const page = {};
  let place = page;
  const parts = name.split(".");
  for (const part of parts.slice(0, -1)) place = place[part] = {};
  place[parts.at(-1)] = (value) => calls.push(value);
  const before = Object.keys(page).sort().join();
  vm.runInNewContext(await answer.text(), page, { timeout: 5000 });
  if (calls.length !== 1 || Object.keys(page).sort().join() !== before) throw new Error(`${calls.length} calls`);
  return calls[0];
}

(async () => {
  for (const name of names) console.log(JSON.stringify(await run(name)));
})();
