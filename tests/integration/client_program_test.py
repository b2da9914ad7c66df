#!/usr/bin/env python3
"""sparse-ffn-client with the server and make-model: info, forward, check.

usage: client_program_test.py FOLDER_OF_THE_PROGRAMS [unittest arguments]
"""

import glob
import json
import math
import os
import shutil
import subprocess

import programs
from programs import (MAX_BATCH_TOKENS, SEED, program, read_npy, run,
                      write_npy)


class ClientProgramTest(programs.ProgramsTest):

    def check(self, *arguments):
        return run("sparse-ffn-client", "check", "--target", self.tcp_target,
                   *arguments)

    def test_info(self):
        with open(os.path.join(self.model, "config.json"),
                  encoding="utf-8") as file:
            config = json.load(file)
        self.assertEqual(self.info["hidden_size"], config["hidden_size"])
        self.assertEqual(self.info["intermediate_size"],
                         config["intermediate_size"])
        self.assertEqual(self.info["layers"], [0, 1, 2])
        self.assertEqual(self.info["max_batch_tokens"], MAX_BATCH_TOKENS)
        self.assertEqual(self.info["model_name"], "model")
        self.assertEqual(len(self.info["weights_hash"]), 32)
        text = run("sparse-ffn-client", "info", "--target", self.unix_target)
        self.assertEqual(text.returncode, 0, text.stderr)
        self.assertIn("3 (0-2)", text.stdout)
        self.assertIn(self.info["weights_hash"], text.stdout)

    def test_forward_splits_rows_into_requests(self):
        hidden = self.info["hidden_size"]
        count = 2 * MAX_BATCH_TOKENS + 3
        rows = [[1 + math.sin(r * hidden + c) for c in range(hidden)]
                for r in range(count)]
        write_npy(self.path("x.npy"), rows)
        write_npy(self.path("last.npy"), rows[-1:])
        for dtype in ("float32", "bfloat16"):
            outputs = []
            for name in ("x.npy", "last.npy"):
                result = run(
                    "sparse-ffn-client", "forward", "--target",
                    self.tcp_target, "--layer", 1, "--inputs", self.path(name),
                    "--outputs", self.path("y.npy"), "--dtype", dtype)
                self.assertEqual(result.returncode, 0, result.stderr)
                outputs.append(read_npy(self.path("y.npy")))
                requests = len(result.stdout.splitlines()) - 1
                self.assertEqual(requests, 3 if name == "x.npy" else 1)
            self.assertEqual(len(outputs[0]), count)
            largest = max(map(abs, outputs[1][0]))
            self.assertGreater(largest, 0)
            for whole, alone in zip(outputs[0][-1], outputs[1][0]):
                self.assertLessEqual(abs(whole - alone), 0.02 * largest)

    def test_forward_errors(self):
        hidden = self.info["hidden_size"]
        write_npy(self.path("narrow.npy"), [[1.0] * (hidden - 1)])
        write_npy(self.path("good.npy"), [[1.0] * hidden])
        # Finite, but not in bfloat16, the type of the weights.
        write_npy(self.path("huge.npy"), [[3.4e38] * hidden])
        for layer, inputs, message in (
                (0, "narrow.npy", "expected at least one row of hidden size"),
                (7, "good.npy", "7"),
                (0, "huge.npy", "column 0 is 3.4e+38; expected a finite value"),
                (0, "absent.npy", "absent.npy")):
            result = run("sparse-ffn-client", "forward", "--target",
                         self.tcp_target, "--layer", layer, "--inputs",
                         self.path(inputs), "--outputs", self.path("no.npy"))
            self.assertEqual(result.returncode, 1)
            self.assertIn(message, result.stderr)
            self.assertEqual(glob.glob(self.path("no.npy*")), [])

    def test_forward_looks_at_outputs_first(self):
        # Nobody listens there, and there are no inputs.
        for outputs, message in (
                (self.path("absent/out.npy"), "out.npy: cannot be written"),
                (self.folder.name, "found a folder"),
                ("/dev/null", "/dev/null: expected a regular file"),
                ("", "found an empty one")):
            result = run("sparse-ffn-client", "forward", "--target",
                         self.silent_target(), "--layer", 0, "--inputs",
                         self.path("absent.npy"), "--outputs", outputs)
            self.assertEqual(result.returncode, 1)
            self.assertIn(message, result.stderr)
            self.assertEqual(result.stdout, "")

    def test_check_passes(self):
        for arguments in ((), ("--execution", "sparse", "--dtype", "bfloat16"),
                          ("--execution", "dense", "--dtype", "float16"),
                          ("--tokens", 5, "--layers", "0,2", "--seed", 9)):
            result = self.check("--model", self.model, *arguments)
            self.assertEqual(result.returncode, 0,
                             result.stdout + result.stderr)
            self.assertIn("PASSED", result.stdout)

    def test_check_with_inputs(self):
        hidden = self.info["hidden_size"]
        write_npy(self.path("c.npy"), [[math.cos(r + c) for c in range(hidden)]
                                       for r in range(9)])
        result = self.check("--model", self.model, "--inputs",
                            self.path("c.npy"))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("9 rows", result.stdout)

    def test_check_misses_against_other_weights(self):
        result = self.check("--model", self.make_model("other", SEED + 1))
        self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
        self.assertIn("MISS", result.stdout)
        self.assertIn("FAILED", result.stdout)

    def test_check_sees_weights_that_no_answer_depends_on(self):
        model = self.make_model("silent", SEED, "--density", 0)
        target = "unix:" + self.path("silent.sock")
        with subprocess.Popen(
                [program("sparse-ffn-server"), "--model", model, "--listen",
                 target, "--metrics", "", "--backend", "cpu"],
                stderr=subprocess.DEVNULL) as server:
            self.addCleanup(server.kill)
            good = run("sparse-ffn-client", "check", "--target", target,
                       "--connect-timeout", 60, "--model", model)
            changed = self.path("changed")
            shutil.copytree(model, changed)
            with open(os.path.join(changed, "model.safetensors"),
                      "r+b") as file:
                file.seek(-1, os.SEEK_END)
                last = file.read(1)[0]
                file.seek(-1, os.SEEK_END)
                file.write(bytes([last ^ 1]))
            bad = run("sparse-ffn-client", "check", "--target", target,
                      "--model", changed)
            part = run("sparse-ffn-client", "check", "--target", target,
                       "--model", changed, "--layers", "0-1")
            server.terminate()
        self.assertEqual(good.returncode, 0, good.stdout + good.stderr)
        self.assertRegex(good.stdout,
                         "weights hash: [0-9a-f]{32} on both sides")
        self.assertEqual(bad.returncode, 2, bad.stdout + bad.stderr)
        self.assertIn("the server holds other weights", bad.stdout)
        self.assertIn("FAILED", bad.stdout)
        self.assertNotIn("MISS", bad.stdout)
        self.assertEqual(part.returncode, 0, part.stdout + part.stderr)
        self.assertIn("weights hash: not compared", part.stdout)

    def forward(self, target, rows, *arguments):
        """What forward prints for the rows in one request, and what it gets."""
        inputs, outputs = self.path("in.npy"), self.path("out.npy")
        write_npy(inputs, rows)
        result = run("sparse-ffn-client", "forward", "--target", target,
                     "--connect-timeout", 60, "--layer", 1, "--inputs", inputs,
                     "--outputs", outputs, *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout.splitlines()[1].split(), read_npy(outputs)

    def test_deterministic(self):
        target = "unix:" + self.path("deterministic.sock")
        rows = [[math.cos(9 * r + c) for c in range(self.info["hidden_size"])]
                for r in range(8)]
        server = subprocess.Popen(
            [program("sparse-ffn-server"), "--model", self.model,
             "--listen", target, "--metrics", "", "--deterministic"],
            stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        for execution in ("auto", "sparse", "dense"):
            table, together = self.forward(target, rows, "--execution",
                                           execution)
            self.assertEqual(table[1], "8")  # Tokens.
            self.assertEqual(table[2] == "dense", execution == "dense")
            self.assertEqual(
                [self.forward(target, [row], "--execution", execution)[1][0]
                 for row in rows], together)
        check = run("sparse-ffn-client", "check", "--target", target,
                    "--model", self.model)
        self.assertEqual(check.returncode, 0, check.stdout + check.stderr)

    def test_check_names_what_the_server_was_told_to_compute(self):
        target = "unix:" + self.path("drelu.sock")
        server = subprocess.Popen(
            [program("sparse-ffn-server"), "--model", self.model,
             "--listen", target, "--metrics", "", "--activation", "drelu"],
            stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        told = run("sparse-ffn-client", "check", "--target", target,
                   "--connect-timeout", 60, "--model", self.model)
        self.assertEqual(told.returncode, 0, told.stdout + told.stderr)
        self.assertIn('note: the server computes drelu; config.json says '
                      '"fatrelu"', told.stdout)
        self.assertRegex(told.stdout, r"\nPASSED: .* in [0-9.]+ s, activation "
                         r"or threshold not of config\.json\n$")

    def test_check_errors(self):
        larger = self.make_model(
            "larger", SEED, "--hidden-size", self.info["hidden_size"] + 8,
            "--intermediate-size", self.info["intermediate_size"])
        for arguments, message in (
                (("--model", larger), "hidden size"),
                (("--model", self.path("absent")), "absent"),
                (("--model", self.model, "--layers", "5"), "layer 5"),
                (("--model", self.model, "--tokens", 17), "at most 16")):
            result = self.check(*arguments)
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertIn(message, result.stderr)

    def test_nothing_listens(self):
        target = self.silent_target()
        for name, *arguments in (("sparse-ffn-load",),
                                 ("sparse-ffn-client", "info"),
                                 ("sparse-ffn-client", "check", "--model",
                                  self.model)):
            result = run(name, *arguments, "--target", target,
                         "--connect-timeout", "0.2")
            self.assertEqual(result.returncode, 1)
            self.assertIn("no connection to " + target, result.stderr)


if __name__ == "__main__":
    programs.main()
