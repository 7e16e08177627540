// A small client of Relayfile's gRPC API. The messages are loaded from the .proto files when it starts; the channel is
// set as relayfile/service_config.json recommends: calls go round all nodes, and gRPC itself tries reads again.
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import grpc from '@grpc/grpc-js'
import protoLoader from '@grpc/proto-loader'
import protobuf from 'protobufjs'

const ROOT = process.env.RELAYFILE_ROOT ?? fileURLToPath(new URL('../../', import.meta.url))
const CALL_TIMEOUT_MS = 30_000
const SILENCE_MAX_MS = 30_000 // a watch gets a mark at least every 10 s
const RETRY_FIRST_MS = 50
const RETRY_MAX_MS = 5_000
const CHANNEL = {
  'grpc.service_config': readFileSync(`${ROOT}/relayfile/service_config.json`, 'utf8'),
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.max_receive_message_length': 4_259_840,
}

const { relayfile } = grpc.loadPackageDefinition(
  protoLoader.loadSync(
    ['event', 'file', 'ingest', 'workspace'].map((name) => `relayfile/v1/${name}.proto`),
    { includeDirs: [`${ROOT}/proto`], longs: String, enums: String, defaults: true, oneofs: true },
  ),
)

// Details of errors, from google/rpc/status.proto and error_details.proto.
const details = protobuf.parse(`
  syntax = "proto3"; package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
`).root

/** A refusal: `code` of gRPC, `reason` of docs/errors.md, `fields` such as `current` of a REVISION_CONFLICT. */
export class RelayfileError extends Error {
  constructor(error) {
    super(error.details || error.message)
    this.code = error.code
    this.reason = '' // none: it is not a node that refuses, but the connection that failed
    this.fields = {}
    this.retryDelayMs = 0
    for (const { typeUrl, value } of detailsOf(error)) {
      const kind = typeUrl.split('/').pop()
      if (kind === 'google.rpc.ErrorInfo') {
        const info = details.lookupType(kind).decode(value)
        this.reason = info.reason
        this.fields = info.metadata
      } else if (kind === 'google.rpc.RetryInfo') {
        const { retryDelay } = details.lookupType(kind).decode(value)
        this.retryDelayMs = Number(retryDelay.seconds) * 1000 + retryDelay.nanos / 1e6
      }
    }
  }

  /** Whether the same request may be accepted later. For grpc-js a connection that ends in a call is an INTERNAL error. */
  get passes() {
    const { UNAVAILABLE, RESOURCE_EXHAUSTED, INTERNAL, CANCELLED } = grpc.status
    if (!this.reason) return [UNAVAILABLE, INTERNAL, CANCELLED].includes(this.code)
    return [UNAVAILABLE, RESOURCE_EXHAUSTED].includes(this.code) && this.reason !== 'QUOTA_EXCEEDED'
  }
}

function detailsOf(error) {
  const [status] = error.metadata?.get('grpc-status-details-bin') ?? []
  return status ? details.lookupType('google.rpc.Status').decode(status).details : []
}

/** What is done with one workspace. */
export class Workspace {
  constructor({ store, ingest, token, workspaceId }) {
    this.workspaceId = workspaceId
    this.metadata = new grpc.Metadata()
    this.metadata.set('authorization', `Bearer ${token}`)
    const connect = (Service, address) => new Service(address, grpc.credentials.createInsecure(), CHANNEL)
    this.files = connect(relayfile.v1.FileService, store)
    this.events = connect(relayfile.v1.EventService, store)
    this.workspaces = connect(relayfile.v1.WorkspaceService, store)
    this.ingest = connect(relayfile.v1.IngestService, ingest)
    this.resumed = 0 // how often watches went on after a cut
  }

  close() {
    for (const client of [this.files, this.events, this.workspaces, this.ingest]) client.close()
  }

