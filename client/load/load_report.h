// The result of a load in words and as JSON.
#ifndef SPARSE_FFN_CLIENT_LOAD_LOAD_REPORT_H_
#define SPARSE_FFN_CLIENT_LOAD_LOAD_REPORT_H_

#include <string>

#include "client/load/load_client.h"
#include "client/load/load_result.h"
#include "nlohmann/json.hpp"
#include "sparse_ffn/v1/ffn.pb.h"

namespace sparse_ffn {

struct LoadReport {
  std::string target;
  v1::GetModelInfoReply model;
  LoadPlan plan;
  LoadResult result;          // Of all clients.
  double window_seconds = 0;  // Measured time.
};

// Latencies, rates, errors by code and the means of what the server reported,
// in a few lines. Mentions what was measured, so that it stands alone.
std::string FormatLoadReport(const LoadReport& report);

// The same figures; durations in microseconds, rates per second.
nlohmann::json LoadReportToJson(const LoadReport& report);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_CLIENT_LOAD_LOAD_REPORT_H_
