// STORE=host:port INGEST=host:port TOKEN=... node example.mjs WORKSPACE
// Publishes what happened at a provider, watches it become a file, reads it, and edits a file together with others.
import { setTimeout as sleep } from 'node:timers/promises'

import { Workspace } from './relayfile.mjs'

const { STORE, INGEST, TOKEN, NOTES = '5' } = process.env
const [workspaceId] = process.argv.slice(2)
if (!workspaceId || !STORE || !INGEST || !TOKEN) {
  console.error('usage: STORE=host:port INGEST=host:port TOKEN=... node example.mjs WORKSPACE')
  process.exit(2)
}
const workspace = new Workspace({ store: STORE, ingest: INGEST, token: TOKEN, workspaceId })

async function untilEvent(events, path) {
  for (;;) {
    const { value: event } = await events.next()
    if (event.path === path) return event
  }
}

const start = await workspace.present()
const events = workspace.watch(start)

// A service tells of an issue; the watch tells when it is a file.
const path = '/tickets/issues/1.json'
await workspace.publish({
  provider: 'tickets',
  deliveryId: `example-${start.revision}`,
  changes: [
    {
      kind: 'CHANGE_KIND_UPSERT',
      path,
      providerObjectId: 'issue/1',
      content: Buffer.from(JSON.stringify({ title: 'A door squeaks', reported: new Date() })),
      contentType: 'application/json',
    },
  ],
})
const created = await untilEvent(events, path)
const { file, data } = await workspace.read(path, created.revision)
console.log(`${path} at revision ${file.revision}: ${JSON.parse(data).title}`)

// Three agents add a line to one file at the same time. Each reads, adds, and writes at the revision that it read; who
// meets a REVISION_CONFLICT reads again.
const shared = '/notes/shared.txt'
const lines = (data) => (data ? data.toString().split('\n').length - 1 : 0)
const before = lines((await workspace.find(shared))?.data)
const conflicts = await Promise.all(
  ['ada', 'bob', 'eve'].map((agent) => workspace.edit(shared, (data) => `${data ?? ''}${agent} was here, ${Date.now()}\n`)),
)
const after = lines((await workspace.read(shared)).data)
console.log(`added ${after - before} lines, with ${conflicts.reduce((sum, each) => sum + each)} conflicts`)

// A stale revision is refused, and the refusal says what is there.
await workspace.write(shared, 'mine', '0').catch((error) => {
  console.log(`${error.reason}: expected ${error.fields.expected}, current ${error.fields.current}`)
})

// Every note is seen once and in order, over every end of a connection.
const seen = []
for (let number = 1; number <= Number(NOTES); number += 1) {
  await workspace.write(`/notes/${number}.md`, `note ${number} ${Date.now()}`)
  const event = await untilEvent(events, `/notes/${number}.md`)
  seen.push(BigInt(event.revision))
  await sleep(20)
}
const ordered = seen.every((revision, index) => index === 0 || revision > seen[index - 1])
console.log(`saw ${seen.length} notes ${ordered ? 'in order' : 'out of order'}, resumed ${workspace.resumed} times`)

await events.return()
workspace.close()