  /** Durable when it returns. The delivery id makes a repeat harmless, so it is tried again like a write. */
  async publish({ provider, deliveryId, changes }) {
    const envelope = { workspaceId: this.workspaceId, provider, deliveryId, changes }
    return this.#repeated(this.ingest, 'PublishEnvelope', { envelope })
  }

  /** Content and metadata; `minRevision` waits until the workspace has it. */
  async read(path, minRevision = '0') {
    const request = { workspaceId: this.workspaceId, path, minRevision }
    const call = this.files.ReadFile(request, this.metadata, { deadline: Date.now() + CALL_TIMEOUT_MS })
    const pieces = []
    let file
    try {
      for await (const message of call) {
        file ??= message.file
        pieces.push(message.data)
      }
    } catch (error) {
      throw new RelayfileError(error)
    }
    return { file, data: Buffer.concat(pieces) }
  }

  /** As `read`; null where there is no file. */
  async find(path) {
    try {
      return await this.read(path)
    } catch (error) {
      if (error.reason === 'FILE_NOT_FOUND') return null
      throw error
    }
  }

  /** `ifRevision`: '0' for a new file, that of the file that was read, or undefined for whatever is there. */
  async write(path, content, ifRevision) {
    const request = { workspaceId: this.workspaceId, path, content: Buffer.from(content), requestId: randomUUID() }
    const condition = ifRevision === undefined ? { force: true } : { ifRevision }
    return this.#repeated(this.files, 'WriteFile', { ...request, ...condition })
  }

  /** Make a file what `change` makes of its content (null: there is none), whoever else edits it meanwhile. */
  async edit(path, change) {
    let conflicts = 0
    for (;;) {
      const found = await this.find(path)
      try {
        await this.write(path, change(found && found.data), found ? found.file.revision : '0')
        return conflicts
      } catch (error) {
        if (error.reason !== 'REVISION_CONFLICT') throw error
        conflicts += 1 // somebody was there first: look again, and change that
      }
    }
  }

  /** Where the log ends now. */
  async present() {
    const { workspace } = await this.#repeated(this.workspaces, 'GetWorkspace', { workspaceId: this.workspaceId })
    return { revision: workspace.revision, historyId: workspace.historyId }
  }

  /**
   * Events after a cursor, each once and in order, for ever. Connections end when they are old, and nodes restart: it
   * goes on behind the last event or mark. CURSOR_EXPIRED says that the log no longer reaches back so far.
   */
  async *watch(cursor) {
    let { revision, historyId } = cursor
    for (let failures = 0; ; failures += 1) {
      const request = { workspaceId: this.workspaceId, afterRevision: revision, historyId }
      const call = this.events.WatchEvents(request, this.metadata)
      let silence
      const heard = () => {
        clearTimeout(silence)
        silence = setTimeout(() => call.cancel(), SILENCE_MAX_MS)
      }
      try {
        heard()
        for await (const message of call) {
          heard()
          failures = 0
          for (const event of message.events) {
            revision = event.revision
            yield event
          }
          if (message.mark) ({ revision, historyId } = message.mark)
        }
      } catch (error) {
        const refusal = new RelayfileError(error)
        if (!refusal.passes) throw refusal
      } finally {
        clearTimeout(silence)
        call.cancel()
      }
      this.resumed += 1
      await sleep(failures ? pauseMs(failures) : 0)
    }
  }

  /** Try again what passes, with the same request, until the deadline: ids in it make a repeat harmless. */
  async #repeated(client, method, request) {
    const deadline = Date.now() + CALL_TIMEOUT_MS
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await new Promise((resolve, reject) => {
          client[method](request, this.metadata, { deadline }, (error, answer) =>
            error ? reject(new RelayfileError(error)) : resolve(answer),
          )
        })
      } catch (error) {
        const pause = Math.max(pauseMs(attempt), error.retryDelayMs ?? 0)
        if (!error.passes || Date.now() + pause > deadline) throw error
        await sleep(pause)
      }
    }
  }
}

function pauseMs(attempt) {
  return Math.random() * Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** attempt)
}
