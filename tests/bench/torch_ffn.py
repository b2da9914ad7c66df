#!/usr/bin/env python3
"""Times the dense FFN in PyTorch on the processor, as cpu_bench does ours.

Prints one line a case: milliseconds (median and best) and the rate at which
weights were read. Layers are rotated, so that the weights come from memory.
"""
import argparse
import statistics
import time

import torch
from torch.nn.functional import linear


def forward(layer, x):
    gate_proj, up_proj, down_proj = layer
    return linear(torch.relu(linear(x, gate_proj)) * linear(x, up_proj),
                  down_proj)


def make_layer(hidden, intermediate, dtype):
    return (torch.randn(intermediate, hidden).to(dtype),
            torch.randn(intermediate, hidden).to(dtype),
            torch.randn(hidden, intermediate).to(dtype))


def time_forward(layers, x, repeats):
    seconds = []
    for i in range(repeats + len(layers)):
        start = time.perf_counter()
        forward(layers[i % len(layers)], x)
        if i >= len(layers):
            seconds.append(time.perf_counter() - start)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--intermediate", type=int, default=11008)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=24)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    print(f"PyTorch {torch.__version__}, {options.threads} threads,",
          torch.backends.cpu.get_cpu_capability())
    with torch.inference_mode():
        for name in options.dtypes:
            dtype = getattr(torch, name)
            layers = [make_layer(options.hidden, options.intermediate, dtype)
                      for _ in range(options.layers)]
            weight_bytes = sum(w.numel() * w.element_size()
                               for w in layers[0])
            for tokens in options.tokens:
                x = torch.randn(tokens, options.hidden).to(dtype)
                seconds = time_forward(layers, x, options.repeats)
                median = statistics.median(seconds)
                print(f"{name} {tokens} tokens: {median * 1e3:.3f} ms"
                      f" (best {min(seconds) * 1e3:.3f}),"
                      f" {weight_bytes / median / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
