"""What the tests of the programs have in common."""

import array
import ast
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

SEED = 11
MAX_BATCH_TOKENS = 16
BIN = ""


def program(name):
    return os.path.join(BIN, name)


def run(name, *arguments, **options):
    return subprocess.run([program(name), *map(str, arguments)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=120, check=False, **options)


def write_npy(path, rows):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }" % (
        len(rows), len(rows[0]))
    header += " " * (64 - (10 + len(header) + 1) % 64) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)))
        file.write(header.encode())
        for row in rows:
            file.write(struct.pack("<%df" % len(row), *row))


def read_npy(path):
    with open(path, "rb") as file:
        data = file.read()
    length, = struct.unpack_from("<H", data, 8)
    header = ast.literal_eval(data[10:10 + length].decode().strip())
    assert header["descr"] == "<f4" and not header["fortran_order"], header
    count, width = header["shape"]
    values = array.array("f", data[10 + length:])
    assert len(values) == count * width
    return [list(values[i * width:(i + 1) * width]) for i in range(count)]


class ProgramsTest(unittest.TestCase):
    """A server of a tiny model, and what talks to it."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.model = cls.make_model("model", SEED)
        cls.unix_target = "unix:" + cls.path("socket")
        cls.log = open(cls.path("server.log"), "w+")
        cls.server = subprocess.Popen(
            [program("sparse-ffn-server"), "--model", cls.model,
             "--listen", "127.0.0.1:0", "--listen", cls.unix_target,
             "--metrics", "", "--backend", "cpu",
             "--max-batch-tokens", str(MAX_BATCH_TOKENS)],
            stdout=cls.log, stderr=subprocess.STDOUT)
        info = run("sparse-ffn-client", "info", "--target", cls.unix_target,
                   "--connect-timeout", "60", "--json")
        if info.returncode != 0:
            cls.tearDownClass()
            raise AssertionError("the server did not come up: " + info.stderr)
        cls.info = json.loads(info.stdout)
        with open(cls.path("server.log"), encoding="utf-8") as log:
            cls.tcp_target = re.search(r"127\.0\.0\.1:[1-9]\d*",
                                       log.read()).group()

    @classmethod
    def tearDownClass(cls):
        cls.server.send_signal(signal.SIGTERM)
        code = cls.server.wait(timeout=60)
        cls.log.seek(0)
        log = cls.log.read()
        cls.log.close()
        cls.folder.cleanup()
        if code != 0:
            raise AssertionError("the server ended with %d:\n%s" % (code, log))

    def silent_target(self):
        """An address at which nobody listens until the test is over."""
        bound = socket.socket()
        self.addCleanup(bound.close)
        bound.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % bound.getsockname()[1]

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    @classmethod
    def make_model(cls, name, seed, *arguments):
        folder = cls.path(name)
        made = run("sparse-ffn-make-model", "--preset", "tiny", "--layers", 3,
                   "--seed", seed, "--out", folder, *arguments)
        if made.returncode != 0:
            raise AssertionError(made.stderr)
        return folder


def main():
    """Runs the tests of a script: FOLDER_OF_THE_PROGRAMS [unittest arguments]"""
    global BIN
    BIN = sys.argv.pop(1)
    print("seed", SEED, flush=True)
    unittest.main(verbosity=2)
