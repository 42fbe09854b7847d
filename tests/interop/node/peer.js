// A Hypercore peer over TCP, made of the packages alone, for the interop tests.
//
//   node peer.js STORAGE
//
// Reads one JSON object a line: {"id": N, "do": NAME, ...}; answers each with {"id": N, ...} or
// {"id": N, "error": TEXT}, in whatever order they are done, and tells events as {"event": NAME, ...}.
// All cores are replicated over every connection.  The packages are taken from $HW_NODE_MODULES.
import net from 'node:net'
import path from 'node:path'
import readline from 'node:readline'
import { createRequire } from 'node:module'

const from = createRequire(path.join(process.env.HW_NODE_MODULES, 'node_modules', 'x.js'))
const Hypercore = from('hypercore')
const SecretStream = from('@hyperswarm/secret-stream')
const sodium = from('sodium-universal')

const storage = process.argv[2]
const cores = new Map() // name: { core, range }
const connections = new Set() // { socket, stream, initiator }
let server = null

function tell (object) {
  process.stdout.write(JSON.stringify(object) + '\n')
}

function hash (bytes) {
  const out = Buffer.alloc(32)
  sodium.crypto_generichash(out, bytes)
  return out.toString('hex')
}

// Block `index` of a core made here: its content follows from name, index and size.
function block (name, index, size) {
  const out = Buffer.alloc(size)
  const seed = Buffer.alloc(32)
  sodium.crypto_generichash(seed, Buffer.from(`${name} ${index}`))
  sodium.randombytes_buf_deterministic(out, seed)
  return out
}

function find (name) {
  const found = cores.get(name)
  if (found === undefined) throw new Error(`no core '${name}'`)
  return found
}

function attach (socket, initiator) {
  const stream = new SecretStream(initiator, socket)
  const connection = { socket, stream }
  connections.add(connection)
  socket.setNoDelay(true)
  stream.on('error', (error) => tell({ event: 'stream-error', message: error.message }))
  stream.on('close', () => {
    connections.delete(connection)
    tell({ event: 'disconnected' })
  })
  for (const { core } of cores.values()) core.replicate(stream, { keepAlive: true })
  return connection
}

async function add (name, core, all) {
  await core.ready()
  const entry = { core, range: null, bytes: 0, blocks: 0 }
  core.on('append', () => tell({ event: 'append', name, length: core.length, fork: core.fork }))
  core.on('truncate', (length, fork) => tell({ event: 'truncate', name, length, fork }))
  core.on('verification-error', (error) =>
    tell({ event: 'verification-error', name, message: error.message }))
  core.on('conflict', () => tell({ event: 'conflict', name }))
  core.on('download', (index, bytes) => {
    entry.blocks++
    entry.bytes += bytes
  })
  if (all) entry.range = core.download({ start: 0, end: -1 })
  cores.set(name, entry)
  for (const { stream } of connections) core.replicate(stream, { keepAlive: true })
  return stat({ name })
}

function stat ({ name }) {
  const { core, blocks, bytes } = find(name)
  return {
    key: core.key.toString('hex'),
    length: core.length,
    byteLength: core.byteLength,
    contiguous: core.contiguousLength,
    fork: core.fork,
    peers: core.peers.length,
    connections: connections.size,
    downloaded: blocks,
    downloadedBytes: bytes
  }
}

const commands = {
  // A core of our own, with `count` blocks of `size` bytes; `compat`: its key is the signer's.
  async make ({ name, compat = false }) {
    return add(name, new Hypercore(path.join(storage, name), null, { compat }), false)
  },
  // A core of somebody else: all of it, or (`sparse`) what is asked for.
  async open ({ name, key, sparse = false }) {
    return add(name, new Hypercore(path.join(storage, name), Buffer.from(key, 'hex')), !sparse)
  },
  async append ({ name, count = 1, size = 100 }) {
    const { core } = find(name)
    const list = []
    for (let i = 0; i < count; i++) list.push(block(name, core.length + i, size))
    await core.append(list)
    return { length: core.length }
  },
  async clear ({ name, start, end }) {
    await find(name).core.clear(start, end)
    return {}
  },
  async truncate ({ name, length }) {
    const { core } = find(name)
    await core.truncate(length)
    return { length: core.length, fork: core.fork }
  },
  async get ({ name, index, timeout = 20000 }) {
    const value = await find(name).core.get(index, { timeout })
    return { bytes: value.length, hash: hash(value) }
  },
  async seek ({ name, offset }) {
    const [index, rest] = await find(name).core.seek(offset, { timeout: 20000 })
    return { index, rest }
  },
  async update ({ name }) {
    await find(name).core.update({ wait: true })
    return stat({ name })
  },
  stat,
  async tree ({ name }) {
    const { core } = find(name)
    return { hash: (await core.treeHash()).toString('hex') }
  },
  // Hash of every block in [start, end) that is here; null for the others.
  async hashes ({ name, start = 0, end }) {
    const { core } = find(name)
    const list = []
    for (let i = start; i < (end ?? core.length); i++) {
      const value = (await core.has(i)) ? await core.get(i, { wait: false }) : null
      list.push(value === null ? null : hash(value))
    }
    return { hashes: list }
  },
  // Answers when the core has all blocks up to `length`.
  async whole ({ name, length }) {
    const { core } = find(name)
    const start = Date.now()
    while (core.length < length || core.contiguousLength < length) {
      if (Date.now() - start > 60000) throw new Error(`only ${core.contiguousLength} of ${length}`)
      await new Promise((resolve) => {
        const timer = setTimeout(go, 20)
        function go () {
          clearTimeout(timer)
          core.off('append', go)
          core.off('download', go)
          resolve()
        }
        core.once('append', go)
        core.once('download', go)
      })
    }
    return stat({ name })
  },
  async listen ({ port = 0 }) {
    server = net.createServer((socket) => attach(socket, false))
    await new Promise((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, '127.0.0.1', resolve)
    })
    return { port: server.address().port }
  },
  async connect ({ port }) {
    const socket = net.connect(port, '127.0.0.1')
    socket.on('error', () => {}) // the stream tells
    await new Promise((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    attach(socket, true)
    return {}
  },
  async drop () { // all connections
    for (const { socket } of connections) socket.destroy()
    return {}
  },
  async quit () {
    if (server !== null) server.close()
    for (const { socket } of connections) socket.destroy()
    for (const { core } of cores.values()) await core.close()
    return { bye: true }
  }
}

async function obey (line) {
  const request = JSON.parse(line)
  try {
    const run = commands[request.do]
    if (run === undefined) throw new Error(`no command '${request.do}'`)
    tell({ id: request.id, ...(await run(request)) })
  } catch (error) {
    tell({ id: request.id, error: error.message })
  }
  if (request.do === 'quit') process.exit(0)
}

readline.createInterface({ input: process.stdin })
  .on('line', (line) => { obey(line) })
  .on('close', () => process.exit(0))
tell({ event: 'ready' })
