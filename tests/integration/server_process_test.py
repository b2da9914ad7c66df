#!/usr/bin/env python3
"""sparse-ffn-server as a process: how it starts, refuses to start, and stops.

usage: server_process_test.py FOLDER_OF_THE_PROGRAMS [unittest arguments]
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

BIN = ""
PATIENCE_SECONDS = 60


def program(name):
    return os.path.join(BIN, name)


class Server:
    """A server on a free port, up when the constructor returns."""

    def __init__(self, model, *arguments, listen=("127.0.0.1:0",),
                 metrics="127.0.0.1:0", backend="cpu"):
        command = [program("sparse-ffn-server"), "--model", model,
                   "--backend", backend, "--metrics", metrics]
        for address in listen:
            command += ["--listen", address]
        self.log = []
        self.process = subprocess.Popen([*command, *arguments],
                                        stderr=subprocess.PIPE, text=True)
        try:
            self.wait_for("msg=serving")
        except AssertionError:
            self.close()
            raise

    def wait_for(self, text):
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))
            if text in line:
                return line
        raise AssertionError("no %s: %s" % (text, self.log))

    def field(self, name):
        for line in self.log:
            found = re.search(r'\b%s="?([^ "\n]+)' % name, line)
            if found:
                return found.group(1)
        raise AssertionError("no %s: %s" % (name, self.log))

    def metrics(self):
        series = {}
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                self.field("url"), timeout=PATIENCE_SECONDS) as answer:
            for line in answer.read().decode().splitlines():
                if not line.startswith("#"):
                    name, value = line.rsplit(" ", 1)
                    series[name] = float(value)
        return series

    def wait_for_metrics(self, reached):
        """Returns as soon as reached(self.metrics()) is true."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up:
            series = self.metrics()
            if reached(series):
                return
            time.sleep(0.02)
        raise AssertionError("still: %s" % series)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.log += self.process.stderr.read().splitlines()
        return self.process.wait(timeout=PATIENCE_SECONDS)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()


class ServerProcessTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.model = cls.path("model")
        subprocess.run([program("sparse-ffn-make-model"), "--preset", "tiny",
                        "--out", cls.model], check=True, capture_output=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    def start(self, *arguments, **keywords):
        server = Server(self.model, *arguments, **keywords)
        self.addCleanup(server.close)
        return server

    def refused(self, *arguments):
        """The one line that a server says that does not start."""
        result = subprocess.run(
            [program("sparse-ffn-server"), *arguments], text=True,
            capture_output=True, timeout=PATIENCE_SECONDS, check=False)
        self.assertIn(result.returncode, (1, 2), result.stderr)
        errors = [line for line in result.stderr.splitlines()
                  if "level=info" not in line]
        self.assertEqual(len(errors), 1, result.stderr)
        return errors[0]

    def refused_model(self, model):
        return self.refused("--model", model, "--backend", "cpu", "--listen",
                            "127.0.0.1:0", "--metrics", "")

    def load(self, server, *arguments):
        return subprocess.Popen(
            [program("sparse-ffn-load"), "--target", server.field("address"),
             "--warmup", "0", "--connect-timeout", "60", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def test_stops_on_both_signals(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.start()
            self.assertEqual(server.stop(number), 0, server.log)
            self.assertIn("msg=drained", server.log[-1])

    def test_log_is_one_record_a_line(self):
        server = self.start()
        self.assertEqual(server.stop(), 0)
        for line in server.log:
            self.assertRegex(line, r"^ts=\S+Z level=info msg=(\w+|\"[^\"]+\")")
        self.assertRegex("\n".join(server.log), "bytes_on_device=[1-9]")
        self.assertIn("layers_done=4 layers_total=4", "\n".join(server.log))

    def test_drains_under_load(self):
        server = self.start()
        load = self.load(server, "--mode", "stream", "--clients", "3",
                         "--in-flight", "8", "--duration", "30")
        server.wait_for_metrics(lambda series: series.get(
            'sparse_ffn_layer_tokens_total{layer="0"}', 0) >= 100)
        self.assertEqual(server.stop(), 0, server.log)
        load.kill()
        load.communicate()
        self.assertIn("msg=drained", server.log[-1])

    def busy(self, *arguments):
        """A server with many large requests, and the client that sends them."""
        server = self.start("--max-queued-tokens", "262144", *arguments)
        load = self.load(server, "--mode", "stream", "--in-flight", "1000",
                         "--tokens", "256", "--duration", "60")
        self.addCleanup(load.communicate)
        self.addCleanup(load.kill)
        server.wait_for_metrics(lambda series: series[
            "sparse_ffn_requests_in_flight"] >= 800)
        return server, load

    def stalled(self, *arguments):
        """A server whose client has many replies to read and sleeps."""
        server, load = self.busy(*arguments)
        load.send_signal(signal.SIGSTOP)
        return server

    def test_drain_is_bounded(self):
        server = self.stalled("--drain-seconds", "0.5")
        # A slow machine may not have computed all of it by then.
        code = server.stop()
        self.assertRegex(server.log[-1],
                         ("were cut",
                          "not answered within|still on the device")[code])

    def test_requests_that_a_drain_leaves_unanswered_are_an_error(self):
        server, _ = self.busy("--drain-seconds", "0")
        self.assertEqual(server.stop(), 1, server.log)
        # The latter where the last batch takes a second more.
        self.assertRegex(server.log[-1],
                         "not answered within --drain-seconds 0: [1-9]|"
                         "still on the device.* not_answered=[1-9]")

    def test_second_signal_ends_it_at_once(self):
        server = self.stalled("--drain-seconds", "3600")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("msg=draining")
        time.sleep(0.5)
        self.assertIsNone(server.process.poll())
        self.assertEqual(server.stop(), 128 + signal.SIGTERM)

    def test_metrics_agree_with_replies(self):
        server = self.start()
        report = self.path("load.json")
        load = self.load(server, "--requests", "200", "--tokens", "3",
                         "--json", report)
        output = load.communicate(timeout=PATIENCE_SECONDS)[0]
        self.assertEqual(load.returncode, 0, output)
        # A batch is counted after its replies, one series after the other.
        server.wait_for_metrics(lambda series: series[
            "sparse_ffn_activation_sparsity_ratio_count"] >= 200 * 3)
        series = server.metrics()

        def total(name):
            return sum(value for key, value in series.items()
                       if key.startswith(name + "{"))
        with open(report, encoding="utf-8") as file:
            replied = json.load(file)["server_mean"]["activation_sparsity"]
        measured = 1 - (total("sparse_ffn_neurons_active_total") /
                        total("sparse_ffn_neurons_evaluated_total"))
        # The report leaves out what came before and after its measured time.
        self.assertAlmostEqual(measured, replied, delta=0.02)
        self.assertEqual(series["sparse_ffn_batch_tokens_sum"],
                         total("sparse_ffn_layer_tokens_total"))
        self.assertEqual(series["sparse_ffn_activation_sparsity_ratio_count"],
                         total("sparse_ffn_layer_tokens_total"))
        self.assertGreater(series["process_resident_memory_bytes"], 0)
        self.assertEqual(server.stop(), 0)

    def test_metrics_outlast_clients_that_say_nothing(self):
        server = self.start()
        host, port = re.search(r"//([^:/]+):(\d+)/",
                               server.field("url")).groups()
        for _ in range(17):
            idle = socket.create_connection((host, int(port)))
            self.addCleanup(idle.close)
        self.assertIn("sparse_ffn_weights_bytes", server.metrics())
        self.assertEqual(server.stop(), 0)

    def test_busy_ports(self):
        server = self.start()
        address = server.field("address")
        line = self.refused("--model", self.model, "--backend", "cpu",
                            "--listen", address, "--metrics", "")
        self.assertIn("cannot listen on %s" % address, line)
        self.assertIn("in use", line)
        metrics = re.search(r"//(.*)/metrics", server.field("url")).group(1)
        line = self.refused("--model", self.model, "--backend", "cpu",
                            "--listen", "127.0.0.1:0", "--metrics", metrics)
        self.assertIn(metrics, line)
        self.assertEqual(server.stop(), 0)

    def test_unix_sockets(self):
        path = self.path("socket")
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(path)
        stale.close()
        server = self.start(listen=["unix:" + path])
        line = self.refused("--model", self.model, "--backend", "cpu",
                            "--listen", "unix:" + path, "--metrics", "")
        self.assertIn("in use", line)
        self.assertTrue(os.path.exists(path))
        info = subprocess.run(
            [program("sparse-ffn-client"), "info", "--target", "unix:" + path],
            capture_output=True, timeout=PATIENCE_SECONDS, check=False)
        self.assertEqual(info.returncode, 0, info.stderr)
        self.assertEqual(server.stop(), 0)
        self.assertFalse(os.path.exists(path))
        with open(path, "w", encoding="utf-8") as file:
            file.write("precious")
        line = self.refused("--model", self.model, "--backend", "cpu",
                            "--listen", "unix:" + path, "--metrics", "")
        self.assertIn("not a socket", line)
        with open(path, encoding="utf-8") as file:
            self.assertEqual(file.read(), "precious")
        line = self.refused("--model", self.model, "--backend", "cpu",
                            "--listen", "unix:" + "/x" * 60, "--metrics", "")
        self.assertIn("longer than", line)
        line = self.refused("--model", self.model, "--backend", "cpu",
                            "--listen", "unix:%s/none/s" % self.folder.name,
                            "--metrics", "")
        self.assertIn("No such file", line)

    def test_wrong_models(self):
        self.assertIn("nowhere", self.refused_model(self.path("nowhere")))
        for name in ("config.json", "model.safetensors"):
            for kind in ("missing", "fifo", "folder", "empty"):
                with self.subTest(name=name, kind=kind):
                    broken = self.path("broken-%s-%s" % (name, kind))
                    shutil.copytree(self.model, broken)
                    path = os.path.join(broken, name)
                    os.remove(path)
                    if kind == "fifo":
                        os.mkfifo(path)
                    elif kind == "folder":
                        os.mkdir(path)
                    elif kind == "empty":
                        open(path, "wb").close()
                    self.assertIn(name, self.refused_model(broken))

    def model_with(self, key, value):
        """A copy of the model whose config.json says so."""
        copy = self.path("model-with-" + key)
        shutil.copytree(self.model, copy)
        path = os.path.join(copy, "config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        config[key] = value
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        return copy

    def test_activation_that_is_not_sparse(self):
        broken = self.model_with("hidden_act", "silu")
        self.assertIn("silu", self.refused_model(broken))

    def test_warns_of_absent_layers(self):
        part = self.model_with("num_hidden_layers", 9)
        for arguments, warnings in (((), 1), (("--layers", "0-3"), 0)):
            server = Server(part, *arguments, metrics="")
            self.addCleanup(server.close)
            self.assertEqual(server.stop(), 0, server.log)
            lines = [line for line in server.log if "level=warning" in line]
            self.assertEqual(len(lines), warnings, server.log)
            if lines:
                self.assertIn("layers_held=4 num_hidden_layers=9 layers=0-3",
                              lines[0])

    def test_flags(self):
        self.assertIn("--bogus", self.refused("--bogus"))
        self.assertIn("--model", self.refused())
        self.assertIn("99", self.refused(
            "--model", self.model, "--backend", "cpu", "--listen",
            "127.0.0.1:0", "--metrics", "", "--layers", "99"))

    def test_path_costs_on_cpu(self):
        costs = self.path("cpu-costs.json")
        server = self.start("--path-costs", costs)
        self.assertEqual(server.stop(), 0, server.log)
        self.assertIn('level=warning msg="--path-costs is not used"',
                      "\n".join(server.log))
        self.assertFalse(os.path.exists(costs))

    def test_path_costs_on_gpu(self):
        costs = self.path("gpu-costs.json")
        for known in ('msg="paths measured"', 'msg="path costs read"'):
            server = self.start("--path-costs", costs, backend="auto")
            if server.field("backend") != "cuda":
                self.skipTest("no usable GPU")
            self.assertRegex("\n".join(server.log),
                             known + '.* sparse_up_to="1:')
            for name, value in server.metrics().items():
                if re.search("(tokens|batches)_total", name):
                    self.assertEqual(value, 0, name)
            self.assertEqual(server.stop(), 0, server.log)
        with open(costs, encoding="utf-8") as file:
            self.assertEqual(json.load(file)["max_batch_tokens"], 256)
        self.assertIn(
            costs + ': \\"max_batch_tokens\\": expected 128, found 256',
            self.refused("--model", self.model, "--backend", "cuda",
                         "--listen", "127.0.0.1:0", "--metrics", "",
                         "--path-costs", costs, "--max-batch-tokens", "128"))

    def test_absent_gpu(self):
        if os.path.exists("/dev/nvidiactl"):
            self.skipTest("there may be a GPU")
        line = self.refused("--model", self.model, "--backend", "cuda",
                            "--listen", "127.0.0.1:0", "--metrics", "")
        self.assertRegex(line, "CUDA|GPU|driver")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    BIN = os.path.abspath(sys.argv.pop(1))
    unittest.main()
