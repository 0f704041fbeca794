// Serves Netlify functions on loopback as the platform calls them: a default export from Request to Response,
// at the path and the method of its `config`. Prints its URL.

import { createServer } from "node:http";

const modules = await Promise.all(process.argv.slice(2).map((path) => import(path)));

const server = createServer(async (incoming, outgoing) => {
  const pieces = [];
  for await (const piece of incoming) pieces.push(piece);
  const found = modules.find(
    ({ config }) => config.path === incoming.url && config.method === incoming.method,
  );
  if (found === undefined) return outgoing.writeHead(404).end();
  const request = new Request(`http://${incoming.headers.host}${incoming.url}`, {
    method: incoming.method,
    headers: incoming.headers,
    body: Buffer.concat(pieces),
  });
  const response = await found.default(request, {});
  outgoing.writeHead(response.status, Object.fromEntries(response.headers));
  outgoing.end(Buffer.from(await response.arrayBuffer()));
});

server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
