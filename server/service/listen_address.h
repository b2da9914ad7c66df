// The addresses that a server listens on: host:port, and unix:path for a
// socket in the file system.
#ifndef SPARSE_FFN_SERVER_SERVICE_LISTEN_ADDRESS_H_
#define SPARSE_FFN_SERVER_SERVICE_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/status.h"

namespace sparse_ffn {

// The path of unix:path, or empty.
std::string UnixSocketPath(const std::string& address);

// Makes way for a server to bind `path`: removes a socket that nobody accepts
// on. UNAVAILABLE where a server does, FAILED_PRECONDITION where something else
// than a socket is there, INVALID_ARGUMENT where the path is too long.
absl::Status RemoveStaleSocket(const std::string& path);

// Why `address` could not be bound, found by trying: "... is in use by another
// process", a name that does not resolve, a folder that does not exist.
absl::Status BindError(const std::string& address);

}  // namespace sparse_ffn

#endif  // SPARSE_FFN_SERVER_SERVICE_LISTEN_ADDRESS_H_
