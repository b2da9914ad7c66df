// Times the CPU backend: each step and the whole FFN, sparse and dense, with
// the weights rotated over enough layers to keep the caches cold. Prints the
// bytes that had to move, their rate, its share of the read bandwidth measured
// in the same run, and the ratio to the dense path.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "client/npy.h"
#include "kernels/ffn_backend.h"

namespace sparse_ffn::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  size_t hidden_size = 4096;
  size_t intermediate_size = 11008;
  int layers = 4;
  std::vector<size_t> tokens = {1, 8};
  std::vector<double> densities = {0.107, 0.33};
  std::string replay;
  std::string dtype = "bfloat16";
  int threads = 0;
  int repeats = 24;
};

// Which neurons are active: [tokens, intermediate].
using Mask = std::vector<uint8_t>;

double Milliseconds(uint64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e6;
}

template <typename T>
T Median(std::vector<T> values) {
  const auto middle =
      values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Bytes a second that plain sums over large arrays read, one array a thread.
double ReadBandwidth(int threads) {
  constexpr size_t kWords = size_t{64} << 20;
  std::vector<std::vector<uint64_t>> arrays(static_cast<size_t>(threads),
                                            std::vector<uint64_t>(kWords, 1));
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const Clock::time_point start = Clock::now();
    std::vector<uint64_t> sums(arrays.size());
    std::vector<std::thread> readers;
    for (size_t i = 0; i < arrays.size(); ++i) {
      readers.emplace_back([&, i] {
        // Several streams, as a kernel that reads several rows.
        constexpr size_t kStreams = 4;
        constexpr size_t kStream = kWords / kStreams;
        std::array<uint64_t, kStreams> sum = {};
        for (size_t w = 0; w < kStream; ++w) {
          for (size_t s = 0; s < kStreams; ++s) {
            sum[s] += arrays[i][s * kStream + w];
          }
        }
        sums[i] = std::accumulate(sum.begin(), sum.end(), uint64_t{0});
      });
    }
    for (std::thread& reader : readers) reader.join();
    const std::chrono::duration<double> seconds = Clock::now() - start;
    if (sums[0] != kWords) return 0;
    best = std::max(best, static_cast<double>(arrays.size() * kWords * 8) /
                              seconds.count());
  }
  return best;
}

// Random elements of the type, standard deviation `scale`.
std::vector<uint8_t> RandomElements(size_t count, float scale, DataType dtype,
                                    uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> elements(count * DataTypeBytes(dtype));
  std::vector<float> chunk(4096);
  for (size_t i = 0; i < count; i += chunk.size()) {
    const size_t size = std::min(chunk.size(), count - i);
    for (float& value : chunk) {
      value = (static_cast<float>(random() >> 40) * 0x1p-23F - 1) * scale;
    }
    Convert({chunk.data(), 1, size, DataType::kFloat32},
            {&elements[i * DataTypeBytes(dtype)], 1, size, dtype});
  }
  return elements;
}

// The model and hidden states that make `mask` come true: token t alone sees
// column t of the gate, which holds 1 or -1.
class Model {
 public:
  Model(const Options& options, DataType dtype, size_t tokens, const Mask& mask)
      : options_(options), dtype_(dtype) {
    FfnConfig config;
    config.hidden_size = options.hidden_size;
    config.intermediate_size = options.intermediate_size;
    config.num_layers = static_cast<size_t>(options.layers);
    config.max_batch_tokens = tokens;
    config.weights_dtype = dtype;
    backend_ = NewCpuBackend(config, options.threads).value();
    const size_t count = options.hidden_size * options.intermediate_size;
    std::vector<uint8_t> gate = RandomElements(count, 1e-3F, dtype, 1);
    const std::vector<uint8_t> up = RandomElements(count, 0.03F, dtype, 2);
    const std::vector<uint8_t> down = RandomElements(count, 0.03F, dtype, 3);
    for (size_t j = 0; j < options.intermediate_size; ++j) {
      for (size_t t = 0; t < tokens; ++t) {
        const float value = mask[t * options.intermediate_size + j] ? 1 : -1;
        Put(gate.data(), j, t, value);
      }
    }
    for (int layer = 0; layer < options.layers; ++layer) {
      const absl::Status status =
          backend_->AddLayer(layer, {View(gate), View(up), View(down)});
      if (!status.ok()) throw std::runtime_error(std::string(status.message()));
    }
    lane_ = backend_->NewLane().value();
    const Matrix input = lane_->input(tokens);
    const std::vector<uint8_t> states =
        RandomElements(tokens * options.hidden_size, 1, dtype, 4);
    std::memcpy(input.data, states.data(), states.size());
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t c = 0; c < tokens; ++c) {
        Put(static_cast<uint8_t*>(input.data), t, c, c == t ? 1 : 0);
      }
    }
  }

  FfnBackend& backend() { return *backend_; }
  FfnLane& lane() { return *lane_; }

 private:
  ConstMatrix View(const std::vector<uint8_t>& elements) const {
    return {elements.data(), options_.intermediate_size, options_.hidden_size,
            dtype_};
  }
  void Put(uint8_t* matrix, size_t row, size_t column, float value) const {
    const size_t at = row * options_.hidden_size + column;
    Convert({&value, 1, 1, DataType::kFloat32},
            {matrix + at * DataTypeBytes(dtype_), 1, 1, dtype_});
  }

  const Options& options_;
  const DataType dtype_;
  std::unique_ptr<FfnBackend> backend_;
  std::unique_ptr<FfnLane> lane_;
};

struct Times {
  double gate, up, down, whole;  // Milliseconds, medians.
  double best;                   // Of the whole.
  double union_density;
};

