"""Command lines of the clients: a wrong one says what it expected and found."""

import os
import resource
import tempfile
import unittest

import programs
from programs import run


class CommandLineTest(unittest.TestCase):

    def expect_rejected(self, message, name, *arguments):
        result = run(name, *arguments)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn(f"{name}: ", result.stderr)
        self.assertIn(message, result.stderr)

    def test_says_which_numbers_it_takes(self):
        whole = "expected a whole number from"
        for name, arguments, message in (
                ("sparse-ffn-client", ("check", "--tokens", "0"),
                 f"--tokens: {whole} 1 to 8192, found 0"),
                ("sparse-ffn-client", ("check", "--seed", "x"),
                 f"--seed: {whole} 0 to 18446744073709551615, found x"),
                ("sparse-ffn-client", ("forward", "--layer", "1.5"),
                 f"--layer: {whole} 0 to 2147483647, found 1.5"),
                ("sparse-ffn-client", ("info", "--connect-timeout", "nan"),
                 "--connect-timeout: expected a number from 1e-06 to 1e+06, "
                 "found nan"),
                ("sparse-ffn-load", ("--requests", "0"),
                 f"--requests: {whole} 1 to 1000000000000, found 0"),
                ("sparse-ffn-load", ("--clients", "x"),
                 f"--clients: {whole} 1 to 4096, found x"),
                ("sparse-ffn-load", ("--in-flight", "1.5"),
                 f"--in-flight: {whole} 1 to 65536, found 1.5"),
                ("sparse-ffn-make-model", ("--density", "1.5"),
                 "--density: expected a number from 0 to 1, found 1.5"),
                ("sparse-ffn-make-model", ("--rows", "many"),
                 f"--rows: {whole} 1 to 65536, found many"),
                ("sparse-ffn-make-model", ("--hidden-size", "0"),
                 f"--hidden-size: {whole} 1 to 4194304, found 0")):
            with self.subTest(name, arguments=arguments):
                self.expect_rejected(message, name, *arguments)

    # No server is there: none is looked for.
    def test_says_which_words_it_takes(self):
        for arguments, message in (
                (("--mode", "bulk"), "bulk not in {unary,stream}"),
                (("--dtype", "int8"),
                 "int8 not in {float32,float16,bfloat16}"),
                (("--execution", "fused"),
                 "fused not in {auto,sparse,dense}")):
            with self.subTest(arguments=arguments):
                self.expect_rejected(message, "sparse-ffn-load", "--target",
                                     "127.0.0.1:1", *arguments)

    def test_says_what_is_missing(self):
        for name, arguments, message in (
                ("sparse-ffn-client", (), "expected info, forward or check, "
                                          "found ''"),
                ("sparse-ffn-client", ("check",), "--model is required"),
                ("sparse-ffn-make-model", ("--preset", "tiny"),
                 "--out is required"),
                ("sparse-ffn-make-model", ("--out", "x", "--hidden-size", 8),
                 "expected --preset, or --hidden-size and "
                 "--intermediate-size")):
            with self.subTest(name, arguments=arguments):
                self.expect_rejected(message, name, *arguments)

    def test_says_that_there_is_too_little_memory(self):
        name = "sparse-ffn-make-model"
        with open(programs.program(name), "rb") as file:
            code = file.read()
        if b"__asan_init" in code or b"__tsan_init" in code:
            self.skipTest("a sanitizer ends the program itself")
        most = 2 << 30  # A matrix of the layer takes 8 GiB.
        with tempfile.TemporaryDirectory() as folder:
            result = run(
                name, "--hidden-size", 65536, "--intermediate-size", 65536,
                "--layers", 1, "--out", os.path.join(folder, "model"),
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS,
                                                      (most, most)))
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn("there is not enough memory for the matrices",
                          result.stderr)
            self.assertEqual(os.listdir(folder), [])

    def test_says_what_it_does_not_know(self):
        for argument in ("list", "--speed"):
            self.expect_rejected(
                f"expected info, forward or check, found '{argument}'",
                "sparse-ffn-client", argument, "--target", "x")
        for name, *arguments in (("sparse-ffn-client", "info", "--speed"),
                                 ("sparse-ffn-load", "--speed"),
                                 ("sparse-ffn-make-model", "--out", "x",
                                  "--speed")):
            with self.subTest(name):
                self.expect_rejected(f"not expected: {arguments[-1]}", name,
                                     *arguments)

    def test_takes_any_seed(self):
        with tempfile.TemporaryDirectory() as folder:
            made = run("sparse-ffn-make-model", "--preset", "tiny", "--seed",
                       2**64 - 1, "--out", folder + "/model")
        self.assertEqual(made.returncode, 0, made.stderr)
        self.expect_rejected("found 18446744073709551616",
                             "sparse-ffn-make-model", "--seed", 2**64)

    def test_help_is_no_error(self):
        for name, *arguments in (("sparse-ffn-client",),
                                 ("sparse-ffn-client", "forward"),
                                 ("sparse-ffn-load",),
                                 ("sparse-ffn-make-model",)):
            result = run(name, *arguments, "--help")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("Usage: " + name, result.stdout)

    def test_all_programs_are_of_one_version(self):
        versions = set()
        for name in ("sparse-ffn-client", "sparse-ffn-load",
                     "sparse-ffn-make-model", "sparse-ffn-server"):
            result = run(name, "--version")
            self.assertEqual(result.returncode, 0, result.stderr)
            program, version = result.stdout.split()
            self.assertEqual(program, name)
            self.assertRegex(version, r"^\d+\.\d+\.\d+$")
            versions.add(version)
        self.assertEqual(len(versions), 1, versions)


if __name__ == "__main__":
    programs.main()
