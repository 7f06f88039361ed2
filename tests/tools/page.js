// What a page does to receive events, by every way that browsers have. Each way gets `count` events behind position 0, through
// connections that break, and gives `{seqs, connections}`. No library: this is what people paste.
'use strict';

const stream = (way, query) => `${way.base}/v1/topics/${way.topic}/stream?${new URLSearchParams(query)}`;
const bearer = way => ({ authorization: `Bearer ${way.token}` });

async function ticket(way) {
  if (way.ticket) return way.ticket;
  // Not through what breaks: what is tested is the stream.
  const headers = { ...bearer(way), 'content-type': 'application/json' };
  const answer = await fetch(`${way.relay}/v1/stream-tickets`, { method: 'POST', headers, body: JSON.stringify({ topics: way.topic }) });
  if (!answer.ok) throw new Error(`no ticket: ${answer.status}`);
  return (await answer.json()).ticket;
}

// Cuts text into lines, the last one perhaps unfinished.
function lines(take) {
  let rest = '';
  return text => {
    const whole = (rest + text).split('\n');
    rest = whole.pop();
    for (const line of whole) if (line !== '') take(JSON.parse(line));
  };
}

// Opens again behind the last event until all are there. `open(after, take)` settles when its connection is over.
async function throughCuts(way, open) {
  const seqs = [];
  let connections = 0;
  while (seqs.length < way.count) {
    connections += 1;
    if (connections > 20) throw new Error(`gave up behind ${seqs.length} events`);
    const take = event => seqs.push(Number(event.seq));
    await open(seqs.at(-1) ?? 0, take, () => seqs.length >= way.count).catch(error => { if (way.strict) throw error; });
  }
  return { seqs, connections };
}

const ways = {
  // Goes on by itself, with the header Last-Event-ID.
  eventsource: way => new Promise(async (resolve, reject) => {
    const seqs = [];
    let connections = 0;
    const source = new EventSource(stream(way, { since: 'earliest', ticket: await ticket(way), format: 'sse' }));
    source.onopen = () => { connections += 1; };
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) reject(new Error('closed for good')); };
    source.onmessage = message => {
      seqs.push(Number(message.lastEventId));
      if (seqs.length >= way.count) { source.close(); resolve({ seqs, connections }); }
    };
  }),

  fetch: way => throughCuts(way, async (after, take, isDone) => {
    const stop = new AbortController();
    const answer = await fetch(stream(way, { since: after }), { headers: bearer(way), signal: stop.signal });
    const [reader, text, feed] = [answer.body.getReader(), new TextDecoder(), lines(take)];
    while (!isDone()) {
      const { done, value } = await reader.read();
      if (done) return;
      feed(text.decode(value, { stream: true }));
    }
    stop.abort();
  }),

  xhr: way => throughCuts(way, (after, take, isDone) => new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let seen = 0;
    const feed = lines(take);
    request.open('GET', stream(way, { since: after }));
    request.setRequestHeader('authorization', `Bearer ${way.token}`);
    request.onprogress = () => {
      feed(request.responseText.slice(seen));
      seen = request.responseText.length;
      if (isDone()) { request.abort(); resolve(); }
    };
    request.onerror = () => (seen ? resolve() : reject(new Error('refused')));
    request.onload = resolve;
    request.send();
  })),

  iframe: way => throughCuts(way, async (after, take, isDone) => {
    const address = stream(way, { since: after, format: 'html', ticket: await ticket(way) });
    const frame = document.createElement('iframe');
    await new Promise(resolve => {
      let silence;
      const over = () => { clearTimeout(silence); removeEventListener('message', hear); resolve(); };
      // Nothing tells a page that a frame broke off: a silent one is opened again, which costs no event.
      const wait = () => { clearTimeout(silence); silence = setTimeout(over, 2000); };
      // The frame is of another origin, so it sends messages instead of calling a function of this page.
      const hear = message => {
        if (message.source !== frame.contentWindow || !message.data.hookcast) return;
        take(message.data.hookcast);
        wait();
        if (isDone()) over();
      };
      addEventListener('message', hear);
      wait();
      frame.src = address;
      document.body.append(frame);
    });
    frame.remove();
  }),

  jsonp: way => throughCuts(way, async (after, take) => {
    const query = new URLSearchParams({ after, limit: 100, wait: 5, callback: 'page.take', ticket: await ticket(way) });
    await new Promise((resolve, reject) => {
      globalThis.page = { take: answer => answer.events.forEach(take) };
      const script = document.createElement('script');
      script.onload = resolve;
      script.onerror = () => reject(new Error('refused'));
      script.src = `${way.base}/v1/topics/${way.topic}/events?${query}`;
      document.head.append(script);
    });
  }),

  websocket: way => throughCuts(way, async (after, take, isDone) => {
    const address = stream(way, { since: after, ticket: await ticket(way) }).replace(/^http/, 'ws');
    await new Promise((resolve, reject) => {
      const socket = new WebSocket(address);
      let heard = 0;
      socket.onmessage = message => {
        heard += 1;
        take(JSON.parse(message.data));
        if (isDone()) { socket.close(); resolve(); }
      };
      socket.onclose = () => (heard ? resolve() : reject(new Error('refused')));
    });
  }),
};

async function run() {
  const results = {};
  for (const way of await (await fetch('/ways')).json()) {
    const late = new Promise((_, reject) => setTimeout(() => reject(new Error('too late')), way.patience_ms));
    try {
      results[way.name] = await Promise.race([ways[way.kind](way), late]);
    } catch (error) {
      results[way.name] = { error: String(error.message ?? error) };
    }
  }
  await fetch('/results', { method: 'POST', body: JSON.stringify(results) });
}

run();
