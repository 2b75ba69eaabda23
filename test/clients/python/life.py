"""A container's whole life by the docker package for Python."""
import io
import os
import tarfile
import tempfile
import unittest

import docker


class Life(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = docker.from_env(timeout=30)

    def tearDown(self):
        for c in self.client.containers.list(all=True):
            c.remove(force=True)

    def run_detached(self, *command, **options):
        return self.client.containers.run("busybox", list(command) or ["sleep", "1000"], detach=True, **options)

    def test_run(self):
        self.assertEqual(self.client.containers.run("busybox", ["echo", "hello"], remove=True), b"hello\n")
        with self.assertRaises(docker.errors.ContainerError) as failed:
            self.client.containers.run("busybox", ["sh", "-c", "echo oops >&2; exit 3"], remove=True)
        self.assertEqual(failed.exception.exit_status, 3)
        self.assertIn(b"oops", failed.exception.stderr)
        with self.assertRaises(docker.errors.NotFound):
            self.client.containers.get("nobody")

    def test_states(self):
        c = self.run_detached(name="states")
        for act, status in ((c.pause, "paused"), (c.unpause, "running"), (c.restart, "running")):
            act(**({"timeout": 0} if act == c.restart else {}))
            c.reload()
            self.assertEqual(c.status, status)
        c.rename("renamed")
        self.assertEqual(self.client.containers.get("renamed").id, c.id)
        c.kill("KILL")
        self.assertEqual(c.wait()["StatusCode"], 137)
        c.start()
        c.stop(timeout=0)
        c.reload()
        self.assertEqual(c.status, "exited")
        self.assertEqual([x.id for x in self.client.containers.list(all=True, filters={"status": "exited"})], [c.id])
        c.remove()
        with self.assertRaises(docker.errors.NotFound):
            c.reload()

    def test_exec(self):
        c = self.run_detached()
        code, (out, err) = c.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
        self.assertEqual((code, out, err), (4, b"out\n", b"err\n"))
        self.assertEqual(c.exec_run(["sh", "-c", "echo $A; pwd; id -u"], environment={"A": "b"}, workdir="/tmp", user="7").output, b"b\n/tmp\n7\n")
        socket = c.exec_run(["cat"], stdin=True, socket=True).output
        socket._sock.sendall(b"through\n")
        self.assertIn(b"through", socket._sock.recv(100))
        socket.close()
        self.assertEqual(b"".join(c.exec_run(["sh", "-c", "echo 1; echo 2"], stream=True).output), b"1\n2\n")

    def test_logs(self):
        c = self.run_detached("sh", "-c", "for i in 1 2 3; do echo line $i; done; until test -e /go; do sleep 0.01; done; rm /go; echo oops >&2")
        while b"line 3" not in c.logs():  # the two streams are two pipes, without an order
            pass
        c.exec_run(["touch", "/go"])
        c.wait()
        self.assertEqual(c.logs(stdout=True, stderr=False), b"line 1\nline 2\nline 3\n")
        self.assertEqual(c.logs(stdout=False, stderr=True), b"oops\n")
        self.assertEqual(c.logs(stderr=False, tail=2), b"line 3\n")  # of both streams, as Docker counts
        self.assertEqual(b"".join(c.logs(stream=True, follow=True, stderr=False)), b"line 1\nline 2\nline 3\n")
        c.start()
        attached = c.attach(stream=True, logs=True)
        c.exec_run(["touch", "/go"])
        self.assertIn(b"line 1", b"".join(attached))

    def test_archive(self):
        c = self.run_detached()
        sent = io.BytesIO()
        with tarfile.open(fileobj=sent, mode="w") as tar:
            member = tarfile.TarInfo("dir/file")
            member.size = 5
            tar.addfile(member, io.BytesIO(b"bytes"))
        self.assertTrue(c.put_archive("/tmp", sent.getvalue()))
        self.assertEqual(c.exec_run(["cat", "/tmp/dir/file"]).output, b"bytes")
        chunks, stat = c.get_archive("/tmp/dir")
        self.assertEqual(stat["name"], "dir")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            self.assertEqual(tar.extractfile("dir/file").read(), b"bytes")
        with self.assertRaises(docker.errors.NotFound):
            c.get_archive("/nowhere")
        self.assertIn({"Path": "/tmp/dir", "Kind": 1}, c.diff())
        with tarfile.open(fileobj=io.BytesIO(b"".join(c.export()))) as tar:
            self.assertIn("tmp/dir/file", tar.getnames())

    def test_limits(self):
        c = self.run_detached(mem_limit="64m", cpu_shares=512, pids_limit=50, restart_policy={"Name": "on-failure", "MaximumRetryCount": 2})
        c.update(mem_limit="32m", memswap_limit="64m", cpu_shares=256, restart_policy={"Name": "no"})
        c.reload()
        host = c.attrs["HostConfig"]
        self.assertEqual((host["Memory"], host["CpuShares"], host["RestartPolicy"]["Name"]), (32 << 20, 256, "no"))
        stats = c.stats(stream=False)
        self.assertEqual(stats["memory_stats"]["limit"], 32 << 20)
        self.assertEqual(stats["pids_stats"]["limit"], 50)
        self.assertGreater(stats["precpu_stats"]["system_cpu_usage"], 0)
        self.assertIn("eth0", stats["networks"])
        first = next(c.stats(decode=True))
        self.assertEqual(first["id"], c.id)
        top = c.top()
        self.assertIn("PID", top["Titles"])
        self.assertEqual(len(top["Processes"]), 1)

    def test_health(self):
        second = 1_000_000_000
        c = self.run_detached(healthcheck={"test": ["CMD-SHELL", "test -e /healthy"], "interval": second // 10, "retries": 1})
        events = self.client.events(decode=True, filters={"container": c.id, "event": "health_status"})
        c.exec_run(["touch", "/healthy"])
        self.assertIn("health_status", next(e for e in events if "healthy" in e["Action"])["Action"])
        events.close()

    def test_networks(self):
        pool = docker.types.IPAMPool(subnet="10.99.41.0/24", gateway="10.99.41.1")
        made = self.client.networks.create("pythons", driver="bridge", check_duplicate=True, ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"a": "b"})
        try:
            with self.assertRaises(docker.errors.APIError) as failed:
                self.client.networks.create("pythons")
            self.assertEqual(failed.exception.status_code, 409)
            self.assertEqual([n.id for n in self.client.networks.list(names=["pythons"])], [made.id])
            self.assertEqual([n.id for n in self.client.networks.list(filters={"label": "a=b"}, greedy=True)], [made.id])
            c = self.run_detached(name="snake", network="pythons")
            c.reload()
            self.assertEqual(list(c.attrs["NetworkSettings"]["Networks"]), ["pythons"])
            other = self.run_detached(name="other")
            made.connect(other, aliases=["friend"], ipv4_address="10.99.41.9")
            other.reload()
            place = other.attrs["NetworkSettings"]["Networks"]["pythons"]
            self.assertEqual((place["IPAddress"], place["IPPrefixLen"], place["Aliases"][0], place["NetworkID"]), ("10.99.41.9", 24, "friend", made.id))
            made.reload()
            self.assertEqual({x.name for x in made.containers}, {"snake", "other"})
            with self.assertRaises(docker.errors.APIError) as failed:
                made.remove()
            self.assertEqual(failed.exception.status_code, 403)
            made.disconnect("other")
            made.disconnect(c, force=True)
            made.reload()
            self.assertEqual(made.containers, [])
        finally:
            for c in self.client.containers.list(all=True):
                c.remove(force=True)
            made.remove()
        with self.assertRaises(docker.errors.NotFound):
            self.client.networks.get("pythons")
        self.assertIsNone(self.client.networks.prune()["NetworksDeleted"])

    def test_events_and_prune(self):
        c = self.run_detached("true", name="pruned", labels={"prune": "me"})
        c.wait()
        pruned = self.client.containers.prune(filters={"label": ["prune=me"]})
        self.assertEqual(pruned["ContainersDeleted"], [c.id])
        seen = [e["Action"] for e in self.client.events(decode=True, since=0, until=self.client.info()["SystemTime"], filters={"container": c.id})]
        for action in ("create", "start", "die", "destroy"):
            self.assertIn(action, seen)
        self.assertIn("Containers", docker.from_env(version="1.41").df())

    def test_build(self):
        with tempfile.TemporaryDirectory() as directory:
            def write(name, text):
                path = os.path.join(directory, name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w") as f:
                    f.write(text)

            write("Dockerfile", """FROM busybox AS base
ARG WHO=nobody
RUN echo "hello $WHO" >/said
FROM base AS last
COPY dir /dir
LABEL made=here
CMD ["cat", "/said"]
""")
            write("dir/kept", "kept")
            write("dir/ignored.log", "ignored")
            write(".dockerignore", "**/*.log\n")
            write("bad/Dockerfile", "FROM busybox\nRUN echo failing && exit 3\n")
            image, log = self.client.images.build(path=directory, tag="python-built:1", buildargs={"WHO": "you"}, labels={"more": "too"}, rm=True, extra_hosts={"far": "192.0.2.1"})
            said = "".join(line.get("stream", "") for line in log)
            self.assertIn("Successfully tagged python-built:1", said)
            self.assertIn("Step 1/7 : FROM busybox AS base", said)
            self.assertIn("python-built:1", image.tags)
            self.assertEqual({k: image.labels[k] for k in ("made", "more")}, {"made": "here", "more": "too"})
            self.assertEqual(self.client.containers.run(image, remove=True), b"hello you\n")
            self.assertEqual(self.client.containers.run(image, "ls /dir", remove=True), b"kept\n")
            again, log = self.client.images.build(path=directory, buildargs={"WHO": "you"}, labels={"more": "too"}, extra_hosts={"far": "192.0.2.1"})
            self.assertEqual(again.id, image.id)
            self.assertIn("Using cache", "".join(line.get("stream", "") for line in log))
            target, _ = self.client.images.build(path=directory, target="base", nocache=True)
            self.assertEqual(self.client.containers.run(target, "cat /said", remove=True), b"hello nobody\n")
            with self.assertRaises(docker.errors.BuildError) as failed:
                self.client.images.build(path=os.path.join(directory, "bad"))
            self.assertIn("The command '/bin/sh -c echo failing && exit 3' returned a non-zero code: 3", str(failed.exception))
            self.assertIn("failing\n", [line.get("stream") for line in failed.exception.build_log])
        alone, _ = self.client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo alone >/alone\n"))
        self.assertEqual(self.client.containers.run(alone, "cat /alone", remove=True), b"alone\n")
        with self.assertRaises(docker.errors.BuildError) as failed:
            self.client.images.build(fileobj=io.BytesIO(b"FROM 127.0.0.1:1/nosuch\n"))
        self.assertIn("Step 1/1 : FROM 127.0.0.1:1/nosuch", [line.get("stream") for line in failed.exception.build_log])
        with self.assertRaises(docker.errors.APIError) as refused:
            self.client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUNN true\n"))
        self.assertEqual(refused.exception.status_code, 400)
        self.assertGreaterEqual(self.client.api.prune_builds()["SpaceReclaimed"], 0)


if __name__ == "__main__":
    unittest.main()
