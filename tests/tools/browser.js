// Shows a page to a browser, which receives events by the ways named, and prints what came of each as one JSON object.
//
//   node browser.js BROWSER PORT PROFILE < WAYS      BROWSER is the path of chromium or firefox, WAYS a JSON list for page.js
//
// The page is served at http://127.0.0.1:PORT and, as another origin, at http://localhost:PORT (`"host"` of the first way).
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const [browser, port, profile] = process.argv.slice(2);
const ways = JSON.parse(fs.readFileSync(0, 'utf8'));
const page = '<!doctype html><meta charset="utf-8"><title>page</title><body><script src="/page.js"></script></body>';

const options = browser.includes('firefox')
  ? ['--headless', '--no-remote', '--profile', profile]
  : ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-extensions',
    '--disable-background-networking', '--disable-component-update', `--user-data-dir=${profile}`];

const served = {
  '/': ['text/html; charset=utf-8', () => page],
  '/page.js': ['text/javascript; charset=utf-8', () => fs.readFileSync(path.join(__dirname, 'page.js'))],
  '/ways': ['application/json', () => JSON.stringify(ways)],
};

let child;
const server = http.createServer((request, response) => {
  if (request.method === 'POST') {
    let body = '';
    request.on('data', piece => { body += piece; });
    request.on('end', () => {
      response.end();
      process.stdout.write(`${body}\n`, () => { child.kill('SIGKILL'); process.exit(0); });
    });
    return;
  }
  const [type, write] = served[request.url] ?? [];
  response.writeHead(type ? 200 : 404, { 'content-type': type ?? 'text/plain' });
  response.end(type ? write() : '');
});

server.listen(Number(port), '127.0.0.1', () => {
  const address = `http://${ways[0].host ?? '127.0.0.1'}:${port}/`;
  child = spawn(browser, [...options, address], { stdio: 'ignore' });
  child.on('exit', code => { process.stderr.write(`the browser ended: ${code}\n`); process.exit(1); });
});
process.on('SIGTERM', () => { child?.kill('SIGKILL'); process.exit(1); });
