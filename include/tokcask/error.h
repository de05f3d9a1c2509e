// The one way tokcask reports a failure.
//
// Thrown by value from any operation that could not do what it was asked. A miss is not an error: get
// returns an empty optional. After an Error the object that threw is unchanged unless the operation's own
// comment says otherwise; what was committed before stays committed. When memory runs out it is
// std::bad_alloc, of which the same is true.
#pragma once

#include <stdexcept>
#include <string>

#include <tokcask/export.h>

namespace tokcask {

enum class Errc {
  kInvalidArgument,  // the caller's value breaks a stated rule; nothing was stored
  kNotFound,         // no store at this path (read-only open of an absent store)
  kMissing,          // keys that must have entries have none
  kDamaged,          // the store's bytes are not what tokcask wrote
  kIo,               // the operating system refused (message has path and errno text)
  kBusy,             // another process has the write lock past the time limit, or another lock file
  kReadOnly,         // a write through a read-only handle
  kClosed,           // use after close()
  kUnsupported,      // e.g. a network file system
  kInterrupted,      // a wait was given up, as an InterruptScope asked for
};

class TOKCASK_API Error : public std::runtime_error {
 public:
  Error(Errc code, const std::string& what) : std::runtime_error(what), code_(code) {}
  ~Error() override;
  Error(const Error&) = default;
  Error& operator=(const Error&) = default;

  [[nodiscard]] Errc code() const noexcept { return code_; }

 private:
  Errc code_;
};

}  // namespace tokcask
