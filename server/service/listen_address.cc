#include "server/service/listen_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace sparse_ffn {
namespace {

constexpr char kUnixPrefix[] = "unix:";

absl::Status InUse(const std::string& address) {
  return absl::UnavailableError(absl::StrCat(
      "cannot listen on ", address, ": it is in use by another process"));
}

absl::Status CannotListen(const std::string& address, int error) {
  if (error == EADDRINUSE) return InUse(address);
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", address, ": ", std::strerror(error)));
}

bool ToSocketAddress(const std::string& path, sockaddr_un* address) {
  address->sun_family = AF_UNIX;
  if (path.size() >= sizeof(address->sun_path)) return false;
  std::memcpy(address->sun_path, path.c_str(), path.size() + 1);
  return true;
}

// The error of binding, 0 where it worked.
int TryBind(const sockaddr* address, socklen_t length, int family) {
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  int error = bind(fd, address, length) == 0 ? 0 : errno;
  if (error == 0 && listen(fd, 1) != 0) error = errno;
  close(fd);
  return error;
}

absl::Status TcpBindError(const std::string& address) {
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  if (host.size() > 1 && host.front() == '[') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int resolved = getaddrinfo(host.empty() ? nullptr : host.c_str(),
                                   port.c_str(), &hints, &found);
  if (resolved != 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address,
                                               ": ", gai_strerror(resolved)));
  }
  int error = 0;
  for (const addrinfo* at = found; at != nullptr && error == 0;
       at = at->ai_next) {
    error = TryBind(at->ai_addr, at->ai_addrlen, at->ai_family);
  }
  freeaddrinfo(found);
  if (error != 0) return CannotListen(address, error);
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", address, ": it cannot be bound"));
}

absl::Status UnixBindError(const std::string& address) {
  const std::string path = UnixSocketPath(address);
  sockaddr_un socket_address{};
  if (!ToSocketAddress(path, &socket_address)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on ", address, ": the path is longer than ",
                     sizeof(socket_address.sun_path) - 1, " bytes"));
  }
  const int error = TryBind(reinterpret_cast<const sockaddr*>(&socket_address),
                            sizeof(socket_address), AF_UNIX);
  if (error == 0) unlink(path.c_str());
  return CannotListen(address, error == 0 ? EIO : error);
}

}  // namespace

std::string UnixSocketPath(const std::string& address) {
  if (!absl::StartsWith(address, kUnixPrefix)) return "";
  return address.substr(std::strlen(kUnixPrefix));
}

absl::Status RemoveStaleSocket(const std::string& path) {
  const std::string address = absl::StrCat(kUnixPrefix, path);
  sockaddr_un socket_address{};
  if (!ToSocketAddress(path, &socket_address)) return UnixBindError(address);
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) {
    return errno == ENOENT ? absl::OkStatus() : CannotListen(address, errno);
  }
  if (!S_ISSOCK(status.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot listen on ", address,
        ": something that is not a socket is there; remove it first"));
  }
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return CannotListen(address, errno);
  const absl::Cleanup closer = [fd] { close(fd); };
  if (connect(fd, reinterpret_cast<const sockaddr*>(&socket_address),
              sizeof(socket_address)) == 0 ||
      errno == EAGAIN) {
    return InUse(address);
  }
  if (errno != ECONNREFUSED) return CannotListen(address, errno);
  if (unlink(path.c_str()) != 0) return CannotListen(address, errno);
  return absl::OkStatus();
}

absl::Status BindError(const std::string& address) {
  return UnixSocketPath(address).empty() ? TcpBindError(address)
                                         : UnixBindError(address);
}

}  // namespace sparse_ffn
