#!/usr/bin/env python3
"""sparse-ffn-load with the server and make-model.

usage: load_program_test.py FOLDER_OF_THE_PROGRAMS [unittest arguments]
"""

import json
import os
import signal
import subprocess

import programs
from programs import program, run


class LoadProgramTest(programs.ProgramsTest):

    def load(self, *arguments, target=None):
        path = self.path("load.json")
        if os.path.exists(path):
            os.remove(path)
        result = run("sparse-ffn-load", "--target", target or self.tcp_target,
                     "--warmup", "0.1", "--connect-timeout", "60", "--json",
                     path, *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("p99.9", result.stdout)
        with open(path, encoding="utf-8") as file:
            return json.load(file)

    def assert_sane(self, report):
        self.assertGreater(report["succeeded"], 0)
        self.assertEqual(report["failed"], 0, report["errors"])
        self.assertEqual(report["succeeded"], report["latency_us"]["count"])
        latency = report["latency_us"]
        self.assertGreater(latency["p50"], 0)
        self.assertLessEqual(latency["p50"], latency["p99"])
        self.assertLessEqual(latency["p99"], latency["max"])
        self.assertGreater(report["achieved_requests_per_second"], 0)
        means = report["server_mean"]
        self.assertGreater(means["compute_us"], 0)
        self.assertGreaterEqual(means["batch_tokens"],
                                report["load"]["tokens"])
        self.assertGreaterEqual(means["activation_sparsity"], 0)
        self.assertLessEqual(means["activation_sparsity"], 1)

    def test_load_closed(self):
        for mode in ("unary", "stream"):
            report = self.load("--mode", mode, "--requests", 200, "--clients",
                               2, "--in-flight", 3, "--tokens", 2)
            self.assert_sane(report)
            self.assertEqual(report["requests"], 200)
            self.assertEqual(report["load"]["shape"], "closed")

    def test_load_open(self):
        for mode in ("unary", "stream"):
            report = self.load("--mode", mode, "--rate", 200, "--duration", 1,
                               "--layer", "random", target=self.unix_target)
            self.assert_sane(report)
            self.assertEqual(report["offered_requests_per_second"], 200)
            self.assertEqual(report["requests"],
                             report["succeeded"] + report["unsent"])
            self.assertEqual(report["cut_off"], 0)

    def test_load_decode(self):
        for mode in ("unary", "stream"):
            report = self.load("--mode", mode, "--decode", "--requests", 150,
                               "--dtype", "float16", "--execution", "sparse")
            self.assert_sane(report)
            self.assertEqual(report["load"]["layers"], [0, 1, 2])
            self.assertGreaterEqual(report["token_latency_us"]["count"], 49)
            self.assertEqual(report["server_mean"]["replies_by_path"],
                             {"sparse": 150})

    def test_load_interrupted(self):
        path = self.path("interrupted.json")
        load = subprocess.Popen(
            [program("sparse-ffn-load"), "--target", self.tcp_target,
             "--warmup", "0", "--duration", "600", "--json", path],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        load.stderr.readline()  # The first second's line of progress.
        load.send_signal(signal.SIGINT)
        out, _ = load.communicate(timeout=60)
        self.assertEqual(load.returncode, 0)
        self.assertIn("p99", out)
        with open(path, encoding="utf-8") as file:
            self.assert_sane(json.load(file))

    def test_load_says_what_it_cut_off(self):
        target = "unix:" + self.path("stopped.sock")
        server = subprocess.Popen(
            [program("sparse-ffn-server"), "--model", self.model, "--listen",
             target, "--metrics", "", "--backend", "cpu"],
            stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        path = self.path("cut.json")
        load = subprocess.Popen(
            [program("sparse-ffn-load"), "--target", target, "--warmup", "0",
             "--duration", "10", "--connect-timeout", "60", "--in-flight",
             "3", "--json", path],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        load.stderr.readline()  # The first second's line of progress.
        server.send_signal(signal.SIGSTOP)
        out, err = load.communicate(timeout=60)
        self.assertEqual(load.returncode, 1, out)
        self.assertIn("3 requests had no reply 5 s after", out)
        self.assertNotIn("CANCELLED", out)
        self.assertIn("3 requests were cut off", err)
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
        self.assertEqual(report["cut_off"], 3)
        self.assertEqual(report["errors"], {})

    def test_load_notices_an_unwritable_file_first(self):
        for path, message in (
                (self.path("absent/load.json"), "No such file"),
                (self.folder.name, "expected a regular file")):
            result = run("sparse-ffn-load", "--target", "127.0.0.1:1",
                         "--json", path)
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertIn(path, result.stderr)
            self.assertIn(message, result.stderr)
        result = run("sparse-ffn-load", "--target", self.tcp_target,
                     "--warmup", 0, "--requests", 5, "--json", "/dev/stdout")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn('"succeeded": 5', result.stdout)

    def test_load_errors(self):
        for arguments, message in (
                (("--tokens", 17), "at most 16"), (("--layer", 8), "layer 8"),
                (("--decode", "--layer", 1), "all layers"),
                (("--inputs", self.path("none.npy")), "none.npy")):
            result = run("sparse-ffn-load", "--target", self.tcp_target,
                         *arguments)
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertIn(message, result.stderr)


if __name__ == "__main__":
    programs.main()
