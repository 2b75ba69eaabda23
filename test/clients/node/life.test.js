// A container's life by dockerode.
const assert = require('node:assert');
const { PassThrough } = require('node:stream');
const { test, afterEach } = require('node:test');
const Docker = require('dockerode');

const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace('unix://', '') });

afterEach(async () => {
  for (const c of await docker.listContainers({ all: true })) await docker.getContainer(c.Id).remove({ force: true });
});

const started = async (cmd = ['sleep', '1000'], more = {}) => {
  const c = await docker.createContainer({ Image: 'busybox', Cmd: cmd, ...more });
  await c.start();
  return c;
};

const text = async (stream) => {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
};

test('run, with both streams apart', { timeout: 30000 }, async () => {
  const out = new PassThrough(), err = new PassThrough();
  const texts = Promise.all([text(out), text(err)]);
  const [result, c] = await docker.run('busybox', ['sh', '-c', 'echo out; echo err >&2; exit 3'], [out, err], { Tty: false });
  out.end();
  err.end();
  assert.strictEqual(result.StatusCode, 3);
  assert.deepStrictEqual(await texts, ['out\n', 'err\n']);
  await c.remove();
});

test('its states', { timeout: 30000 }, async () => {
  const c = await started();
  const is = async (status) => assert.strictEqual((await c.inspect()).State.Status, status);
  await c.pause();
  await is('paused');
  await assert.rejects(c.pause(), { statusCode: 409 });
  await c.unpause();
  await c.rename({ name: 'renamed' });
  assert.strictEqual((await c.inspect()).Name, '/renamed');
  await c.update({ Memory: 64 << 20, MemorySwap: 64 << 20 });
  assert.strictEqual((await c.inspect()).HostConfig.Memory, 64 << 20);
  assert.strictEqual((await c.stats({ stream: false })).memory_stats.limit, 64 << 20);
  assert.strictEqual((await c.top()).Processes.length, 1);
  await c.stop({ t: 0 });
  await is('exited');
  await assert.rejects(c.stop(), { statusCode: 304 });
  await c.restart({ t: 0 });
  await is('running');
  await c.kill();
  assert.strictEqual((await c.wait()).StatusCode, 137);
  await c.remove();
  await assert.rejects(c.inspect(), { statusCode: 404 });
});

test('exec, attach and a terminal', { timeout: 30000 }, async () => {
  const c = await started();
  const exec = await c.exec({ Cmd: ['cat'], AttachStdin: true, AttachStdout: true });
  const stream = await exec.start({ hijack: true, stdin: true });
  const out = new PassThrough();
  c.modem.demuxStream(stream, out, out);
  stream.end('through cat\n');
  stream.on('end', () => out.end());
  assert.strictEqual(await text(out), 'through cat\n');
  assert.strictEqual((await exec.inspect()).ExitCode, 0);

  const terminal = await docker.createContainer({ Image: 'busybox', Cmd: ['sh'], Tty: true, OpenStdin: true });
  const attached = await terminal.attach({ stream: true, stdin: true, stdout: true, hijack: true });
  await terminal.start();
  await terminal.resize({ h: 33, w: 44 });
  attached.write('stty size; exit\n');
  assert.match(await text(attached), /33 44/);
});

test('files and logs', { timeout: 30000 }, async () => {
  const c = await started(['sh', '-c', 'echo a line; sleep 1000']);
  const tar = await text(await c.getArchive({ path: '/bin/busybox' })).then((t) => t.length);
  assert.ok(tar > 100000);
  let logs = '';
  while (!logs.includes('a line')) logs = (await c.logs({ stdout: true, timestamps: true })).toString();
  assert.ok((await docker.listContainers({ filters: { id: [c.id] } }))[0].Status.startsWith('Up'));
});

test('events', { timeout: 30000 }, async () => {
  const events = await docker.getEvents({ filters: { type: ['container'], event: ['start'] } });
  const c = await started();
  const event = JSON.parse((await events[Symbol.asyncIterator]().next()).value.toString());
  assert.strictEqual(event.Actor.ID, c.id);
  events.destroy();
});
