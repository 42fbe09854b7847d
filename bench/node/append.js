// Node's side of bench_append: appends batches to a Hypercore in the directory argv[2].
// A line "BATCHES ENTRIES SIZE" on stdin is answered by the nanoseconds that they took.
const Hypercore = require('hypercore')
const crypto = require('crypto')
const readline = require('readline')

async function main () {
  const core = new Hypercore(process.argv[2])
  await core.ready()
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [batches, entries, size] = line.split(' ').map(Number)
    const blocks = []
    for (let i = 0; i < entries; i++) blocks.push(crypto.randomBytes(size))
    const start = process.hrtime.bigint()
    for (let i = 0; i < batches; i++) await core.append(blocks)
    console.log(String(process.hrtime.bigint() - start))
  }
  await core.close()
}

main().catch((err) => {
  console.error(err)
  process.exit(1)
})
