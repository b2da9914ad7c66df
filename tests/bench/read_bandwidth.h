// How fast this machine's processors read memory together.
#ifndef SPARSE_FFN_TESTS_BENCH_READ_BANDWIDTH_H_
#define SPARSE_FFN_TESTS_BENCH_READ_BANDWIDTH_H_

namespace sparse_ffn::bench {

// Bytes a second at which plain sums read arrays much larger than the caches,
// one array a thread: the best of several runs, each thread reading 1, 2, 4 or
// 8 places of its array in turn, as kernels do that read several rows.
double ReadBandwidth(int threads);

}  // namespace sparse_ffn::bench

#endif  // SPARSE_FFN_TESTS_BENCH_READ_BANDWIDTH_H_
