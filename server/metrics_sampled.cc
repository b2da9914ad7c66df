#include "server/metrics_sampled.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

namespace sparse_ffn {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily Single(const char* name, const char* help, MetricType type,
                    double value) {
  ClientMetric metric;
  metric.gauge.value = value;
  metric.counter.value = value;
  return MetricFamily{name, help, type, {metric}};
}

std::string ReadProcFile(const char* path) {
  std::string text;
  std::FILE* file = std::fopen(path, "re");
  if (file == nullptr) return text;
  char buffer[4096];
  size_t count = 0;
  while ((count = std::fread(buffer, 1, sizeof(buffer), file)) > 0) {
    text.append(buffer, count);
  }
  std::fclose(file);
  return text;
}

// Fields of /proc/self/stat from the third on: what stands before may hold
// spaces.
struct ProcessStat {
  double start_ticks = 0;
  double virtual_bytes = 0;
  double resident_bytes = 0;
};

ProcessStat ReadProcessStat() {
  ProcessStat stat;
  const std::string text = ReadProcFile("/proc/self/stat");
  const size_t after_name = text.rfind(')');
  if (after_name == std::string::npos) return stat;
  constexpr int kStartTime = 22;
  constexpr int kVirtualSize = 23;
  constexpr int kResident = 24;
  const char* at = text.c_str() + after_name + 1;
  for (int field = 3; field <= kResident; ++field) {
    while (*at == ' ') ++at;
    const double value = std::strtod(at, nullptr);
    if (field == kStartTime) stat.start_ticks = value;
    if (field == kVirtualSize) stat.virtual_bytes = value;
    if (field == kResident) {
      stat.resident_bytes = value * static_cast<double>(sysconf(_SC_PAGESIZE));
    }
    while (*at != ' ' && *at != '\0') ++at;
  }
  return stat;
}

double BootTimeSeconds() {
  const std::string text = ReadProcFile("/proc/stat");
  const size_t at = text.find("btime ");
  if (at == std::string::npos) return 0;
  return std::strtod(text.c_str() + at + std::strlen("btime "), nullptr);
}

double CpuSeconds() {
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) +
           static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double OpenFiles() {
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 0;
  double count = 0;
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count - 3;  // ".", ".." and the folder's own descriptor.
}

double MostOpenFiles() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  return static_cast<double>(limit.rlim_cur);
}

void AppendProcess(std::vector<MetricFamily>* families) {
  const ProcessStat stat = ReadProcessStat();
  const double start =
      BootTimeSeconds() +
      stat.start_ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
  families->push_back(Single("process_cpu_seconds_total",
                             "User and system processor time, seconds",
                             MetricType::Counter, CpuSeconds()));
  families->push_back(Single("process_resident_memory_bytes",
                             "Resident memory, bytes", MetricType::Gauge,
                             stat.resident_bytes));
  families->push_back(Single("process_virtual_memory_bytes",
                             "Virtual memory, bytes", MetricType::Gauge,
                             stat.virtual_bytes));
  families->push_back(Single("process_open_fds", "Open file descriptors",
                             MetricType::Gauge, OpenFiles()));
  families->push_back(Single("process_max_fds",
                             "Most file descriptors that may be open",
                             MetricType::Gauge, MostOpenFiles()));
  families->push_back(Single("process_start_time_seconds",
                             "Start of the process, seconds since the epoch",
                             MetricType::Gauge, start));
}

double Sample(const std::function<size_t()>& source) {
  return source ? static_cast<double>(source()) : 0;
}

}  // namespace

std::vector<MetricFamily> SampledMetrics::Collect() const {
  std::vector<MetricFamily> families;
  AppendProcess(&families);
  MutexLock lock(&mutex_);
  families.push_back(Single("sparse_ffn_queued_tokens",
                            "Tokens that wait for a batch", MetricType::Gauge,
                            Sample(queued_tokens_)));
  families.push_back(Single("sparse_ffn_requests_in_flight",
                            "Requests that came and are not answered yet",
                            MetricType::Gauge, Sample(requests_in_flight_)));
  return families;
}

void SampledMetrics::SetQueuedTokensSource(std::function<size_t()> source) {
  MutexLock lock(&mutex_);
  queued_tokens_ = std::move(source);
}

void SampledMetrics::SetRequestsInFlightSource(std::function<size_t()> source) {
  MutexLock lock(&mutex_);
  requests_in_flight_ = std::move(source);
}

}  // namespace sparse_ffn