Times Measure(Model& model, const Options& options, size_t tokens,
              Execution execution) {
  std::vector<uint64_t> gate, up, down, whole;
  double union_density = 0;
  for (int i = 0; i < options.repeats + options.layers; ++i) {
    const FfnResult result =
        model.lane().Run(i % options.layers, tokens, execution).value();
    if (i < options.layers) continue;  // Warms up threads and pages.
    gate.push_back(result.stats.gate_ns);
    up.push_back(result.stats.up_ns);
    down.push_back(result.stats.down_ns);
    whole.push_back(result.stats.compute_ns);
    union_density = static_cast<double>(result.stats.union_active_neurons) /
                    static_cast<double>(options.intermediate_size);
  }
  return {Milliseconds(Median(gate)),
          Milliseconds(Median(up)),
          Milliseconds(Median(down)),
          Milliseconds(Median(whole)),
          Milliseconds(*std::min_element(whole.begin(), whole.end())),
          union_density};
}

void PrintRow(const char* path, const Options& options, DataType dtype,
              const Times& times, double rows_read, double bandwidth,
              double dense_ms) {
  const double bytes = rows_read * static_cast<double>(options.hidden_size) *
                       static_cast<double>(DataTypeBytes(dtype));
  const double rate = bytes / (times.whole / 1e3);
  std::printf(
      "  %-6s union %5.1f %%  gate %7.3f  up %7.3f  down %7.3f  whole %7.3f ms "
      "(best %7.3f)  %6.1f MB  %5.1f GB/s = %3.0f %% of plain reads  "
      "dense/this "
      "%.2f\n",
      path, 100 * times.union_density, times.gate, times.up, times.down,
      times.whole, times.best, bytes / 1e6, rate / 1e9, 100 * rate / bandwidth,
      dense_ms / times.whole);
}

void RunCase(const Options& options, DataType dtype, size_t tokens,
             const Mask& mask, double bandwidth) {
  Model model(options, dtype, tokens, mask);
  const Times dense = Measure(model, options, tokens, Execution::kDense);
  const Times sparse = Measure(model, options, tokens, Execution::kSparse);
  const auto neurons = static_cast<double>(options.intermediate_size);
  PrintRow("dense", options, dtype, dense, 3 * neurons, bandwidth, dense.whole);
  PrintRow("sparse", options, dtype, sparse,
           neurons * (1 + 2 * sparse.union_density), bandwidth, dense.whole);
  std::fflush(stdout);
}

Mask RandomMask(size_t count, double density) {
  std::mt19937_64 random(5);
  std::bernoulli_distribution active(density);
  Mask mask(count);
  for (uint8_t& m : mask) m = active(random) ? 1 : 0;
  return mask;
}

// Non-zero elements of the first rows of an .npy file.
Mask ReplayedMask(const Options& options, size_t tokens) {
  const NpyArray array = ReadNpy(options.replay).value();
  if (array.rows < tokens || array.cols != options.intermediate_size) {
    throw std::runtime_error(options.replay + " has another shape");
  }
  std::vector<float> values(tokens * array.cols);
  ConstMatrix rows = array.view();
  rows.rows = tokens;
  Convert(rows, {values.data(), tokens, array.cols, DataType::kFloat32});
  Mask mask(values.size());
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = values[i] != 0 ? 1 : 0;
  return mask;
}

void RunAll(const Options& options) {
  const DataType dtype = options.dtype == "float32"   ? DataType::kFloat32
                         : options.dtype == "float16" ? DataType::kFloat16
                                                      : DataType::kBFloat16;
  const int threads =
      options.threads > 0
          ? options.threads
          : static_cast<int>(std::thread::hardware_concurrency());
  const double bandwidth = ReadBandwidth(threads);
  std::printf("%d threads, plain reads %.1f GB/s, %s [%zu, %zu], %d layers\n",
              threads, bandwidth / 1e9, DataTypeName(dtype),
              options.intermediate_size, options.hidden_size, options.layers);
  for (size_t tokens : options.tokens) {
    const size_t count = tokens * options.intermediate_size;
    if (!options.replay.empty()) {
      std::printf("%zu tokens, replayed\n", tokens);
      RunCase(options, dtype, tokens, ReplayedMask(options, tokens), bandwidth);
      continue;
    }
    for (double density : options.densities) {
      std::printf("%zu tokens, each %.1f %% active\n", tokens, 100 * density);
      RunCase(options, dtype, tokens, RandomMask(count, density), bandwidth);
    }
  }
}

}  // namespace
}  // namespace sparse_ffn::bench

int main(int argc, char** argv) try {
  CLI::App app("Times the CPU backend.");
  sparse_ffn::bench::Options options;
  app.add_option("--hidden", options.hidden_size)->check(CLI::Range(1, 65536));
  app.add_option("--intermediate", options.intermediate_size)
      ->check(CLI::Range(1, 262144));
  app.add_option("--layers", options.layers, "Rotated, to keep caches cold")
      ->check(CLI::Range(1, 64));
  app.add_option("--tokens", options.tokens, "Batch sizes")->delimiter(',');
  app.add_option("--densities", options.densities, "Of each token")
      ->delimiter(',');
  app.add_option("--replay", options.replay,
                 ".npy file of activations to take the masks from");
  app.add_option("--dtype", options.dtype)
      ->check(CLI::IsMember({"bfloat16", "float16", "float32"}));
  app.add_option("--threads", options.threads, "0: one a processor");
  app.add_option("--repeats", options.repeats)->check(CLI::Range(1, 100000));
  CLI11_PARSE(app, argc, argv);
  sparse_ffn::bench::RunAll(options);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "cpu_bench: %s\n", error.what());
  return 1;
}
